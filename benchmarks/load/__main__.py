"""``python -m benchmarks.load``: see the package."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from reco_plugin.demo.tasks import drawing, pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, load

from ..page import machine, table, tell
from .inputs import prepare
from .service import ADMIN_KEY, Resident, started
from .traffic import Traffic, Verdict, run

INPUTS = 256  # texts and images that requests are made of


def main() -> int:
    """Run, print, write the block of the page; 1 when an answer was wrong or a request failed."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--seconds", type=float, default=60)
    words.add_argument("--callers", type=int, default=8)
    words.add_argument("--no-writes", action="store_true", help="leave the memory as it is")
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--page", type=Path, help="such as docs/measurements/load.md")
    given = words.parse_args()
    data = load()
    stored, rows = pairs(data, ALL_SPLITS), data.query_rows("unseen")[:INPUTS]
    texts = [entity.label for entity in data.labels(["unseen"])[:INPUTS]]
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "memory"
        known = prepare(given.model, memory, stored, texts, [drawing(data, int(row)) for row in rows])
        key = None if given.no_writes else ADMIN_KEY
        with started(given.model, memory, Path(folder) / "log", ["--log-level", "warning"]) as service:
            resident = Resident(service.pid)
            began = time.perf_counter()
            seen = asyncio.run(run(service.url, known, admin_key=key, callers=given.callers, seconds=given.seconds))
            took = time.perf_counter() - began
            resident.stop()
    command = " ".join(["python -m benchmarks.load", *sys.argv[1:]])
    text = f"`{command}`: {given.callers} callers, {took:.0f} s, {len(stored):,} pairs.\n\n"
    text += block(seen, took, resident.bytes_at)
    tell(given.page, {"load": text})
    for one in [o for o in seen.outcomes if o.verdict in ("wrong", "failed")][:5]:
        print(f"{one.verdict}: {one.kind}: {one.detail}", file=sys.stderr)
    for failure in seen.write_failures[:5]:
        print(f"write failed: {failure}", file=sys.stderr)
    return int(bool(seen.write_failures) or any(o.verdict in ("wrong", "failed") for o in seen.outcomes))


def block(seen: Traffic, seconds: float, resident: Sequence[tuple[float, int]]) -> str:
    """Latencies by kind of request, how requests ended, and the process's mean memory in each quarter of the run."""
    answered = [one for one in seen.outcomes if one.verdict in ("right", "degraded", "wrong")]
    kinds = {"all": answered} | {
        kind: [one for one in answered if one.kind == kind] for kind in sorted({one.kind for one in answered})
    }
    latencies = []
    for kind, some in kinds.items():
        p50, p99 = np.percentile([one.seconds for one in some], [50, 99]) if some else (np.nan, np.nan)
        latencies.append(
            [kind, f"{len(some):,}", f"{len(some) / seconds:.1f}", f"{1000 * p50:.0f}", f"{1000 * p99:.0f}"]
        )
    counts = Counter(one.verdict for one in seen.outcomes)
    ends = [[_TOLD.get(verdict, verdict), f"{counts[verdict]:,}"] for verdict in get_args(Verdict)]
    ends += [["pairs written, removed meanwhile", f"{seen.pairs_added:,}, {seen.pairs_removed:,}"]]
    ends += [["writes that failed", f"{len(seen.write_failures):,}"]]
    quarters = np.array_split(np.array([float(size) for _, size in resident] or [np.nan]), 4)
    sizes = ", ".join(f"{quarter.mean() / 2**20:.0f}" for quarter in quarters if len(quarter))
    return "\n\n".join(
        (
            table(["request", "answered", "per second", "p50 ms", "p99 ms"], latencies),
            table(["answers", ""], ends),
            f"Resident memory of the service in the quarters of the run, mean, MiB: {sizes}.",
            f"Machine: {machine(load=False)}; load average at the end: {os.getloadavg()[0]:.1f}.",
        )
    )


_TOLD = {"degraded": "degraded, said so, and plain", "wrong": "**wrong**", "refused": "refused (429)"}

if __name__ == "__main__":
    raise SystemExit(main())
