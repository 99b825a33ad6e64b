"""The demo: measures accuracy with an empty memory, without the unseen entities, and after adding their pairs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..encoders.model_folder import Artifact
from ..errors import MemoryStoreError
from ..evaluation.evaluate import evaluate, query_memory
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.report import render_page
from ..evaluation.table import align
from ..files import as_data_error, whole_file
from ..quickstart.dataset import EMOJI_SOURCES, NAMES_SOURCE, EntitySplit, Quickstart, load
from ..reco import Reco
from ..sources.images import allow_folders
from ..types import Pair, Records
from .bench import KNOWN, TEST_GROUPS, Accuracies, Bench, drawing, pairs, prepare
from .corrected import correct_captions, write_table

_STAGES = {
    "empty_memory": "memory empty",
    "without_unseen": "memory without the unseen entities",
    "full": "after adding their pairs",
}
_MARK = ".made-by-reco-demo"
_PICTURES = "memory.pictures"
_PHOTOS, _CATALOGUE, _CLEAN = "photos", "catalogue.csv", "clean"
"""Sample user data of the unseen entities, for the tour in the README."""


def run(model: Path, out: Path) -> dict[str, Any]:
    """Run the demo; returns the content of ``results.json``.

    Args:
        model: the shipped quickstart model.
        out: folder for the memory, ``index.html`` and ``results.json``.

    Raises:
        ArtifactError: the model is missing or damaged.
        DataError: the drawings are missing or damaged, or nothing can be written to ``out``.
        MemoryStoreError: ``out`` has a memory or pictures that no demo made.
    """
    Artifact.load(model)
    data = load()
    _clear(out)
    with Reco.open(model, memory=out / "memory", on_memory_failure="fail") as reco:
        allow_folders(out / "memory", [out / _PICTURES])
        print(f"encoder  {reco.manifest.name}, {reco.manifest.dimension}-d; fusion: {reco.manifest.fusion.fuser}")
        bench = prepare(data, reco.encoder)
        stages = _measure_stages(reco, data, bench, out / _PICTURES)
        results: dict[str, Any] = dict(stages.pop("full")) | stages | {"pairs": len(reco.memory)}
        photos = _write_photos(data, out / _PHOTOS)
        _write_page(out / "index.html", reco, bench, photos)
    rows = pairs(data, ("unseen",))
    write_table(out / _CATALOGUE, rows, [str(pair.text) for pair in rows], Path(_PICTURES))
    results["clean"] = correct_captions(model, data, (out / _PICTURES).resolve(), out / _CLEAN)
    with whole_file(out / "results.json") as part:
        part.write_text(json.dumps(results, indent=1), encoding="utf-8")
    _report(results, out)
    return results


def _clear(out: Path) -> None:
    """Make the folder, without the memory and the pictures of an earlier demo.

    Raises:
        MemoryStoreError: it has a memory or pictures that no demo made.
    """
    is_demo = (out / _MARK).is_file()
    for folder in (out / "memory", out / _PICTURES, out / _PHOTOS, out / _CLEAN):
        if folder.exists() and not is_demo:
            raise MemoryStoreError(f"{folder} was not made by the demo and is kept: give another folder by --out")
        shutil.rmtree(folder, ignore_errors=True)
    with as_data_error(f"{out} cannot be made"):
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).touch()


def _measure_stages(reco: Reco, data: Quickstart, bench: Bench, pictures: Path) -> dict[str, Accuracies]:
    stages = {"empty_memory": bench.measure(reco)}
    reco.memory.add(_write_drawings(data, KNOWN, pictures), progress=True)
    stages["without_unseen"] = bench.measure(reco)
    reco.memory.add(_write_drawings(data, ("unseen",), pictures), progress=True)
    stages["full"] = bench.measure(reco)
    return stages


def _write_drawings(data: Quickstart, splits: tuple[EntitySplit, ...], folder: Path) -> list[Pair]:
    """Write the drawings of splits to files for the playground; returns their pairs."""
    drawn = []
    for pair in pairs(data, splits):
        file = folder / f"{pair.id}.png"
        with as_data_error(f"{file} cannot be written"):
            file.parent.mkdir(parents=True, exist_ok=True)
            drawing(data, pair.payload["row"]).save(file)
        drawn.append(replace(pair, payload={**pair.payload, "image": f"{pair.id}.png"}))
    return drawn


def _write_photos(data: Quickstart, folder: Path) -> list[Path]:
    """Write the unseen test queries, one folder per class; returns their files."""
    files = list[Path]()
    for row in data.query_rows("unseen"):
        item = data.items[row]
        name = data.by_key[item.entity].label.replace("/", " ")
        files.append(folder / name / f"{item.style}.png")
        with as_data_error(f"{folder / name} cannot be written"):
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            drawing(data, row).save(files[-1])
    return files


def _write_page(path: Path, reco: Reco, bench: Bench, photos: Sequence[Path]) -> None:
    """Write the page of `reco eval` for the unseen test queries, whose drawings are in ``photos``."""
    queries = bench.group("unseen").queries
    names = [bench.entities[label].label for label in queries.labels.tolist()]
    ids = [f"{file.parent.name}/{file.name}" for file in photos]
    records = Records(ids, queries.vectors, bench.task.candidates.vectors[queries.labels], [{}] * len(ids))
    source = LabelledSet("classes", "drawings", records, names, names, dict(zip(ids, photos, strict=True)))
    record = evaluate(query_memory(source, reco.memory.store), reco, command="reco demo")
    credits = "; ".join(f"{one.credit} ({one.license})" for one in (*EMOJI_SOURCES, NAMES_SOURCE))
    notes = [
        *record.notes,
        f"The mini CLIP, {reco.manifest.name}, never saw these things: their pairs are in the memory alone.",
        f"Drawings and names: {credits}. The method is RECO (Iscen, Caron, Fathi, Schmid, ICLR 2024).",
    ]
    page = render_page(replace(record, title="Things that the encoder never saw", notes=notes))
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def _report(results: dict[str, Any], out: Path) -> None:
    def line(title: str, groups: dict[str, Any], key: str) -> list[str]:
        return [title, *(f"{groups[g][key]['top1']:.1f} / {groups[g][key]['top5']:.1f}" for g in TEST_GROUPS)]

    rows = [line("frozen CLIP", results, "frozen")]
    for stage, title in _STAGES.items():
        rows.append(line(title, results if stage == "full" else results[stage], "both"))
    header = ["top-1 / top-5 in %", "unseen entities", "seen entities", "all labels together"]
    print("\n" + align(header, rows))
    gain = results["unseen"]["both"]["top1"] - results["unseen"]["frozen"]["top1"]
    reco = "reco" if shutil.which("reco") else f"{sys.executable} -m reco_plugin"
    print(
        f"\n{gain:+.1f} points top-1, both refined, on entities that the mini CLIP never saw: pairs were added, "
        "no weight changed."
        f"\n\nLook:  {out / 'index.html'}   (what changes, by kind of query, and examples)"
        f"\n       {out / 'results.json'}"
        f"\n       {out / _PHOTOS}, {out / _CATALOGUE}   (unseen entities in the layout of your own data, for the tour)"
        f"\n\nNext:  {reco} memory search 'a fox' --memory {out / 'memory'}"
        f"\n       {reco} embed --text 'a red fox' --memory {out / 'memory'} --json"
        f"\n       {reco} serve --memory {out / 'memory'}   (then open http://127.0.0.1:8080)"
        f"\n       {reco} model export --help, {reco} eval --help: your own CLIP and catalogue"
    )
