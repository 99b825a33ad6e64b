"""The search index beside the embedded memory: recall, latency, building while it serves, RAM and disk.

    python -m benchmarks.search_index --folder /tmp/index --pairs 10000 100000 1000000     measure what is missing
    python -m benchmarks.search_index --folder /tmp/index --docs                           write the page of what was

Vectors are those of `benchmarks/synthetic.py`, D = 512; queries are pairs from the same clusters that the memory does
not hold. Truth is Edge's own exact search. FAISS (flat) and usearch (HNSW) run on the same vectors in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin.files import whole_file
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.memory.index import LEAST
from reco_plugin.memory.options import MemoryOptions
from reco_plugin.request import Search
from reco_plugin.types import MODALITIES, Modality, Vectors

from .machine import machine
from .million.process import fingerprint_of, resident
from .synthetic import BLOCK, Synthetic

PAGE, TEMPLATE = Path("docs/measurements/search-index.md"), Path(__file__).with_name("search_index_head.md")
D, K, QUERIES, BATCH = 512, 10, 96, 32
EXACT_SINGLE = 8
HNSW_UP_TO = 100_000
"""Pairs; beyond, usearch builds for a quarter of an hour."""
REAL = sorted(Path("../shared/data").glob("clip_vit_b32_*.npz"))
Facts = dict[str, Any]
Ids = list[list[str]]
Ask = Callable[[slice], Ids]


def opened(folder: Path, **options: Any) -> EdgeMemory:
    """The memory in a folder, made where there is none."""
    return EdgeMemory.open(str(folder), fingerprint_of(D), MemoryOptions(**options), create=True)


def asker(store: EdgeMemory, queries: Vectors, by: Modality, where: Any = None, k: int = K) -> Ask:
    """A search of some of the queries."""
    return lambda rows: store.search(Search(queries[rows], by=by, read="text", k=k, where=where)).ids


def asked(ask: Ask, truth: Ids | None = None, singles: int = QUERIES) -> tuple[Facts, Ids]:
    """Latencies of a search one by one and in batches, in ms, and its recall."""
    ask(slice(0, BATCH))
    single, cpu, found = [], [], []
    for row in range(singles):
        begun, worked = time.perf_counter(), time.process_time()
        ask(slice(row, row + 1))
        single.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - worked)
    batches, batches_cpu = [], []
    for start in range(0, QUERIES, BATCH):
        begun, worked = time.perf_counter(), time.process_time()
        found.extend(ask(slice(start, start + BATCH)))
        batches.append((time.perf_counter() - begun) / BATCH)
        batches_cpu.append((time.process_time() - worked) / BATCH)
    facts = {
        "p50": float(np.median(single)),
        "p99": float(np.percentile(single, 99)),
        "cpu": float(np.median(cpu)),
        "batch": float(np.median(batches)),
        "batch_cpu": float(np.median(batches_cpu)),
    }
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(found, truth or [], strict=False) if b]
    return {name: 1000 * value for name, value in facts.items()} | {"recall": float(np.mean(shared or [1]))}, found


def fill(folder: Path, catalogue: Synthetic) -> None:
    """Write the pairs that are missing."""
    with closing(opened(folder, index="off")) as store:
        begun = store.count()
        for records in catalogue.records(begun - begun % BLOCK, catalogue.pairs):
            store.upsert(records)


def measure(folder: Path, pairs: int, say: Callable[[str], None], *, brief: bool) -> Facts:
    """Everything of one size."""
    catalogue = Synthetic(pairs, D)
    fill(folder, catalogue)
    queries = catalogue.queries(QUERIES)
    half = {"row": {"gte": pairs // 2}}
    asks: list[tuple[str, Modality, Modality, Any, int]] = [
        *((f"{own} to {by}", own, by, None, K) for own in MODALITIES for by in MODALITIES),
        ("image to image, half by `where`", "image", "image", half, K),
        ("image to image, k = 50", "image", "image", None, 50),
    ]
    asks = asks[:4] if brief else asks
    facts: Facts = {"pairs": pairs, "exact": {}, "index": {}, "load": os.getloadavg()[0]}
    truth: dict[str, Ids] = {}
    with closing(opened(folder, exact=True)) as store:
        for name, own, by, where, k in asks:
            ask = asker(store, queries.side(own), by, where, k)
            facts["exact"][name], truth[name] = asked(ask, singles=2 if brief else EXACT_SINGLE)
    say(f"exact {facts['exact']}")
    with closing(opened(folder)) as store:
        facts["build"] = built(store, queries.image, brief=brief)
        say(f"build {facts['build']}")
        for name, own, by, where, k in asks:
            facts["index"][name], _ = asked(asker(store, queries.side(own), by, where, k), truth[name])
        say(f"index {facts['index']}")
        facts["write"] = written(store, catalogue, pairs)
    with closing(opened(folder)) as store:
        begun = time.perf_counter()
        asker(store, queries.image, "image")(slice(0, 1))
        while (store.index_state or {}).get("state") == "being made":
            time.sleep(0.01)
        facts["opened_s"] = time.perf_counter() - begun
    facts["beside"] = {} if brief else beside(catalogue, queries.image, truth["image to image"])
    say(f"beside {facts['beside']}, opened in {facts['opened_s']:.2f} s, {facts['write']}")
    return facts


def built(store: EdgeMemory, queries: Vectors, *, brief: bool) -> Facts:
    """Make the index in the background, and ask one query at a time meanwhile, for a third of the time."""
    before, waits, ask = resident(), list[float](), asker(store, queries, "image")
    begun = time.perf_counter()
    if brief:
        store.optimize()
    ask(slice(0, 1))
    if store.count() < LEAST:
        return {}
    while (store.index_state or {}).get("state") != "in use":
        one = time.perf_counter()
        ask(slice(0, 1))
        waits.append(1000 * (time.perf_counter() - one))
        time.sleep(max(0.02, 0.002 * waits[-1]))
    return {
        "s": time.perf_counter() - begun,
        "meanwhile": [float(np.percentile(waits, share)) for share in (50, 99, 100)] if waits else [],
        "searches": len(waits),
        "rss_mb": resident()["rss_own_mb"] - before["rss_own_mb"],
        "peak_mb": resident()["rss_peak_mb"],
        **(store.index_state or {}),
    }


def written(store: EdgeMemory, catalogue: Synthetic, pairs: int) -> Facts:
    """Add pairs to a memory with an index: how long that takes, and whether each is found at once."""
    new = next(catalogue.records(pairs + 10 * BLOCK, pairs + 10 * BLOCK + 256))
    begun = time.perf_counter()
    store.upsert(new)
    seconds = time.perf_counter() - begun
    found = [store.search(Search(new.image[row][None], by="image", read="text", k=1)).ids[0] for row in range(256)]
    store.delete(new.ids)
    return {
        "ms": 1000 * seconds / 256,
        "found": float(np.mean([ids == [name] for ids, name in zip(found, new.ids, strict=True)])),
    }


def beside(catalogue: Synthetic, queries: Vectors, truth: Ids) -> Facts:
    """FAISS's exact index and usearch's HNSW index, on the image vectors alone: they return rows, not vectors."""
    import faiss
    from usearch.index import Index

    vectors = np.concatenate([records.image for records in catalogue.records(0, catalogue.pairs)])
    flat = faiss.IndexFlatIP(D)
    flat.add(vectors)

    def named(rows: Any) -> Ids:
        return [[f"pair-{row:09d}" for row in some] for some in np.atleast_2d(rows)]

    facts: Facts = {"FAISS, flat": asked(lambda rows: named(flat.search(queries[rows], K)[1]), truth, EXACT_SINGLE)[0]}
    if catalogue.pairs <= HNSW_UP_TO:
        graph = Index(ndim=D, metric="ip", dtype="f16", connectivity=16, expansion_add=128, expansion_search=256)
        begun, worked = time.perf_counter(), time.process_time()
        graph.add(np.arange(len(vectors)), vectors)
        took = {"s": time.perf_counter() - begun, "cpu_s": time.process_time() - worked}
        facts["usearch, HNSW, f16, ef 256"] = (
            asked(lambda rows: named(graph.search(queries[rows], K).keys), truth)[0] | took
        )
    return facts


def real() -> list[tuple[str, int, str, float]]:
    """Recall of the lists alone on real CLIP images: file, pairs, lists looked through, recall@10."""
    from reco_plugin.memory.index_side import SideIndex, lists_for

    rows = []
    for path in REAL:
        with np.load(path) as stored:
            image = next(stored[name] for name in stored if "image" in name).reshape(-1, D).astype(np.float32)
        image /= np.linalg.norm(image, axis=1, keepdims=True)
        image = image[np.random.default_rng(0).permutation(len(image))]
        queries, kept = image[:300], image[300:]
        side = SideIndex.train(kept, -kept, len(kept), lambda: None)
        side.add(kept)
        side.measure(kept, kept, lambda: None)
        exact = np.argsort(-(queries @ kept.T), axis=1)[:, :K]
        found = side.nearest(queries, 60)
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
        rows.append((path.stem, len(kept), f"{side.probes[0]} of {lists_for(len(kept))}", recall))
    return rows


def page(template: str, folder: Path) -> str:
    """The page of all that was measured."""
    all_facts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"), key=lambda p: int(p.stem))]
    lines, builds = [], []
    for facts in all_facts:
        pairs = f"{facts['pairs']:,}"
        for kind in ("exact", "index"):
            if kind == "index" and not facts["build"]:
                continue
            lines += [
                _row(pairs, f"Edge, {'all pairs' if kind == 'exact' else 'index'}", name, row)
                for name, row in facts[kind].items()
            ]
        lines += [_row(pairs, name, "image to image, rows only", row) for name, row in facts["beside"].items()]
        if build := facts["build"]:
            waits = " / ".join(f"{ms:.0f} ms" for ms in build["meanwhile"]) or "not asked, all cores"
            lists = ", ".join(f"{m} {a}, {b}" for m, (a, b) in build["lists"].items())
            builds.append(
                f"| {pairs} | {build['s']:.0f} s | {waits} | {build['rss_mb']:.0f} MB | "
                f"{build['peak_mb']:.0f} MB | {build['bytes'] / 1e6:.0f} MB | {facts['opened_s']:.1f} s | "
                f"{facts['write']['ms']:.2f} ms | {facts['write']['found']:.3f} | {lists} |"
            )
    clip = [f"| {name} | {pairs:,} | {lists} | {recall:.3f} |" for name, pairs, lists, recall in real()]
    tools = ("faiss-cpu", "usearch", "qdrant-edge-py", "numpy")
    threads = f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    parts = {
        "SEARCHES": lines,
        "BUILDS": builds,
        "REAL": clip,
        "MACHINE": [f"{machine(*tools, load=False)}, {threads}"],
    }
    for name, rows in parts.items():
        template = template.replace(f"{{{name}}}", "\n".join(rows))
    return template


def _row(pairs: str, engine: str, name: str, row: Facts) -> str:
    times = " | ".join(f"{row[key]:.2f}" for key in ("p50", "p99", "cpu", "batch", "batch_cpu"))
    return f"| {pairs} | {engine} | {name} | {row['recall']:.3f} | {times} |"


def log(begun: float, line: str) -> None:
    print(f"{time.monotonic() - begun:6.0f} s  {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, required=True, help="keeps memories and results; about 5 kB per pair")
    parser.add_argument("--brief", action="store_true", help="index made with all cores and no questions meanwhile")
    parser.add_argument("--docs", action="store_true", help=f"measure nothing, write {PAGE} of all that was")
    told = parser.parse_args(arguments)
    if told.docs:
        with whole_file(PAGE) as part:
            part.write_text(page(TEMPLATE.read_text(), told.folder))
        return
    begun = time.monotonic()
    told.folder.mkdir(parents=True, exist_ok=True)
    for pairs in told.pairs:
        if not (result := told.folder / f"{pairs}.json").exists():
            facts = measure(told.folder / f"{pairs}", pairs, partial(log, begun), brief=told.brief)
            with whole_file(result) as part:
                part.write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
