"""Measure, and print or write the tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from reco_plugin.files import whole_file

from ..synthetic import comparison
from . import __doc__ as about
from .run import Run
from .table import indexing, page, searching, swapping, writing

PAGE, TEMPLATE = Path("docs/measurements/million.md"), Path(__file__).with_name("page.md")


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the steps that are asked for."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--index", action="store_true", help="build the approximate index too, which takes long")
    parser.add_argument("--folder", type=Path, required=True, help="keeps memories and results; about 10 kB per pair")
    parser.add_argument("--docs", action="store_true", help=f"measure nothing, write {PAGE} of all that was")
    told = parser.parse_args(arguments)
    if told.docs:
        with whole_file(PAGE) as part:
            part.write_text(page(TEMPLATE.read_text(), told.folder, comparison()))
        return
    begun = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {line}", flush=True)

    Run(told.pairs, told.dimension, told.folder / f"{told.pairs}x{told.dimension}", log).measure(index=told.index)
    print(writing(told.folder), searching(told.folder), indexing(told.folder), swapping(told.folder), sep="\n\n")


if __name__ == "__main__":
    main()
