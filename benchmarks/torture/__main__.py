"""``python -m benchmarks.torture``: see the package."""

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
from .bodies import bodies
from .lanes import lanes, objects
from .leaving import leavers
from .overload import overload
from .target import Found, Round
from .writes import kill_service

CLASSES: dict[str, Callable[[Round], Found]] = {
    "kill-service": kill_service,
    "bodies": bodies,
    "leavers": leavers,
    "overload": overload,
    "lanes": lanes,
    "objects": objects,
}
Rows = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Run the classes, print what each found; 1 when there was a fault."""
    told = parsed(arguments)
    rows, failed = dict[str, Any](), False
    kept = page.with_suffix("") / "reliability.json"
    if kept.exists():
        rows = json.loads(kept.read_text(encoding="utf-8"))
    for name in told.classes or CLASSES:
        found, seconds = run(name, told.seconds, told.count, told.seed)
        failed |= bool(found.faults)
        extent = f"--count {told.count}" if told.count else f"--seconds {told.seconds:g}"
        rows[name] = {
            "command": f"python -m benchmarks.torture {name} {extent} --seed {told.seed}",
            "seconds": round(seconds),
            "tried": dict(found.tried),
            "answers": dict(found.answers.most_common()),
            "figures": found.figures,
            "faults": found.faults,
        }
        print(" | ".join(cells(name, rows[name])), *(f"  {fault}" for fault in found.faults[:10]), sep="\n", flush=True)
        if told.write:
            with whole_file(kept) as part:
                part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            write_blocks({"torture": block({known: rows[known] for known in CLASSES if known in rows})}, page)
    return int(failed)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    words.add_argument("classes", nargs="*", metavar="class", help=f"some of: {', '.join(CLASSES)}")
    words.add_argument("--seconds", type=float, default=60, help="how long each goes on, besides what it prepares")
    words.add_argument("--count", type=int, help="how much each tries (kills, requests), instead of --seconds")
    words.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    words.add_argument("--write", action="store_true", help="write a row of each into docs/measurements.md")
    told = words.parse_args(arguments)
    if unknown := [name for name in told.classes if name not in CLASSES]:
        words.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CLASSES)}")
    return told


def run(name: str, seconds: float, count: int | None, seed: int) -> tuple[Found, float]:
    """One class, in a folder of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        found = CLASSES[name](Round(Path(work), random.Random(f"{seed} {name}"), seconds, count))
    return found, time.monotonic() - began


def block(rows: Rows) -> str:
    """The block of docs/measurements.md, of the rows of all classes that were run."""
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [cells(name, row) for name, row in rows.items()]
    return f"{where}:\n\n{table(['class', 'tried', 'came to', 'seen', 'faults'], lines, left=4)}"


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """One row: what was tried, answered and seen."""
    figures = "; ".join(f"{figure}: {value}" for figure, value in row["figures"].items())
    return [name, _counts(row["tried"]), _counts(row["answers"]), figures, f"{len(row['faults'])}"]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {times:,}" for name, times in counts.items())


if __name__ == "__main__":
    raise SystemExit(main())
