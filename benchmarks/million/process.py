"""A step of the benchmark: a memory is opened, and filled, checked, asked or indexed. Results are lines of JSON.

::

    python -m benchmarks.million.process STEP KIND FOLDER PAIRS DIMENSION [SEARCH_EF]
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from reco_plugin.memory import Memory, open_memory
from reco_plugin.memory.options import MemoryOptions
from reco_plugin.request import Search
from reco_plugin.types import Fingerprint, Records

from ..synthetic import BLOCK, Synthetic

K = 10
QUERIES, BATCH = 320, 32
ROUNDED = 0.01
"""A pair more or less moves the sum of all by 1; that stores round moves it less than this."""
Kind = Literal["exact", "edge"]
Report = Callable[..., None]


class Spent:
    """Seconds that went by, and that the processors worked for this process, in the blocks that it was used for."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self._begun = (0.0, 0.0)

    def __enter__(self) -> Spent:
        self._begun = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *error: object) -> None:
        self.wall_s += time.perf_counter() - self._begun[0]
        self.cpu_s += time.process_time() - self._begun[1]


def fingerprint_of(dimension: int) -> Fingerprint:
    """Of no encoder."""
    return Fingerprint("synthetic", f"synthetic-{dimension}", dimension)


def opened(kind: Kind, folder: Path, dimension: int, search_ef: int | None = None) -> Memory:
    """The memory in a folder, made where there is none."""
    own: dict[str, Any] = (
        {"index": "off"} if kind == "edge" else {}
    )  # Edge's own; benchmarks/search_index.py has the other
    options = MemoryOptions(**own, **({} if search_ef is None else {"search_ef": search_ef}))
    return open_memory(folder, fingerprint_of(dimension), kind=kind, options=options)


def fill(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Write what is missing, in order; reports the rows that are there and the seconds that the store took.

    The reference keeps its pairs in RAM between two writes of the whole file, of which there are four.
    """
    begun = store.count()
    file_every = catalogue.pairs // 4 if store.kind == "exact" else catalogue.pairs + 1
    rows, spent = begun - begun % BLOCK, Spent()
    report(resumed=begun)
    for records in catalogue.records(rows, catalogue.pairs):
        rows += len(records)
        with spent:
            store.upsert(records)
            if rows // file_every > (rows - len(records)) // file_every:
                store.flush()
        report(rows=rows, store_s=spent.wall_s, store_cpu_s=spent.cpu_s)
    with spent:
        store.flush()
    report(rows=rows, written=rows - begun, store_s=spent.wall_s, store_cpu_s=spent.cpu_s)


def check(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Read every pair and compare all with the catalogue: ids one by one, vectors by a sum with random signs."""
    with Spent() as spent:
        stored, ids = _signed_sum(store.scroll(BLOCK), catalogue.dimension)
    drawn, expected = _signed_sum(catalogue.records(0, catalogue.pairs), catalogue.dimension)
    equal = ids == expected and float(np.abs(stored - drawn).max()) < ROUNDED
    report(equal=equal, pairs=len(ids), read_s=spent.wall_s)


def _signed_sum(batches: Any, dimension: int) -> tuple[npt.NDArray[np.float64], set[str]]:
    total, ids, count = np.zeros((2, dimension)), set[str](), 0
    batch: Records
    for batch in batches:
        rows = np.array([payload["row"] for payload in batch.payloads], np.int64)
        signs = ((rows * 2654435761 >> 16) & 1) * 2.0 - 1
        total += [signs @ batch.image, signs @ batch.text]
        ids.update(batch.ids)
        count += len(batch)
    if len(ids) != count:
        raise SystemExit(f"{count - len(ids)} pairs are there twice")
    return total, ids


def ask(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Search by image for captions, one query at a time and in batches; reports latencies and the ids found."""
    queries = catalogue.queries(QUERIES).image

    def timed(start: int, count: int) -> tuple[Spent, list[list[str]]]:
        with Spent() as spent:
            found = store.search(Search(queries[start : start + count], by="image", read="text", k=K))
        return spent, found.ids

    timed(0, BATCH)  # brings the pages into RAM
    single = [timed(row, 1)[0] for row in range(QUERIES // 2)]
    batched = [timed(start, BATCH) for start in range(0, QUERIES, BATCH)]
    batches = [spent for spent, _ in batched]
    report(
        single_ms=[1000 * float(np.percentile([spent.wall_s for spent in single], share)) for share in (50, 99)],
        single_cpu_ms=1000 * float(np.median([spent.cpu_s for spent in single])),
        batch_ms=1000 * float(np.median([spent.wall_s for spent in batches])),
        batch_cpu_ms=1000 * float(np.median([spent.cpu_s for spent in batches])),
        found=[ids for _, batch in batched for ids in batch],
    )


def index(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Build the approximate index."""
    from reco_plugin.memory.edge import EdgeMemory

    assert isinstance(store, EdgeMemory) and catalogue.pairs
    with Spent() as spent:
        store.optimize()
    report(index_s=spent.wall_s, index_cpu_s=spent.cpu_s)


STEPS = {"fill": fill, "check": check, "ask": ask, "index": index}


def resident() -> dict[str, float]:
    """This process's RAM in MB: now, the part that is no mapped file, and the most there was."""
    status = Path("/proc/self/status").read_text()
    named = {"rss_mb": "VmRSS", "rss_own_mb": "RssAnon", "rss_peak_mb": "VmHWM"}
    return {name: int(re.findall(rf"{field}:\s+(\d+)", status)[0]) / 1000 for name, field in named.items()}


def main() -> None:
    """Run one step."""
    step, kind, folder, pairs, dimension, *more = sys.argv[1:]
    before = resident()["rss_mb"]

    def report(**facts: Any) -> None:
        print(json.dumps(facts), flush=True)

    with Spent() as spent:
        store = opened(cast(Kind, kind), Path(folder), int(dimension), int(more[0]) if more else None)
    report(open_s=spent.wall_s, open_cpu_s=spent.cpu_s, rss_empty_mb=before)
    STEPS[step](store, Synthetic(int(pairs), int(dimension)), report)
    report(**resident())
    store.close()


if __name__ == "__main__":
    main()
