"""Does refinement help? Frozen, images refined, prompts refined, both; on the real memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ....types import Role
from ...findings import Cell, Chart, Column, Line, Section, Table
from ...frozen import refined_candidates, refined_queries
from ...metrics import bootstrap_harmonic, harmonic_mean
from ...reasons import little, why
from ...variants import moved
from ...zero_shot import SIDES, Side
from ..lab import Outcome, frozen, measure
from ..study import Study
from ..tables import GAIN, TOP1, TOP5, spread
from ..task import Task

VARIANTS = {"frozen": "frozen CLIP", "image": "images refined", "text": "prompts refined", "both": "both refined"}

_REFINED: tuple[tuple[Side, str, Role], ...] = (("image", "images", "query"), ("text", "class prompts", "candidate"))


@dataclass(frozen=True)
class _Slice:
    """A classification task of its own: queries of some classes among some classes."""

    title: str
    task: Task
    outcomes: dict[str, Outcome]

    @property
    def before(self) -> Outcome:
        return self.outcomes["frozen"]


def main(study: Study) -> Section:
    """The main table, for every group of classes."""
    tasks = _tasks(study)
    slices = [_measured(study, title, task) for title, task in study.watch(list(tasks.items()), "main")]
    tables = [_table(study, part) for part in slices]
    if study.whole.unseen is not None and study.whole.unseen.any() and not study.whole.unseen.all():
        tables.append(_harmonic(study, slices[0]))
    lines = [Line(name=p.title, y=tuple(float(o.top1.mean()) for o in p.outcomes.values())) for p in slices]
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
            "candidates, through the whole memory. The gain is the difference in top-1 to frozen CLIP on the same "
            "images, with its 95 % bootstrap interval, drawn over groups of images (by default classes)."
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
        notes=tuple(_notes(study, slices[0])),
    )


def _notes(study: Study, part: _Slice) -> Iterator[str]:
    """Why a side gained little, of the first model; only such a side is refined once more."""
    task, refiner = part.task, study.ours.refiner(study.subject.memory)
    for side, what, role in _REFINED:
        if not little(gain := study.gain(part.outcomes[side], part.before, task)):
            continue
        plain = task.queries if side == "image" else task.prompts
        if side == "image":
            refined = refined_queries(refiner, plain, "image", task.hidden)
        else:
            refined = refined_candidates(refiner, plain, "text", None)
        if reason := why(side, what, role, gain, refined.coverage, moved(plain, refined.vectors)):
            yield f"{str(reason).replace('why', 'Why', 1)}."
        if side == study.ours.sides == "image" and study.config.side is None:
            yield "Outside of the main table class prompts stay plain, as the model's policy says (--side both)."


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


def _measured(study: Study, title: str, task: Task) -> _Slice:
    outcomes = {"frozen": frozen(task)}
    for side in SIDES:
        outcomes[side] = measure(replace(study.ours, sides=side), task, study.subject.memory)
    return _Slice(title, task, outcomes)


def _table(study: Study, part: _Slice) -> Table:
    several = len(study.subject.names) > 1
    rows: list[dict[str, Cell]] = []
    for key, outcome in part.outcomes.items():
        cells: dict[str, Cell] = {
            "name": VARIANTS[key],
            "top1": float(outcome.top1.mean()),
            "top5": float(outcome.top5.mean()),
        }
        if key != "frozen":
            cells["gain"] = study.gain(outcome, part.before, part.task)
            if several:
                cells |= {"lowest": min(outcome.models), "highest": max(outcome.models)}
        rows.append(cells)
    count = f"{len(part.task):,} images, {len(part.task.classes):,} classes"
    return Table(
        title=f"{part.title}: {count}",
        columns=(Column(key="name", title=""), TOP1, *spread(study), TOP5, GAIN),
        rows=tuple(rows),
        best=("top1", "top5"),
    )


def _harmonic(study: Study, whole: _Slice) -> Table:
    """Seen and unseen queries among all labels together, as generalised zero-shot learning reports them."""
    unseen = whole.task.query_unseen
    assert unseen is not None  # noqa: S101 - the caller asked
    before = [whole.before.top1[mask] for mask in (~unseen, unseen)]
    groups = (whole.task.groups[~unseen], whole.task.groups[unseen])
    rows: list[dict[str, Cell]] = []
    for key, outcome in whole.outcomes.items():
        seen_hits, unseen_hits = outcome.top1[~unseen], outcome.top1[unseen]
        cells: dict[str, Cell] = {
            "name": VARIANTS[key],
            "seen": float(np.mean(seen_hits)),
            "unseen": float(np.mean(unseen_hits)),
            "harmonic": harmonic_mean(float(np.mean(seen_hits)), float(np.mean(unseen_hits))),
        }
        if key != "frozen":
            cells["gain"] = bootstrap_harmonic(
                [seen_hits, before[0]],
                [unseen_hits, before[1]],
                groups,
                samples=study.config.draws,
                seed=study.config.seed,
            )
        rows.append(cells)
    return Table(
        title="seen and unseen classes among all labels together",
        columns=(
            Column(key="name", title=""),
            Column(key="seen", title="top-1, seen", kind="percent"),
            Column(key="unseen", title="top-1, unseen", kind="percent"),
            Column(key="harmonic", title="harmonic mean", kind="percent"),
            Column(key="gain", title="gain in harmonic mean", kind="points"),
        ),
        rows=tuple(rows),
        best=("harmonic",),
    )
