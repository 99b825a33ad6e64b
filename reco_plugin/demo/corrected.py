"""The last part of the demo: a catalogue in which captions were exchanged, and 30 decisions that correct it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..evaluation.clean_report import CaptionCard, find_wrong, write_clean
from ..evaluation.labelled_set import ReadOptions, read_labelled_set
from ..files import whole_file
from ..ingest.corrections import Correction, correct, write_corrections
from ..ingest.fill import ingest
from ..ingest.run_options import IngestOptions
from ..quickstart.dataset import Quickstart
from ..reco import Reco
from ..sources import open_source
from .page import Bench, pairs, prepare

_WRONG, _DECISIONS = 0.05, 30


def correct_captions(model: Path, data: Quickstart, pictures: Path, out: Path) -> dict[str, float]:
    """Exchange captions, list and correct them, and measure a memory of each; top-1 in percent, by what it holds.

    The 30 decisions are those that a person would make by ``y``, ``n`` and ``e`` on the page, written to
    ``corrections.csv`` as the page saves them.

    Args:
        model: the quickstart model.
        data: the drawings.
        pictures: folder of the memory's drawings.
        out: folder for the table, the page and the corrections.
    """
    rows, rng = pairs(data, ("unseen",)), np.random.default_rng(0)
    texts = [str(pair.text) for pair in rows]
    chosen = rng.choice(len(rows), round(_WRONG * len(rows)), replace=False)
    wrong = list(texts)
    for row, other in zip(chosen.tolist(), np.roll(chosen, 1).tolist(), strict=True):
        wrong[row] = texts[other]
    tables = {"right": out / "right.csv", "exchanged": out / "exchanged.csv"}
    out.mkdir(parents=True, exist_ok=True)
    for path, captions in zip(tables.values(), (texts, wrong), strict=True):
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["id", "image", "text"])
            table.writerows(
                (pair.id, pictures / f"{pair.id}.png", text) for pair, text in zip(rows, captions, strict=True)
            )
    names = {text: {pair.payload["entity"] for pair in rows if pair.text == text} for text in texts}
    shows = {pair.id: str(pair.payload["entity"]) for pair in rows}
    with Reco.open(model, memory=":memory:") as reco:
        reading = ReadOptions(reco.encoder, reco.manifest.fingerprint, out)
        record = find_wrong(read_labelled_set(str(tables["exchanged"]), reading), command="reco demo")
        decided = {
            card.name: _decide(card, shows[card.name], names, data.by_key[shows[card.name]].label)
            for card in record.cards[:_DECISIONS]
        }
        bench = prepare(data, reco.encoder, ("unseen",))
    write_clean(record, out)
    write_corrections(out / "corrections.csv", decided)
    found = sum(wrong[row] != texts[row] for row, pair in enumerate(rows) if pair.id in decided)
    print(
        f"\nCaptions: {len(chosen)} of {len(rows)} were exchanged, and {found} of these are among the first "
        f"{_DECISIONS} that `reco clean` lists.\n"
        f"{_DECISIONS} decisions, as the keys of {out / 'clean.html'} make them, are in "
        f"{out / 'corrections.csv'}."
    )
    results = {name: _measure(model, bench, path) for name, path in tables.items()}
    results["corrected"] = _measure(model, bench, tables["exchanged"], out / "corrections.csv")
    figures = ", ".join(f"{name} {value:.1f} %" for name, value in results.items())
    print(f"Top-1 of the unseen entities by a memory of them alone, with captions {figures}; two points are noise.")
    return {**results, "listed": found}


def _decide(card: CaptionCard, thing: str, names: dict[str, set[str]], label: str) -> Correction:
    """What a person who knows the thing decides: it is right, the suggestion, or its name in their own words."""
    if thing in names[card.caption]:
        return Correction(card.caption, "", "right")
    return Correction(card.caption, card.suggestion if thing in names.get(card.suggestion, ()) else label, "replace")


def _measure(model: Path, bench: Bench, table: Path, *corrections: Path) -> float:
    rows = open_source(str(table))
    for path in corrections:
        rows, notes = correct(rows, path)
        print("\n".join(notes))
    with Reco.open(model, memory=":memory:", on_memory_failure="fail") as reco:
        ingest(rows, reco, IngestOptions(rejected=table.with_suffix(".rejected.jsonl")))
        return bench.measure(reco, ("both",), ("unseen",))["unseen"]["both"]["top1"]
