"""``python -m benchmarks.load``: see the package."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from reco_plugin.demo.tasks import drawing, pairs
from reco_plugin.files import whole_file
from reco_plugin.quickstart.dataset import load
from reco_plugin.quickstart.entities import ALL_SPLITS

from .inputs import prepare
from .report import MIB, figures, page
from .service import ADMIN_KEY, Resident, started
from .traffic import run

INPUTS = 256  # texts and images that requests are made of


def main() -> int:
    """Run, print, write the page; 1 when an answer was wrong or a request failed."""
    words = argparse.ArgumentParser(description=main.__doc__)
    words.add_argument("--seconds", type=float, default=60)
    words.add_argument("--callers", type=int, default=8)
    words.add_argument("--no-writes", action="store_true", help="leave the memory as it is")
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--out", type=Path, default=Path("docs/measurements/load.md"))
    given = words.parse_args()
    data = load()
    stored = pairs(data, ALL_SPLITS)
    rows = data.query_rows("unseen")[:INPUTS]
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
    found = figures(seen, took, resident.bytes_at)
    command = " ".join(["python -m benchmarks.load", *sys.argv[1:]])
    with whole_file(given.out) as part:
        part.write_text(page(found, command=command, callers=given.callers, pairs=len(stored)), encoding="utf-8")
    print(f"{found.per_second:.1f} requests/s, {found.verdicts}, written {found.pairs_added:,}, see {given.out}")
    print("resident MiB by quarter:", *(f"{size / MIB:.0f}" for size in found.resident))
    for one in [o for o in seen.outcomes if o.verdict in ("wrong", "failed")][:5]:
        print(f"{one.verdict}: {one.kind}: {one.detail}", file=sys.stderr)
    for failure in seen.write_failures[:5]:
        print(f"write failed: {failure}", file=sys.stderr)
    return int(bool(found.verdicts.get("wrong") or found.verdicts.get("failed") or seen.write_failures))


if __name__ == "__main__":
    raise SystemExit(main())
