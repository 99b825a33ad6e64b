"""What does it cost? Time by step, bytes per pair, and accuracy by recall of the index."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....fuse import Learned
from ....memory.disk import bytes_on_disk
from ....refine import Refiner
from ....types import Neighbours, Search
from ...findings import Cell, Chart, Column, Line, Section, Table
from ..memories import ApproximateMemory
from ..study import Study
from ..tables import gain_chart, row, table

BATCHES, RUNS, QUICK_RUNS = (1, 32), 20, 5
RECALLS, QUICK_RECALLS = (1.0, 0.99, 0.95, 0.9, 0.8, 0.5), (1.0, 0.9, 0.5)


def cost(study: Study) -> Section:
    """Latency, size, and accuracy under an index that misses neighbours."""
    by_recall, chart = _recall(study)
    return Section(
        key="cost",
        title="What does it cost?",
        about=(
            "Times are medians of repeated calls on the machine that ran this study, after a warm-up "
            "call; they are the only figures here that differ from run to run. "
            "“Retrieve” asks the real memory, “fuse” runs the closed form in numpy, or the first model's fusion. An "
            "approximate index is imitated on the pairs in RAM: each true neighbour is missed with probability 1 - "
            "recall and the next one moves up."
        ),
        tables=(_latency(study), _size(study), by_recall),
        charts=(chart,),
    )


def _latency(study: Study) -> Table:
    rows = [
        {"name": step} | {f"batch{size}": _median(call, size, study.config.quick) for size in BATCHES}
        for step, call in study.watch(list(_steps(study).items()), "latency")
    ]
    total = [sum(float(r[f"batch{size}"]) for r in rows if r["name"] != "encode a text") for size in BATCHES]
    rows.append({"name": "an image, all steps"} | {f"batch{s}": t for s, t in zip(BATCHES, total, strict=True)})
    return Table(
        title="time per query",
        columns=(
            Column(key="name", title="step"),
            *(Column(key=f"batch{s}", title=f"batch of {s}, per query", kind="milliseconds") for s in BATCHES),
        ),
        rows=tuple(rows),
    )


def _steps(study: Study) -> dict[str, Callable[[int], Any]]:
    """Each step as a function of the batch size; encoding only where there is an encoder and something to encode."""
    ours, memory, queries = study.ours, study.subject.memory, study.test.queries.vectors
    steps: dict[str, Callable[[int], Any]] = {}
    encoder, images = study.subject.encoder, study.labelled.images
    if encoder is not None and not isinstance(images, np.ndarray):
        raw = [images[row % len(images)] for row in range(max(BATCHES))]
        steps["encode an image"] = lambda size: encoder.images(raw[:size])
    if encoder is not None:
        names = (list(study.labelled.classes) * max(BATCHES))[: max(BATCHES)]
        steps["encode a text"] = lambda size: encoder.texts(names[:size])
    rows = np.arange(max(BATCHES)) % len(queries)

    def search(size: int) -> Neighbours:
        judged = ours.fusers[0] is None
        return memory.searches.search(Search(queries[rows[:size]], "image", "text", ours.k, witnesses=judged))

    found, fuser = {size: search(size) for size in BATCHES}, ours.fusers[0]
    steps["retrieve"] = search
    refiners = {
        size: Refiner(_Found(memory, found[size]), fuser, k=ours.k, gate=ours.gate, caution=ours.caution)
        for size in BATCHES
    }
    steps["fuse"] = lambda size: refiners[size].refine(queries[rows[:size]], modality="image")
    return steps


class _Found:
    """A memory whose every search finds the same, so that what remains is the fusion."""

    def __init__(self, memory: Learned, found: Neighbours) -> None:
        self.store, self.calibration, self.header, self._found = (
            memory.store,
            memory.calibration,
            memory.searches.header,
            found,
        )

    @property
    def searches(self) -> _Found:
        """What is searched: itself."""
        return self

    def search(self, search: Search) -> Neighbours:
        """What was found before."""
        return self._found


def _median(call: Callable[[int], Any], size: int, quick: bool) -> float:
    """Median time in milliseconds per query."""
    call(size)
    times = []
    for _ in range(QUICK_RUNS if quick else RUNS):
        start = time.perf_counter()
        call(size)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times)) / size


def _size(study: Study) -> Table:
    store, records = study.subject.memory.store, study.records
    payload = [len(json.dumps(dict(p), ensure_ascii=False).encode()) for p in records.payloads]
    rows: list[dict[str, Cell]] = [
        {"name": "both vectors, float32", "bytes": 2 * 4 * study.subject.fingerprint.dimension},
        {"name": "both vectors, float16", "bytes": 2 * 2 * study.subject.fingerprint.dimension},
        {"name": "payload as JSON, mean", "bytes": float(np.mean(payload)) if payload else 0.0},
    ]
    folder = Path(store.location)
    if store.location != ":memory:" and folder.is_dir() and store.count():
        total = bytes_on_disk(folder)  # an embedded memory's files have holes, hundreds of times what is in them
        rows.append({"name": f"{store.kind} memory on disk, everything", "bytes": total / store.count()})
    return Table(
        title="bytes per pair",
        columns=(Column(key="name", title=""), Column(key="bytes", title="bytes per pair", kind="bytes")),
        rows=tuple(rows),
    )


def _recall(study: Study) -> tuple[Table, Chart]:
    recalls = QUICK_RECALLS if study.config.quick else RECALLS
    cells, gains = [], []
    for recall in study.watch(recalls, "index recall"):
        index = ApproximateMemory(study.full.store, recall, study.config.seed)
        outcome = study.measure(study.ours, replace(study.full, before=index))
        cells.append(row(study, f"{recall:g}", outcome))
        gains.append(study.gain(outcome))
    chart = gain_chart(
        "How much recall does the accuracy need?", "recall of the index", recalls, [Line.of("ours", gains)]
    )
    return table(study, "recall of the index", cells, "recall"), chart
