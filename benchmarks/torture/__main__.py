"""``python -m benchmarks.torture``: see the package."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reco_plugin.files import whole_file

from . import builds, costly, faults, fits, fuzz, overload, writes
from .found import Attack, Found, Round, Until
from .page import page

CLASSES: dict[str, Attack] = {
    "kill-writes": writes.kill_writes,
    "kill-service": writes.kill_service,
    "kill-index": writes.kill_index,
    "kill-builds": builds.kill_builds,
    "kill-syncs": builds.kill_syncs,
    "kill-fits": fits.kill_fits,
    "kill-paper-fits": fits.kill_paper_fits,
    "fuzz": fuzz.fuzz,
    "bodies": costly.bodies,
    "filters": costly.filters,
    "slow": costly.slow,
    "overload": overload.overload,
    "faults": faults.faults,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the classes, print what each found; 1 when there was a fault."""
    told = parsed(arguments)
    rows, failed = dict[str, Any](), False
    if told.page and told.page.with_suffix(".json").exists():
        rows = json.loads(told.page.with_suffix(".json").read_text(encoding="utf-8"))
    for name in told.classes or CLASSES:
        found, seconds = run(name, told.seconds, told.count, told.seed)
        failed |= bool(found.faults)
        print(line(name, found, seconds), flush=True)
        for fault in found.faults[:10]:
            print(f"  {fault}", flush=True)
        rows[name] = row(found, seconds, name, told)
        if told.page:
            with whole_file(told.page.with_suffix(".json")) as part:
                part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            with whole_file(told.page) as part:
                part.write_text(page({known: rows[known] for known in CLASSES if known in rows}), encoding="utf-8")
    return int(failed)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    listed = ", ".join(CLASSES)
    words.add_argument(
        "classes", nargs="*", metavar="class", help=f"which to run, one after the other; all of: {listed}"
    )
    words.add_argument("--seconds", type=float, default=60, help="how long each goes on, besides what it prepares")
    words.add_argument("--count", type=int, help="how much each tries (kills, requests), instead of --seconds")
    words.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    words.add_argument("--page", type=Path, help="page to write with the figures of all rounds that it was given to")
    told = words.parse_args(arguments)
    if unknown := [name for name in told.classes if name not in CLASSES]:
        words.error(f"unknown: {', '.join(unknown)}; there are {listed}")
    return told


def run(name: str, seconds: float, count: int | None, seed: int) -> tuple[Found, float]:
    """One class, in a folder of its own."""
    began, until = time.monotonic(), Until(name, seconds, count)
    with tempfile.TemporaryDirectory() as work:
        found = CLASSES[name](Round(Path(work), random.Random(f"{seed} {name}"), until))
    until.close()
    return found, time.monotonic() - began


def line(name: str, found: Found, seconds: float) -> str:
    """What a class found, in one line."""
    answers = ", ".join(f"{answer} x{times:,}" for answer, times in found.answers.most_common())
    figures = "".join(f"; {figure} {value}" for figure, value in found.figures.items())
    return f"{name}: {found.tried.total():,} tried in {seconds:.0f} s: {answers}{figures}; faults: {len(found.faults)}"


def row(found: Found, seconds: float, name: str, told: argparse.Namespace) -> dict[str, Any]:
    """The same for the page."""
    extent = f"--count {told.count}" if told.count else f"--seconds {told.seconds:g}"
    return {
        "command": f"python -m benchmarks.torture {name} {extent} --seed {told.seed}",
        "seconds": round(seconds),
        "tried": dict(found.tried),
        "answers": dict(found.answers.most_common()),
        "figures": found.figures,
        "faults": found.faults,
    }


if __name__ == "__main__":
    raise SystemExit(main())
