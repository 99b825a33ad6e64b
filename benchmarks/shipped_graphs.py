"""Bring the towers of a model folder to what an export writes today, without training or exporting them again.

    python -m benchmarks.shipped_graphs                 # of triton_models/
    python -m benchmarks.shipped_graphs my_model

For the shipped model, whose weights stay as they are: its towers pick their token early (``train/one_token.py``). Every
answer to the samples of an export must stay the same within 1e-6, or nothing is written. Not for int8, whose products
are no plain ones any more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from reco_plugin.artifact import MANIFEST, Artifact, ModelFile, clip_graph
from reco_plugin.config import Settings
from reco_plugin.files import whole_file
from reco_plugin.preprocess import Tokenizer, images_to_array
from reco_plugin.sessions.ort import OrtSession
from reco_plugin.train.export import graph_file
from reco_plugin.train.graph_file import read_graph, write_graph
from reco_plugin.train.one_token import pick_early
from reco_plugin.train.parity import sample_images, sample_texts
from reco_plugin.types import MODALITIES, Modality

NEAR = 1e-6
"""By which a number of an answer may differ."""
_CPU = Settings(provider="cpu", threads=1)


def renew(folder: Path) -> list[str]:
    """Rewrite the towers in which a token is picked late, with their checksums; returns their names.

    Raises:
        SystemExit: an answer would differ.
    """
    artifact = Artifact.load(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))  # all else stays as it is written there
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        changed = dict(_renewed(artifact, folder, Path(place)))  # all, before any is replaced
        for name, new in changed.items():
            path, config = graph_file(folder, name), folder / name / "config.pbtxt"
            write_graph(read_graph(new), path)
            file = ModelFile.of(path)
            told = config.read_text(encoding="utf-8").replace(manifest["graphs"][name]["sha256"], file.sha256)
            manifest["graphs"][name] = file.model_dump(exclude_none=True)
            _write(config, told)
    if changed:
        _write(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return [*changed]


def _renewed(artifact: Artifact, folder: Path, place: Path) -> Iterator[tuple[str, Path]]:
    """The name of each tower in which a token is picked late, and the file of a better one, written into ``place``."""
    for modality in MODALITIES:
        name = clip_graph(modality)
        path, new = graph_file(folder, name), place / name / "model.onnx"
        model = read_graph(path)
        if not pick_early(model):
            continue
        inputs = _inputs(artifact, modality)
        before = OrtSession(path, _CPU).run(inputs)["features"]
        new.parent.mkdir()
        write_graph(model, new)
        after = OrtSession(new, _CPU).run(inputs)["features"]
        if not (apart := float(np.abs(after - before).max())) <= NEAR:  # nor NaN
            raise SystemExit(f"{path} would give other vectors, by {apart:.1e}: the folder stays as it is")
        yield name, new


def _inputs(artifact: Artifact, modality: Modality) -> dict[str, np.ndarray]:
    if modality == "image":
        return {"pixels": images_to_array(sample_images(), artifact.manifest.image)}
    tokenizer = Tokenizer(artifact.tokenizer.read_text(encoding="utf-8"), artifact.manifest.text)
    return {"tokens": np.asarray(tokenizer(sample_texts()).ids, np.int32)}


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("triton_models"))
    changed = renew(parser.parse_args(sys.argv[1:] if words is None else words).folder)
    print(f"rewritten: {', '.join(changed)}" if changed else "all towers are as an export writes them today")


if __name__ == "__main__":
    main()
