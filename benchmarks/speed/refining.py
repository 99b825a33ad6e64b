"""What a refinement costs beside a plain embedding, by size of the memory, and how it grows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

from reco_plugin import Reco
from reco_plugin.calibration import Calibration
from reco_plugin.calibration.learn import learn
from reco_plugin.client import Client
from reco_plugin.evaluate.findings import Chart, Line, Section
from reco_plugin.memory import open_memory
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.refine import Refiner, VectorMemory
from reco_plugin.report import write_charts
from reco_plugin.report.markdown import chart_names
from reco_plugin.retrieve import Retrieval
from reco_plugin.types import MODALITIES, Fingerprint, Modality

from ..load.service import started
from ..markdown import table
from ..synthetic import BLOCK, Synthetic
from .inputs import DIMENSION, Given, batches, fill, vit, wait_for_index
from .turns import Turns, take_turns

CALLS: tuple[tuple[Modality, int], ...] = tuple((m, size) for m in reversed(MODALITIES) for size in (1, 8, 32))
OVER_HTTP: tuple[tuple[Modality, int], ...] = (("text", 1), ("text", 32), ("image", 1))
NEW = 256
_HEAD = ["pairs", "call", "plain, ms", "refined, ms", "of it retrieving", "refined ÷ plain"]


def refining(given: Given) -> str:
    """Plain and refined calls in process and over HTTP, each on inputs of its own; and what learning costs."""
    called, costs = list[list[str]](), list[list[str]]()
    for pairs in given.pairs:
        place, catalogue = given.folder / f"memory-{pairs}", Synthetic(pairs, DIMENSION)
        with Reco.open(vit(given.folder), memory=place) as reco:
            fill(reco.memory.store, catalogue)
            reco.memory.search("a red fox", k=1)  # asks for the search index
            wait_for_index(reco.memory.store)
            costs.append([f"{pairs:,}", *_learning(reco, catalogue)])
            for modality, size in CALLS:
                called.append([f"{pairs:,}", f"{modality} × {size}", *_in_process(reco, modality, size, given.rounds)])
                print(*called[-1], sep=" | ", file=sys.stderr, flush=True)
        with (
            started(vit(given.folder), place, given.folder / "serve.log", ("--no-page",)) as service,
            Client(service.url) as client,
        ):
            client.embed_texts(["the memory's index is loaded by the first search"], refine=True)
            time.sleep(5.0)
            for modality, size in OVER_HTTP:
                cells = _cells(_over_http(client, modality, size, given.rounds), "")
                called.append([f"{pairs:,}", f"{modality} × {size}, HTTP", *cells])
    learned = table(["pairs", "first fit", "a pair stored, ms", "stored and learned from, ms"], costs)
    return f"{table(_HEAD, called, left=2)}\n\nLearning from the pairs:\n\n{learned}"


def _in_process(reco: Reco, modality: Modality, size: int, rounds: int) -> list[str]:
    plain, refined = batches(modality, size), batches(modality, size)
    embed: Callable[..., Any] = reco.embed
    before = reco.counters.retrieve_s.to_dict()
    turns = take_turns(
        {
            "plain": lambda: embed(plain(), modality=modality, refine=False),
            "refined": lambda: embed(refined(), modality=modality, refine=True),
        },
        rounds,
        calls=max(5, 60 // size),
    )
    after = reco.counters.retrieve_s.to_dict()
    retrieved = (after["sum"] - before["sum"]) / max(1, after["count"] - before["count"])
    return _cells(turns, f"{1000 * retrieved:.2f}")


def _over_http(client: Client, modality: Modality, size: int, rounds: int) -> Turns:
    make = batches(modality, size)

    def ask(refine: bool) -> None:
        if modality == "image":
            client.embed_images(make(), refine=refine)
        else:
            client.embed_texts(make(), refine=refine)

    actions = {"plain": partial(ask, False), "refined": partial(ask, True)}
    return take_turns(actions, rounds, calls=max(5, 60 // size))


def _cells(turns: Turns, retrieving: str) -> list[str]:
    plain, refined = (f"{1000 * turns.least(name):.2f}" for name in ("plain", "refined"))
    return [plain, refined, retrieving, f"× {turns.ratio('refined', 'plain'):.2f}"]


def _learning(reco: Reco, catalogue: Synthetic) -> list[str]:
    """Seconds of a first fit, and milliseconds of an insert without and with what is learned from it."""
    begun = time.perf_counter()
    reco.memory.calibrate()
    cells, first = [f"{time.perf_counter() - begun:.1f} s"], catalogue.pairs + 10 * BLOCK
    new = next(catalogue.records(first, first + NEW))
    for write in (lambda: reco.memory.store.upsert(new), lambda: reco.memory.add_records([new])):
        begun = time.perf_counter()
        write()
        cells.append(f"{1000 * (time.perf_counter() - begun) / NEW:.2f}")
        reco.memory.remove(new.ids)
    return cells


@dataclass(frozen=True)
class Point:
    """What is refined, encoding left out."""

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


def slopes(given: Given) -> str:
    """One of pairs, k, batch and dimension changes at a time; all points take turns."""
    most = max(given.pairs)
    axes = {axis: tuple(v for v in values if axis != "pairs" or v <= most) for axis, values in AXES.items()}
    base = replace(BASE, pairs=min(BASE.pairs, most))
    axes["pairs"] = tuple(sorted({*axes["pairs"], base.pairs}))
    points = {replace(base, **{axis: value}) for axis, values in axes.items() for value in values}
    stores = {
        (pairs, dimension): _learned(given, pairs, dimension)
        for pairs, dimension in {(point.pairs, point.dimension) for point in points}
    }
    actions: dict[str, Callable[[], object]] = {
        f"{point} {modality}": _refines(stores[point.pairs, point.dimension], point, modality)
        for point in points
        for modality in MODALITIES
    }
    turns = take_turns(actions, given.rounds, calls=12)
    for store in stores.values():
        store.close()
    sides = tuple(reversed(MODALITIES))
    rows, drawn = list[list[str]](), list[Chart]()
    for axis, values in axes.items():
        names = [{m: f"{replace(base, **{axis: value})} {m}" for m in sides} for value in values]
        ratios = [{m: turns.ratio(name[m], f"{base} {m}") for m in sides} for name in names]
        rows += [
            [axis, f"{value:,}", *(f"{1000 * turns.least(name[m]):.2f} ms" for m in sides)]
            + [f"× {ratio[m]:.2f}" for m in sides]
            for value, name, ratio in zip(values, names, ratios, strict=True)
        ]
        lines = tuple(Line(name=m, y=tuple(ratio[m] for ratio in ratios)) for m in sides)
        drawn.append(_chart(axis, getattr(base, axis), values, lines))
    made = table(["axis", "value", *sides, *(f"{m}, by the base" for m in sides)], rows, left=2)
    if given.charts is None:
        return made
    section = Section(key="slopes", title="How it grows", about="", tables=(), charts=tuple(drawn))
    given.charts.mkdir(parents=True, exist_ok=True)
    write_charts(section, given.charts, "refining")
    shown = zip(drawn, chart_names(section, f"{given.charts.name}/refining"), strict=True)
    return "\n".join([made, "", *(f"![{chart.title}]({name})" for chart, name in shown)])


def _chart(axis: str, base: int, values: tuple[int, ...], lines: tuple[Line, ...]) -> Chart:
    return Chart(
        title=f"Time of a refinement by {axis}",
        x_title=axis,
        y_title=f"times that of {base:,}",
        x=values,
        lines=lines,
        y_kind="number",
        x_log=True,
        baseline=1.0,
    )


def _learned(given: Given, pairs: int, dimension: int) -> EdgeMemory:
    """A memory of so many pairs, with its index in use and its calibration learned."""
    mark = Fingerprint("synthetic", f"{dimension:064x}", dimension)
    store = open_memory(given.folder / f"slopes-{pairs}-{dimension}", mark, kind="edge")
    assert isinstance(store, EdgeMemory)
    fill(store, Synthetic(pairs, dimension))
    store.optimize()
    if not store.header.calibration:
        learn(store, BASE.k)
    return store


def _refines(store: EdgeMemory, point: Point, modality: Modality) -> Callable[[], object]:
    """Refines a batch of vectors, each time others."""
    refiner = Refiner(VectorMemory(store, Calibration.from_json(store.header.calibration)), None, Retrieval(point.k))
    vectors = Synthetic(point.pairs, point.dimension).queries(12 * point.batch).side(modality)
    turn = count()

    def refine() -> object:
        start = next(turn) % 12 * point.batch
        return refiner.refine(vectors[start : start + point.batch], modality=modality)

    return refine
