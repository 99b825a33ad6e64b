"""``python -m benchmarks.engines.run``: run the commands of docs/engines.md in real engines, and measure.

Fails if a command fails, or if the index of a page loses more than a point of R@1 against exact search. An engine that
cannot run here is left out, with the reason.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.page import PAGE, table, write_blocks
from reco_plugin.evaluation import load_function
from reco_plugin.files import whole_file
from reco_plugin.sources.indexes import Engine, IndexQuery, open_index
from reco_plugin.types import Vectors

from .demo import Demo, prepared
from .entries import ENTRIES, Filled
from .nodes import NotHere
from .pages import ClaimFailed

K = 10
MOST_LOST = 1.0
"""Points of R@1 that an index may lose against exact search."""


def main(
    only: Annotated[list[str] | None, typer.Option(help="engines to run; all when left out")] = None,
    folder: Annotated[Path, typer.Option(help="for the memory")] = Path("demo/search"),
    write: Annotated[bool, typer.Option("--write", help="renew the rows of docs/measurements.md")] = False,
) -> None:
    """Run the pages' commands in real engines."""
    if unknown := set(only or ()) - set(ENTRIES):
        raise typer.BadParameter(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(ENTRIES)}")
    rows, failed = dict[str, dict[str, Any]](), dict[str, str]()
    with prepared(folder) as demo:
        for name in only or ENTRIES:
            began = time.monotonic()
            try:
                with ENTRIES[name](demo) as filled:
                    rows[name] = measured(demo, filled)
            except NotHere as reason:
                print(f"{name}: not here: {reason}", flush=True)
                continue
            except ClaimFailed as reason:
                failed[name] = str(reason)
                print(f"{name}: FAILED: {reason}", flush=True)
                continue
            print(f"{name}: {json.dumps(rows[name])} ({time.monotonic() - began:.0f} s)", flush=True)
            if (lost := loss(rows[name])) > MOST_LOST:
                failed[name] = f"the page's index loses {lost:.1f} points of what exact search finds"
    if write:
        write_rows(rows)
    print(f"{len(rows)} passed, {len(failed)} failed, {len(ENTRIES) - len(rows) - len(failed)} skipped")
    if failed:
        sys.exit("\n".join(f"{name}: {why}" for name, why in failed.items()))


def measured(demo: Demo, filled: Filled) -> dict[str, Any]:
    """Recall, and R@1 in per cent."""
    with closing(_opened(demo, filled)) as index:
        described = index.describe()
        if filled.address and described.documents != len(demo.products):
            raise ClaimFailed(f"{filled.address} holds {described.documents:,} documents, not {len(demo.products):,}")

        sides = {"plain": demo.plain, "refined": demo.refined}
        exact = {side: demo.nearest(vectors, K) for side, vectors in sides.items()}
        rankings = {side: _search(index, vectors) for side, vectors in sides.items()}
    return {
        "engine": filled.named or described.engine,
        "index": filled.kind or described.index.partition(":")[0],
        "run": date.today().isoformat(),
        "kept": {side: _recall(rankings[side], exact[side]) for side in sides},
        "first": {
            split: {
                "plain": 100 * demo.first(rankings["plain"], split),
                "refined": 100 * demo.first(rankings["refined"], split),
                "exact": 100 * demo.first(exact["refined"], split),
            }
            for split in ("unseen", "seen")
        },
    }


def _opened(demo: Demo, filled: Filled) -> Engine:
    if filled.address:
        return open_index(filled.address)
    return load_function(filled.function, demo.dimension)


def _search(index: Engine, vectors: Vectors) -> list[list[str]]:
    return [[hit.id for hit in index.search(IndexQuery(vector, k=K))] for vector in vectors]


def _recall(rankings: Sequence[Sequence[str]], exact: Sequence[Sequence[str]]) -> float:
    """Mean recall of the exact hits."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rankings, exact, strict=True)]))


def loss(row: dict[str, Any]) -> float:
    """Points of R@1 that the index loses in its worse split."""
    return max(float(split["exact"] - split["refined"]) for split in row["first"].values())


def write_rows(measured_rows: dict[str, dict[str, Any]], page: Path = PAGE) -> None:
    """Replace the rows of the engines that ran."""
    path = page.with_suffix("") / "engines.json"
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    rows |= measured_rows
    with whole_file(path) as part:
        part.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    head = ["engine", "index of its page", "run", "never seen: plain", "refined", "exact", "known: plain", "refined",
            "exact", "top ten kept, plain", "refined"]  # fmt: skip
    lines = [
        [
            row["engine"],
            row["index"],
            row["run"],
            *(
                f"{row['first'][split][side]:.1f}"
                for split in ("unseen", "seen")
                for side in ("plain", "refined", "exact")
            ),
            *(f"{row['kept'][side]:.3f}" for side in ("plain", "refined")),
        ]
        for _, row in sorted(rows.items())
    ]
    write_blocks({"engines": table(head, lines, left=3)}, page)


if __name__ == "__main__":
    typer.run(main)
