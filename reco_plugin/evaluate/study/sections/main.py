"""Does refinement help? Frozen, images refined, texts refined, both; on the real memory, by class and by caption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from ...findings import Cell, Chart, Column, Line, Section, Table
from ...matches import diagram
from ...measure import Measured, by_unseen, measure_sides
from ...ranking import RECALL_AT
from ...reasons import reasons_of
from ...retrieval import retrieval
from ...task import SIDES, Task
from ..study import Study
from ..tables import GAIN, TOP1, TOP5, VARIANTS, accuracies, extremes, spread

_Found: TypeAlias = Mapping[str, Measured]


def main(study: Study) -> Section:
    """The main table, for every group of classes."""
    both = replace(study.ours, sides="both")
    tasks, found = _tasks(study), dict[str, _Found]()
    for title, task in study.watch(list(tasks.items()), "main"):
        found[title] = measure_sides(task, both.refine(task, study.subject.memory), SIDES)
    first, *_ = found.values()
    tables = [_table(study, title, tasks[title], of) for title, of in found.items()]
    tables += _harmonic(study, first)
    lines = [Line(name=t, y=tuple(float(one.top(1).mean()) for one in of.values())) for t, of in found.items()]
    chart = Chart(
        title="Top-1 before and after",
        x_title="what is refined",
        y_title="top-1, %",
        x=tuple(VARIANTS.values()),
        lines=tuple(lines),
    )
    return Section(
        key="main",
        title="Does refinement help?",
        about=(
            "Every image is classified by the nearest class prompt. Images are refined as queries, prompts as "
            "candidates, through the whole memory; where both are, by exact scores. The gain is the difference in "
            "top-1 to frozen CLIP on the same images, with its 95 % bootstrap interval, drawn over groups of images "
            "(by default classes)."
            + (
                f" Means over {len(study.subject.names)} models; lowest and highest are the models' own top-1."
                if len(study.subject.names) > 1
                else ""
            )
            + (
                ""
                if study.config.dev
                else " No development set was given: half of the classes were set apart to choose baselines on, and "
                "all other sections report the test half."
            )
        ),
        tables=tuple(tables),
        charts=(chart,),
        notes=tuple(_notes(study, first)),
    )


def _notes(study: Study, found: _Found) -> Iterator[str]:
    """Why a side gained little, of the first model."""
    gains = {side: study.gain(found[side], found["frozen"], study.whole) for side in ("image", "text")}
    prompts = [study.whole.classes[label] for label in study.whole.candidates.labels]
    reasons = {reason.refined: reason for reason in reasons_of(found, gains, "class prompts", prompts)}
    for side in gains:
        if side in reasons:
            yield f"{str(reasons[side]).replace('why', 'Why', 1)}."


def _tasks(study: Study) -> dict[str, Task]:
    whole = study.whole
    tasks = {"all classes": whole}
    if whole.unseen is not None and whole.unseen.any() and not whole.unseen.all():
        tasks |= {
            "seen classes, among themselves": whole.among(~whole.unseen),
            "unseen classes, among themselves": whole.among(whole.unseen),
        }
    if not study.config.dev:
        tasks["test half, among itself"] = study.test
    return {title: task for title, task in tasks.items() if len(task)}


def _table(study: Study, title: str, task: Task, found: _Found) -> Table:
    rows: list[dict[str, Cell]] = []
    for key, one in found.items():
        cells = {"name": VARIANTS[key]} | accuracies(one)
        if key != "frozen":
            cells["gain"] = study.gain(one, found["frozen"], task)
            if len(study.subject.names) > 1:
                cells |= extremes(one)
        rows.append(cells)
    return Table(
        title=f"{title}: {len(task):,} images, {len(task.candidates):,} classes",
        columns=(Column(key="name", title=""), TOP1, *spread(study), TOP5, GAIN),
        rows=tuple(rows),
        best=("top1", "top5"),
    )


def _harmonic(study: Study, found: _Found) -> list[Table]:
    """Seen and unseen queries among all labels together, as generalised zero-shot learning reports them."""
    whole, config = study.whole, study.config
    rows: list[dict[str, Cell]] = []
    for line in by_unseen(found, whole.query_unseen, whole.groups, samples=config.draws, seed=config.seed):
        cells: dict[str, Cell] = {"name": VARIANTS[line.refined]}
        cells |= {"seen": line.seen.mean, "unseen": line.unseen.mean, "harmonic": line.harmonic.mean}
        rows.append(cells if line.refined == "frozen" else cells | {"gain": line.gain})
    columns = (
        Column(key="name", title=""),
        Column(key="seen", title="top-1, seen", kind="percent"),
        Column(key="unseen", title="top-1, unseen", kind="percent"),
        Column(key="harmonic", title="harmonic mean", kind="percent"),
        Column(key="gain", title="gain in harmonic mean", kind="points"),
    )
    title = "seen and unseen classes among all labels together"
    return [Table(title=title, columns=columns, rows=tuple(rows), best=("harmonic",))] if rows else []


def captions(study: Study) -> Section:
    """Recall and nDCG in both directions, each side on or off; without a retrieval set, a note."""
    title = "Does it help search by captions?"
    if study.captioned is None:
        return Section(
            key="retrieval",
            title=title,
            about=(
                "Not measured: a labelled set has no captions to search by. Give a retrieval set with --captions "
                "(a table with image and text, .npz, shards, or a folder)."
            ),
        )
    result = retrieval(study.ours.refiners(study.subject.memory)[0], study.captioned)
    rows: list[dict[str, Cell]] = []
    for line in study.watch(list(result.variants), "retrieval"):
        gained = {"gain": None if line.refined == "frozen" else line.gain, "ndcg10": line.ndcg10}
        recall = {f"R@{k}": share for k, share in line.recall.items()}
        rows.append({"direction": line.direction, "refined": line.refined, **recall, **gained})
    columns = [Column(key=key, title=key) for key in ("direction", "refined")]
    columns += [Column(key=key, title=key, kind="percent") for key in (*(f"R@{k}" for k in RECALL_AT), "ndcg10")]
    columns.append(Column(key="gain", title="gain", kind="points"))
    return Section(
        key="retrieval",
        title=title,
        about=(
            f"{result.name}: {result.images:,} images, {result.texts:,} texts, searched both ways. The searching "
            "side is refined as queries, the searched side as candidates; with the query alone refined, an existing "
            "index stays valid. Gains are differences to frozen CLIP on the same queries, with 95 % bootstrap "
            "intervals drawn over images." + (" With the first model." if len(study.subject.names) > 1 else "")
        ),
        tables=(Table(title="", columns=tuple(columns), rows=tuple(rows)),),
        charts=(diagram(result.matches, result.name),) if result.matches else (),
    )
