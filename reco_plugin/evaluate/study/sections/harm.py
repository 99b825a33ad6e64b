"""Does it harm where the memory cannot help? Empty, irrelevant, incomplete and wrong memories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ....defaults import SAME_IMAGE
from ....types import Records
from ...findings import Cell, Chart, Column, Line, Section, Table
from ...measure import Measured
from ...methods import Measures
from ..memories import join_records, leaks, with_wrong_captions
from ..study import Study
from ..tables import SIDES, accuracies, columns, gain_chart, moved, part_gain, row

NOISES, QUICK_NOISES = (0.1, 0.3, 0.5, 0.7, 0.9), (0.5,)

_Trials: TypeAlias = dict[str, Callable[[Measures], Measured]]
"""Kind of memory -> measures a method with it."""


def harm(study: Study) -> Section:
    """Ours, ours without gate and the best baseline, on ever worse memories."""
    methods = _methods(study)
    wrong, chart = _wrong(study, methods)
    trials = (
        _trial(study, "memory as it is", study.records)
        | _trial(study, "empty memory", study.records.take(np.zeros(len(study.records), np.bool_)))
        | _left_out(study)
        | _irrelevant(study)
    )
    rows = [
        row(study, name, measure(method), memory=memory, sides=moved(method))
        for memory, measure in study.watch(list(trials.items()), "memories that cannot help")
        for name, method in methods.items()
    ]
    name, *shares = columns(study, "method")
    return Section(
        key="harm",
        title="Does it harm where the memory cannot help?",
        about=(
            "Gains below 0 are harm. “Without the query's class”: the test classes are halved, and each half queries "
            "a memory without its pairs. “Half of the classes known”: the same memories, queried by the other half, "
            "whose pairs are in. “None of the classes”: only pairs of other classes are left. "
            f"{_known(study)} Wrong captions are permuted among the pairs, never onto the same caption; the captions "
            "and their number stay. The best baseline is the one that did best on development classes, of those that "
            "move the same as ours, or score the classes."
        ),
        tables=(
            Table(
                title="",
                columns=(Column(key="memory", title="memory"), name, SIDES, *shares),
                rows=tuple(rows),
            ),
            wrong,
            _duplicates(study, methods),
        ),
        charts=(chart,),
    )


def _methods(study: Study) -> dict[str, Measures]:
    best = study.baselines[0]
    return {
        "ours": study.ours,
        "ours, no gate": replace(study.ours, gate=False),
        f"best baseline ({best.kind})": best.method,
    }


def _known(study: Study) -> str:
    if study.shows.how == "label key":
        return f"A pair belongs to the class that its payload's {study.config.label_key!r} names."
    if study.shows.how == "caption":
        return "A pair belongs to the classes whose names its caption contains."
    return "Pairs have no captions: each was counted to the class whose prompt is nearest to its text."


def _trial(study: Study, name: str, records: Records) -> _Trials:
    memory = study.memory(records)
    return {f"{name}: {len(records):,} pairs": lambda method: study.measure(method, memory)}


def _left_out(study: Study) -> _Trials:
    left_out = study.halves()
    known = [(asked, memory) for (asked, _), (_, memory) in zip(left_out, left_out[::-1], strict=True)]
    others = study.records.take(~study.shows.of(study.test.candidates.labels))
    return {
        "without the query's class": lambda method: study.measure_halves(method, left_out),
        "half of the classes known, queries of that half": lambda method: study.measure_halves(method, known),
    } | (_trial(study, "none of the classes", others) if len(others) else {})


def _irrelevant(study: Study) -> _Trials:
    if study.distractors is None:
        return {}
    alone = _trial(study, "irrelevant pairs only", study.distractors)
    return alone | _trial(study, "memory and irrelevant pairs", join_records(study.records, study.distractors))


def _wrong(study: Study, methods: dict[str, Measures]) -> tuple[Table, Chart]:
    noises = QUICK_NOISES if study.config.quick else NOISES
    outcomes: dict[str, list[Measured]] = {name: [] for name in methods}
    rows: list[dict[str, Cell]] = []
    shares = []
    for noise in study.watch((0.0, *noises), "wrong captions"):
        noisy = with_wrong_captions(study.records, noise, study.config.seed)
        memory = study.memory(noisy.records)
        shares.append(100 * noisy.share)
        for name, method in methods.items():
            outcomes[name].append(study.measure(method, memory))
            rows.append(row(study, name, outcomes[name][-1], wrong=noisy.share, sides=moved(method)))
    lines = [Line.of(name, [study.gain(outcome) for outcome in found]) for name, found in outcomes.items()]
    title = Column(key="wrong", title="wrong captions", kind="percent")
    return (
        Table(title="wrong captions", columns=(title, *columns(study, "method")), rows=tuple(rows)),
        gain_chart("How many captions may be wrong?", "wrong captions, %", shares, lines),
    )


def _duplicates(study: Study, methods: dict[str, Measures]) -> Table:
    """The leak check: the effect of near-duplicates of the queries in the memory."""
    found = leaks(study.test, study.records)
    clean = study.full if not found.pairs.any() else study.memory(study.records.take(~found.pairs))
    rows: list[dict[str, Cell]] = []
    for name, method in methods.items():
        with_them, without = study.measure(method), study.measure(method, clean)
        rows.append(row(study, f"{name}, near-duplicates left in", with_them))
        rows.append(row(study, f"{name}, near-duplicates taken out", without))
        if found.queries.any():
            rows += [
                {"name": f"{name}, {what}: those queries alone"}
                | accuracies(outcome.only(found.queries))
                | {"gain": part_gain(study, outcome, found.queries)}
                for what, outcome in (("left in", with_them), ("taken out", without))
            ]
    return Table(
        title=(
            f"leak check: {int(found.queries.sum()):,} of {len(study.test):,} queries can retrieve an image with "
            f"cosine above {SAME_IMAGE}, {int(found.pairs.sum()):,} pairs in all"
        ),
        columns=columns(study, "method"),
        rows=tuple(rows),
    )
