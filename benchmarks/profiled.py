"""Where one refined text goes, function by function: the profile of a text that is encoded, and refined through Edge.

    OMP_NUM_THREADS=1 python -m benchmarks.profiled --folder /tmp/refining    after benchmarks.refining

One thread; the model and the memory are those that benchmarks.refining made. The profiler costs time in each Python
call and none inside of the engines, so it makes the share of Python larger than it is: the first line says by how much.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reco_plugin import Reco

from .markdown import table
from .refining import inputs

CALLS, ROWS = 300, 12


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=100_000, help="of a memory that benchmarks.refining filled")
    told = parser.parse_args(arguments)
    with Reco.open(told.folder / "model", memory=told.folder / f"memory-{told.pairs}", threads=1) as reco:

        def ask(first: int) -> float:
            begun = time.perf_counter()
            for call in range(first, first + CALLS):
                reco.embed_texts(inputs("text", 1, call))
            return 1000 * (time.perf_counter() - begun) / CALLS

        ask(0)
        bare = ask(CALLS)
        profile = cProfile.Profile()
        profile.enable()
        watched = ask(2 * CALLS)
        profile.disable()
    stats = pstats.Stats(profile)
    found: Any = stats  # its table and its sum are in no stub
    own = sorted(((row[2], row[0], name) for name, row in found.stats.items()), reverse=True)
    rows = [
        [_named(*name), f"{1000 * own_s / CALLS:.3f}", f"{100 * own_s / found.total_tt:.0f} %", f"{calls / CALLS:.0f}"]
        for own_s, calls, name in own[:ROWS]
    ]
    print(f"A refined text among {told.pairs:,} pairs: {bare:.2f} ms, {watched:.2f} ms under the profiler.\n")
    print(table(["function", "own ms a text", "share", "calls"], rows))


def _named(file: str, _: int, function: str) -> str:
    place = Path(file)
    return f"`{function}`" if file == "~" else f"`{place.parent.name}/{place.stem}.{function}`"


if __name__ == "__main__":
    main()
