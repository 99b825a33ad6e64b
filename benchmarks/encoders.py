"""The table of docs/encoders.md: small encoders of each family, imported in every form and compared with their own.

``python -m benchmarks.encoders [--write]`` prints the table, or puts it into the page. It takes minutes: torch exports
each family once. A family is a row of :mod:`benchmarks.families`.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reco_plugin.artifact import Artifact
from reco_plugin.towers.add import add_model
from reco_plugin.towers.options import AddOptions
from reco_plugin.towers.source import find_checkpoint
from reco_plugin.train.checkpoint import add_checkpoint
from reco_plugin.train.export import export_model
from reco_plugin.train.parity import Parity
from reco_plugin.train.recipe import ExportOptions

from .families import FAMILIES, OPEN_CLIP_FAMILIES, Family, OpenClipFamily, write_immich
from .page import machine, table, write_blocks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "encoders.md"
HEAD = ("family", "published models", "comes as", "least cosine", "texts are cut")


def measure(root: Path) -> Iterator[list[str]]:
    """The rows: each family in each form."""
    for family in FAMILIES.values():
        yield from _of_transformers(family, root / family.name)
    source = write_immich(root / "immich")
    added = add_model(str(source), AddOptions(), root / "of-immich")
    yield _row("CLIP", "immich-app/ViT-B-32__openai", "ONNX, immich", added.parities, added.manifest.text.dynamic)
    for one in OPEN_CLIP_FAMILIES.values():
        yield _of_open_clip(one, root / f"open-clip {one.name}")


def _of_transformers(family: Family, root: Path) -> Iterator[list[str]]:
    files: Any = find_checkpoint(str(family.write_checkpoint(root / "checkpoint")), AddOptions())
    made = add_checkpoint(files, AddOptions(), root / "of-checkpoint")
    yield _row(family.name, family.known, "transformers", made.parities, made.manifest.text.dynamic)
    for form, source in (
        ("ONNX, transformers.js", family.write_transformers_js(root / "js")),
        ("ONNX, optimum", family.write_optimum(root / "optimum")),
    ):
        added = add_model(str(source), AddOptions(), root / f"of-{source.name}")
        yield _row(family.name, family.known, form, added.parities, added.manifest.text.dynamic)


def _of_open_clip(family: OpenClipFamily, root: Path) -> list[str]:
    name = family.write(root)
    parities = export_model(ExportOptions(model=name), root / "out")
    return _row(family.name, family.known, "open_clip", parities, Artifact.load(root / "out").manifest.text.dynamic)


def _row(name: str, known: str, form: str, parities: list[Parity], cut: bool) -> list[str]:
    least = min(one.least_cosine for one in parities[:2])
    return [name, known, form, f"{least:.6f}", "yes" if cut else "no"]


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into docs/encoders.md")
    write = parser.parse_args().write
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder)))
    made_with = machine("onnxruntime", "torch", "transformers", "open_clip_torch", load=False)
    block = f"{table(HEAD, rows, left=3)}\n\n{made_with}"
    if write:
        write_blocks(PAGE, {"families": block})
    print(block)


if __name__ == "__main__":
    main()
