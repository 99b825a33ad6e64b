"""Run rounds, print their rows, or write them into the page."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reco_plugin.files import whole_file

from ..page import PAGE, table, write_blocks
from .crashes import kill_service
from .load import lanes, leavers, overload
from .target import Outcome, Round

CLASSES: dict[str, Callable[[Round], Outcome]] = {
    "kill-service": kill_service,
    "leavers": leavers,
    "overload": overload,
    "lanes": lanes,
}
Rows = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Run the classes and print their rows; 1 if there was a fault."""
    options = parsed(arguments)
    rows, failed = dict[str, Any](), False
    kept = page.with_suffix("") / "reliability.json"
    if kept.exists():
        rows = json.loads(kept.read_text(encoding="utf-8"))
    for name in options.classes or CLASSES:
        outcome, seconds = run(name, options.seconds, options.count, options.seed)
        failed |= bool(outcome.faults)
        extent = f"--count {options.count}" if options.count else f"--seconds {options.seconds:g}"
        rows[name] = {
            "command": f"python -m benchmarks.torture {name} {extent} --seed {options.seed}",
            "seconds": round(seconds),
            "tried": dict(outcome.tried),
            "answers": dict(outcome.answers.most_common()),
            "figures": outcome.figures,
            "faults": outcome.faults,
        }
        print(
            " | ".join(cells(name, rows[name])), *(f"  {fault}" for fault in outcome.faults[:10]), sep="\n", flush=True
        )
        if options.write:
            with whole_file(kept) as part:
                part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            write_blocks({"torture": block({known: rows[known] for known in CLASSES if known in rows})}, page)
    return int(failed)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("classes", nargs="*", metavar="class", help=f"some of: {', '.join(CLASSES)}")
    parser.add_argument("--seconds", type=float, default=60, help="duration of each, without its preparation")
    parser.add_argument("--count", type=int, help="number of tries (kills, requests) instead of --seconds")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--write", action="store_true", help="write a row of each into docs/measurements.md")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.classes if name not in CLASSES]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CLASSES)}")
    return options


def run(name: str, seconds: float, count: int | None, seed: int) -> tuple[Outcome, float]:
    """Run one class in a temporary folder; returns the outcome and the seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        outcome = CLASSES[name](Round(Path(work), random.Random(f"{seed} {name}"), seconds, count))
    return outcome, time.monotonic() - began


def block(rows: Rows) -> str:
    """The block of docs/measurements.md."""
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [cells(name, row) for name, row in rows.items()]
    return f"{where}:\n\n{table(['class', 'tried', 'came to', 'seen', 'faults'], lines, left=4)}"


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """The cells of one row."""
    figures = "; ".join(f"{figure}: {value}" for figure, value in row["figures"].items())
    return [name, _counts(row["tried"]), _counts(row["answers"]), figures, f"{len(row['faults'])}"]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {times:,}" for name, times in counts.items())


if __name__ == "__main__":
    raise SystemExit(main())
