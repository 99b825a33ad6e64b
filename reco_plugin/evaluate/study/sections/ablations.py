"""What does the gain come from? One thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

from ...findings import Cell, Chart, Line, Section, Table
from ...measure import Measured
from ...methods import Method
from ...modes import Mode
from ..memories import at_most_each, captions_of, part
from ..study import Study
from ..tables import VARIANTS, gain_chart, row, table

KS, QUICK_KS = (1, 3, 5, 10, 20), (1, 5, 20)
SHARES, QUICK_SHARES = (0.1, 0.25, 0.5, 1.0), (0.1, 1.0)
EACH, QUICK_EACH = (1, 2, 3, 5), (1, 3)


def ablations(study: Study) -> Section:
    """Search and fusion, gate, k, and the size of the memory."""
    curves = [_by_k(study), _by_size(study), _by_entity(study)]
    return Section(
        key="ablations",
        title="What does the gain come from?",
        about=(
            "One thing is changed at a time; everything else is as in the line “ours”, with "
            f"{VARIANTS[study.ours.sides]}. Search “uni” compares a query "
            "with the memory's vectors of its own modality, fusion “cross” reads the other modality's: the paper's "
            "choice. The gate is learned for that combination only, so the four combinations are compared without "
            "it. Every smaller memory is calibrated anew, as it would be had it been filled with these pairs alone; "
            "smaller ones are parts of larger ones."
        ),
        tables=(_modes(study), _knowledge(study), *(t for t, _ in curves)),
        charts=tuple(chart for _, chart in curves),
    )


def _modes(study: Study) -> Table:
    ours = study.ours
    variants: dict[str, Method] = {"ours": ours, "ours, without gate": replace(ours, gate=False)}
    for search, fusion in product(get_args(Mode), repeat=2):
        variants[f"search {search}, fusion {fusion}, no gate"] = replace(ours, gate=False, modes=(search, fusion))
    if study.subject.control is not None:
        variants["trained without retrieval (control)"] = replace(ours, fusers=(study.subject.control,), gate=False)
    rows = [row(study, "frozen CLIP", study.frozen)]
    rows += [
        row(study, name, study.measure(method))
        for name, method in study.watch(list(variants.items()), "search and fusion")
    ]
    return table(study, "search, fusion, gate", rows)


def _knowledge(study: Study) -> Table:
    """The same queries before and after the pairs of their classes join the memory."""
    classes = study.test.candidates.labels
    own, before = study.shows.of(classes), study.without(classes)
    rows = [
        row(study, "frozen CLIP", study.frozen),
        row(study, f"memory without the test classes: {int((~own).sum()):,} pairs", study.measure(study.ours, before)),
        row(study, f"after adding their {int(own.sum()):,} pairs", study.measure(study.ours)),
    ]
    return table(study, "memory before and after new knowledge", rows)


def _by_k(study: Study) -> tuple[Table, Chart]:
    ks = QUICK_KS if study.config.quick else KS
    ours, plain = {}, {}
    for k in study.watch(ks, "k"):
        memory, method = study.memory(study.records, k), replace(study.ours, k=k)
        ours[k] = study.measure(method, memory)
        plain[k] = study.measure(replace(method, gate=False), memory)
    rows = [row(study, f"k = {k}", outcome) for k, outcome in ours.items()]
    lines = [Line.of("ours", [study.gain(o) for o in ours.values()])]
    lines.append(Line.of("without gate", [study.gain(o) for o in plain.values()]))
    chart = gain_chart("How many neighbours?", "neighbours k", ks, lines, x_log=True)
    return table(study, "neighbours", rows), chart


def _by_size(study: Study) -> tuple[Table, Chart]:
    shares = QUICK_SHARES if study.config.quick else SHARES
    outcomes: dict[int, Measured] = {}
    for share in study.watch(shares, "memory size"):
        rows = part(len(study.records), share, study.config.seed) if len(study.records) else None
        records = study.records if rows is None else study.records.take(rows)
        outcomes[len(records)] = study.measure(study.ours, study.memory(records))
    cells = [row(study, f"{pairs:,} pairs", outcome) for pairs, outcome in outcomes.items()]
    line = Line.of("ours", [study.gain(outcome) for outcome in outcomes.values()])
    chart = gain_chart("How large must the memory be?", "pairs in the memory", list(outcomes), [line], x_log=True)
    return table(study, "memory size", cells), chart


def _by_entity(study: Study) -> tuple[Table, Chart]:
    """Vary the pairs per value of the label key, else per class, else per caption."""
    records, what = study.records, study.config.label_key or "class"
    entities = _entities(study)
    cells: list[dict[str, Cell]] = []
    gains = []
    steps = QUICK_EACH if study.config.quick else EACH
    for most in study.watch((*steps, None), "pairs per entity"):
        chosen = records if most is None else records.take(at_most_each(entities, most, study.config.seed))
        outcome = study.measure(study.ours, study.memory(chosen))
        name = "all" if most is None else f"at most {most}"
        cells.append(row(study, f"{name}: {len(chosen):,} pairs", outcome))
        gains.append(study.gain(outcome))
    chart = gain_chart(
        f"How many pairs per {what}?",
        f"pairs per {what}, at most",
        [*map(str, steps), "all"],
        [Line.of("ours", gains)],
    )
    return table(study, f"pairs per {what}", cells), chart


def _entities(study: Study) -> list[str]:
    """One name per pair; pairs of no class are named by their captions, so that they are thinned out alike."""
    if (key := study.config.label_key) is not None:
        return [str(payload.get(key)) for payload in study.records.payloads]
    entities = captions_of(study.records)
    for pair, number in zip(study.shows.pair[::-1], study.shows.number[::-1], strict=True):  # the first class wins
        entities[pair] = f"class {number}"
    return entities
