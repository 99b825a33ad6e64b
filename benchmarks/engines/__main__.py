"""Command line: ``python -m benchmarks.engines scan`` fills an index and measures how it is read."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import scan


def main() -> None:
    """Run the chosen measurement."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines")
    commands = parser.add_subparsers(dest="command", required=True)
    scanning = commands.add_parser(
        "scan", help="read an index whole: documents a second, RAM of the process that reads"
    )
    scanning.add_argument("--engine", choices=sorted(scan.FILLED), nargs="*", default=["postgresql"])
    scanning.add_argument("--documents", type=int, default=1_000_000)
    scanning.add_argument("--dimension", type=int, default=512)
    scanning.add_argument("--page", type=Path, help="page whose block `scan` is written")
    scanning.add_argument("--read", help=argparse.SUPPRESS)  # address: of the process that reads
    chosen = parser.parse_args()
    if chosen.read is not None:
        scan.read(chosen.read)
    else:
        scan.measure(chosen.engine, chosen.documents, chosen.dimension, chosen.page)


main()
