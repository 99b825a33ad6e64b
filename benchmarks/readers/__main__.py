"""Write the layouts, read them, and print or write the table."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.encode import Encoder
from reco_plugin.files import whole_file
from reco_plugin.types import Records

from ..markdown import table
from ..stand_in import server
from . import __doc__ as about
from .catalogue import Entry, entries
from .layouts import FIRST, Layout, layouts
from .read import built, read, same_vectors
from .served import served

PAGE, HEAD = Path("docs/measurements/readers.md"), Path(__file__).with_name("page.md")


def encoded(catalogue: Sequence[Entry], model: Path, cache: Path) -> Records:
    """Vectors of the catalogue under a model, kept in the cache."""
    artifact = Artifact.load(model)
    path = cache / f"vectors-{len(catalogue)}-{artifact.manifest.fingerprint.digest[:12]}.npz"
    if not path.is_file():
        encoder = Encoder(artifact, load_settings())
        images, texts = [], []
        for start in range(0, len(catalogue), 256):
            batch = catalogue[start : start + 256]
            images.append(encoder.images([entry.image for entry in batch]))
            texts.append(encoder.texts([entry.caption for entry in batch]))
        with whole_file(path) as part:
            np.savez(part, image=np.concatenate(images), text=np.concatenate(texts))
    with np.load(path) as stored:
        payloads = [{"caption": entry.caption, "style": entry.style} for entry in catalogue]
        return Records([entry.key for entry in catalogue], stored["image"], stored["text"], payloads)


def written(layout: Layout, folder: Path, catalogue: Sequence[Entry]) -> str:
    """A layout in a folder or on a server, written once; returns what is given to the reader."""
    note = folder / ".source"  # written last, so a layout without it is unfinished
    if layout.fresh or not note.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = layout.write(folder, catalogue)
        note.write_text(source if isinstance(source, str) else str(source.relative_to(folder)))
    told = note.read_text()
    return told if "://" in told else str(folder / told)


@dataclass(frozen=True)
class Bench:
    """What is measured with.

    Attributes:
        catalogue: the pairs.
        vectors: theirs, row by row.
        model: folder of the encoder.
        home: folder for layouts and vectors.
    """

    catalogue: Sequence[Entry]
    vectors: Records
    model: Path
    home: Path

    @classmethod
    def of(cls, catalogue: Sequence[Entry], model: Path, home: Path) -> Bench:
        """With the vectors of a model."""
        home.mkdir(parents=True, exist_ok=True)
        return cls(catalogue, encoded(catalogue, model, home), model, home)

    def sources(self) -> Iterator[tuple[str, Layout, str]]:
        """Every layout by name, written, and what is given to its reader."""
        home, fingerprint = self.home / str(len(self.catalogue)), Artifact.load(self.model).manifest.fingerprint
        with served(home / _file_name(FIRST)) as url, server("http") as qdrant:
            for name, layout in layouts(self.vectors, fingerprint, url, qdrant).items():
                yield name, layout, written(layout, home / _file_name(name), self.catalogue)

    def reading(self) -> str:
        """A table of reading every layout."""
        rows = []
        for name, layout, source in self.sources():
            found = read(source, layout, self.catalogue, self.vectors)
            print(f"{name}: {found}", file=sys.stderr, flush=True)
            seconds = (f"{found.seconds:.1f}", f"{found.cpu_s:.1f}", f"{found.pairs / found.cpu_s:,.0f}")
            rows.append([name, f"{found.pairs:,}", f"{found.rejected}", *seconds, _word(found.equal)])
        return table(["layout", "pairs", "rejected", "s", "CPU s", "pairs per CPU s", "ids, images, texts"], rows)

    def ingesting(self) -> str:
        """A table of building a memory from every layout."""
        rows = []
        for name, layout, source in self.sources():
            with tempfile.TemporaryDirectory() as folder:
                made = built(source, Path(folder), self.model)
            print(f"{name}: {made.outcome}", file=sys.stderr, flush=True)
            added, equal = made.outcome.added, same_vectors(made.vectors, layout, self.catalogue, self.vectors)
            seconds = (f"{made.outcome.seconds:.0f}", f"{made.cpu_s:.0f}", f"{added / made.cpu_s:,.0f}")
            rows.append([name, f"{added:,}", f"{made.outcome.rejected}", *seconds, _word(equal)])
        return table(["layout", "pairs", "rejected", "s", "CPU s", "pairs per CPU s", "ids, vectors"], rows)


def _file_name(layout: str) -> str:
    return re.sub(r"\W+", "-", layout).strip("-")


def _word(equal: bool) -> str:
    return "equal" if equal else "**differ**"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every layout."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help="only the first so many drawings")
    parser.add_argument("--ingest", type=int, metavar="N", help="also build a memory of the first N from each layout")
    parser.add_argument("--docs", action="store_true", help=f"write the tables into {PAGE}")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--model", type=Path, default=Path("triton_models"))
    told = parser.parse_args(arguments)
    catalogue, home = list(entries(told.cache, told.pairs)), told.cache / "readers"
    tables = {"READING": Bench.of(catalogue, told.model, home).reading()}
    print(tables["READING"])
    tables["INGESTING"] = "Not measured this time: give --ingest."
    if told.ingest:
        tables["INGESTING"] = Bench.of(catalogue[: told.ingest], told.model, home).ingesting()
        print(tables["INGESTING"])
    if told.docs:
        page = HEAD.read_text()
        for name, made in tables.items():
            page = page.replace(f"<!-- {name} -->", made)
        with whole_file(PAGE) as part:
            part.write_text(page)


if __name__ == "__main__":
    main()
