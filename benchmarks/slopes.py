"""How the time of a refinement grows with the number of pairs, k, the batch and the dimension.

    python -m benchmarks.slopes --folder /tmp/slopes --docs docs/measurements

Given vectors are refined through embedded memories of benchmarks/synthetic.py (with their search index from 10,000
pairs on), encoding left out. One of pairs, k, batch and dimension changes at a time; the others stay at 10,000, 10, 8
and 512. All points take turns, each on queries of its own; a figure is the median over the rounds of the time over that
of the unchanged point in the same round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from reco_plugin.calibration import Calibration
from reco_plugin.calibration.learn import learn
from reco_plugin.evaluate.findings import Chart, Line, Section
from reco_plugin.memory import open_memory
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.report import write_charts
from reco_plugin.report.markdown import chart_names
from reco_plugin.retrieve import Retrieval
from reco_plugin.types import MODALITIES, Fingerprint, Modality

from .markdown import table
from .synthetic import BLOCK, Synthetic

CALLS, ROUNDS = 12, 7


@dataclass(frozen=True)
class Point:
    """What is measured."""

    pairs: int = 10_000
    k: int = 10
    batch: int = 8
    dimension: int = 512


BASE = Point()
AXES: dict[str, tuple[int, ...]] = {
    "pairs": (1_000, 3_000, 10_000, 30_000, 100_000),
    "k": (1, 3, 10, 30, 50),
    "batch": (1, 8, 32, 128),
    "dimension": (128, 256, 512, 768, 1024),
}


def points() -> list[Point]:
    """The base, and those that differ from it along one axis."""
    found = {replace(BASE, **{axis: value}) for axis, values in AXES.items() for value in values}
    return sorted(found, key=lambda point: (point.pairs, point.dimension, point.k, point.batch))


def open_filled(folder: Path, point: Point) -> EdgeMemory:
    """A memory of so many pairs, with its index in use and its calibration learned."""
    catalogue = Synthetic(point.pairs, point.dimension)
    mark = Fingerprint("synthetic", f"{point.dimension:064x}", point.dimension)
    store = open_memory(folder / f"{point.pairs}-{point.dimension}", mark, kind="edge")
    assert isinstance(store, EdgeMemory)
    have = store.count()
    for records in catalogue.records(have - have % BLOCK, point.pairs):
        store.upsert(records)
    store.flush()
    store.optimize()
    if not store.header.calibration:
        learn(store, BASE.k)
    return store


class Subject:
    """The refiner of one point, and its queries."""

    def __init__(self, point: Point, store: EdgeMemory) -> None:
        self.point = point
        self.refiner = Refiner(
            VectorMemory(store, Calibration.from_json(store.header.calibration)), None, Retrieval(point.k)
        )
        self.queries = Synthetic(point.pairs, point.dimension).queries(CALLS * point.batch)

    def milliseconds(self, modality: Modality) -> float:
        """Of a call, the median of a round."""
        taken, vectors, batch = list[float](), self.queries.side(modality), self.point.batch
        for call in range(CALLS):
            some = vectors[call * batch : (call + 1) * batch]
            begun = time.perf_counter()
            self.refiner.refine(some, modality=modality)
            taken.append(time.perf_counter() - begun)
        return 1000 * median(taken)


def measure(folder: Path) -> dict[tuple[Point, Modality], tuple[float, float]]:
    """Of each point and modality: the least milliseconds, and the median ratio to the base."""
    sizes = {(point.pairs, point.dimension): point for point in points()}
    opened = {size: open_filled(folder, point) for size, point in sizes.items()}
    subjects = [Subject(point, opened[point.pairs, point.dimension]) for point in points()]
    found: dict[tuple[Point, Modality], list[float]] = {}
    for turn in range(ROUNDS + 1):
        for subject in subjects:
            for modality in MODALITIES:
                taken = subject.milliseconds(modality)
                if turn > 0:  # the first round warms up
                    found.setdefault((subject.point, modality), []).append(taken)
        print(f"round {turn} of {ROUNDS}", file=sys.stderr, flush=True)
    for store in opened.values():
        store.close()
    return {
        (point, modality): (
            min(taken),
            median(one / base for one, base in zip(taken, found[BASE, modality], strict=True)),
        )
        for (point, modality), taken in found.items()
    }


def section(found: dict[tuple[Point, Modality], tuple[float, float]]) -> Section:
    """A chart for each axis."""
    charts = [
        Chart(
            title=f"Time of a refinement by {axis}",
            x_title=axis,
            y_title=f"times that of {getattr(BASE, axis):,}",
            x=values,
            lines=tuple(
                Line(name=m, y=tuple(found[replace(BASE, **{axis: value}), m][1] for value in values))
                for m in reversed(MODALITIES)
            ),
            y_kind="number",
            x_log=True,
            baseline=1.0,
        )
        for axis, values in AXES.items()
    ]
    return Section(key="slopes", title="How it grows", about="", tables=(), charts=tuple(charts))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps the memories")
    parser.add_argument("--docs", type=Path, required=True, help="folder of the charts")
    told = parser.parse_args(arguments)
    told.folder.mkdir(parents=True, exist_ok=True)
    found = measure(told.folder)
    rows = [
        [axis, f"{value:,}"]
        + [f"{found[point, m][0]:.2f} ms" for m in reversed(MODALITIES)]
        + [f"× {found[point, m][1]:.2f}" for m in reversed(MODALITIES)]
        for axis, values in AXES.items()
        for value in values
        for point in (replace(BASE, **{axis: value}),)
    ]
    print(table(["axis", "value", "text", "image", "text, by the base", "image, by the base"], rows, left=2) + "\n")
    drawn = section(found)
    (told.docs / "speed").mkdir(parents=True, exist_ok=True)
    write_charts(drawn, told.docs / "speed", "refining")
    for chart, name in zip(drawn.charts, chart_names(drawn, "speed/refining"), strict=True):
        print(f"![{chart.title}]({name})")


if __name__ == "__main__":
    main()
