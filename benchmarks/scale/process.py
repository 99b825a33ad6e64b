"""A step: a memory is opened, and filled, checked, asked or indexed. Results are lines of JSON.

::

    python -m benchmarks.scale.process STEP WAY FOLDER PAIRS DIMENSION
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.calibration.learn import learn
from reco_plugin.memory import Memory, open_memory
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.memory.index import LEAST
from reco_plugin.memory.options import MemoryOptions
from reco_plugin.types import Fingerprint, Modality, Records, Search

from ..synthetic import BLOCK, Synthetic

K, QUERIES, BATCH = 10, 320, 32
ROUNDED = 0.01
"""A pair more or less moves the sum of all by 1; that stores round moves it less than this."""
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # how a memory is searched: kind of memory, options
    "reference": ("exact", {}),
    "all pairs": ("edge", {"index": "off"}),
    "search index": ("edge", {}),
    **{f"Edge's graph, ef {ef}": ("edge", {"index": "off", "search_ef": ef}) for ef in (64, 256, 512)},
}
SEARCHES: dict[str, tuple[Modality, Modality, bool, int]] = {  # queries of, vectors of, half of the pairs, k
    "image to image": ("image", "image", False, K),
    "text to image": ("text", "image", False, K),
    "half by `where`": ("image", "image", True, K),
    "k = 50": ("image", "image", False, 50),
}
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


def opened(way: str, folder: Path, dimension: int) -> Memory:
    """The memory in a folder, made where there is none."""
    (kind, options), mark = WAYS[way], Fingerprint("synthetic", f"synthetic-{dimension}", dimension)
    return open_memory(folder, mark, kind=kind, options=MemoryOptions(**options))  # type: ignore[arg-type]


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
    stored, ids = _signed_sum(store.scroll(BLOCK), catalogue.dimension)
    drawn, expected = _signed_sum(catalogue.records(0, catalogue.pairs), catalogue.dimension)
    report(equal=ids == expected and float(np.abs(stored - drawn).max()) < ROUNDED, pairs=len(ids))


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
    """Search for captions, one query at a time and in batches; reports latencies and the ids found."""
    queries = catalogue.queries(QUERIES)
    for name, (own, by, half, k) in SEARCHES.items():
        where = {"row": {"gte": catalogue.pairs // 2}} if half else None
        vectors = queries.side(own)

        def asked(start: int, count: int, by: Modality = by, k: int = k, where: Any = where, of: Any = vectors) -> Any:
            with Spent() as spent:
                found = store.search(Search(of[start : start + count], by=by, read="text", k=k, where=where))
            return spent, found.ids

        asked(0, BATCH)  # brings the pages into RAM
        while isinstance(store, EdgeMemory) and (store.index_state or {}).get("state") == "being made":
            time.sleep(0.01)  # it is read, once, when the first query comes
        single = [asked(row, 1)[0] for row in range(QUERIES // 2)]
        batched = [asked(start, BATCH) for start in range(0, QUERIES, BATCH)]
        report(
            **{
                name: {
                    "single_ms": [1000 * float(np.percentile([s.wall_s for s in single], at)) for at in (50, 99)],
                    "single_cpu_ms": 1000 * float(np.median([s.cpu_s for s in single])),
                    "batch_ms": 1000 * float(np.median([s.wall_s for s, _ in batched])) / BATCH,
                    "batch_cpu_ms": 1000 * float(np.median([s.cpu_s for s, _ in batched])) / BATCH,
                    "found": [ids for _, batch in batched for ids in batch],
                }
            }
        )


def index(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Make the search index in the background, and ask one query at a time meanwhile, for a third of the time."""
    assert isinstance(store, EdgeMemory)
    waits, query = list[float](), catalogue.queries(1).image
    with Spent() as whole:
        store.search(Search(query, by="image", read="text", k=K))
        while store.count() >= LEAST and (store.index_state or {}).get("state") != "in use":
            with Spent() as spent:
                store.search(Search(query, by="image", read="text", k=K))
            waits.append(1000 * spent.wall_s)
            time.sleep(max(0.02, 2 * spent.wall_s))
    meanwhile = [float(np.percentile(waits, share)) for share in (50, 99, 100)] if waits else []
    report(index_s=whole.wall_s, index_cpu_s=whole.cpu_s, meanwhile_ms=meanwhile)


def graph(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Build Edge's own index, which locks the folder."""
    assert isinstance(store, EdgeMemory) and catalogue.pairs
    with Spent() as spent:
        store.optimize()
    report(index_s=spent.wall_s, index_cpu_s=spent.cpu_s, meanwhile_ms=[])


def learn_from(store: Memory, catalogue: Synthetic, report: Report) -> None:
    """Learn from the pairs: seconds until there is a state, and until every pair is judged."""
    if store.count_unjudged() < catalogue.pairs:
        raise RuntimeError("pairs were judged before, as by a run that was cut off: remove the memory, and its results")

    def look(_: int) -> None:
        if store.header.calibration and not first:
            first.update(state_s=time.perf_counter() - begun, state_cpu_s=time.process_time() - worked)

    store.set_calibration({})
    first, begun, worked = dict[str, float](), time.perf_counter(), time.process_time()
    with Spent() as spent:
        learn(store, K, progress=look)
    look(0)
    report(**first, judged_s=spent.wall_s, judged_cpu_s=spent.cpu_s, left=store.count_unjudged())


STEPS = {"fill": fill, "check": check, "ask": ask, "index": index, "graph": graph, "learn": learn_from}


def resident() -> dict[str, float]:
    """This process's RAM in MB: now, the part that is no mapped file, and the most there was."""
    status = Path("/proc/self/status").read_text()
    named = {"rss_mb": "VmRSS", "rss_own_mb": "RssAnon", "rss_peak_mb": "VmHWM"}
    return {name: int(re.findall(rf"{field}:\s+(\d+)", status)[0]) / 1000 for name, field in named.items()}


def main() -> None:
    """Run one step."""
    step, way, folder, pairs, dimension = sys.argv[1:]

    def report(**facts: Any) -> None:
        print(json.dumps(facts), flush=True)

    with Spent() as spent:
        store = opened(way, Path(folder), int(dimension))
    report(open_s=spent.wall_s)
    STEPS[step](store, Synthetic(int(pairs), int(dimension)), report)
    report(**resident())
    store.close()


if __name__ == "__main__":
    main()
