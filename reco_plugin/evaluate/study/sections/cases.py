"""What happened to single queries? The furthest rises and the deepest falls, each class once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ....types import Modality, Refinement, Vectors
from ...findings import Case, Ranked, Section, Shown
from ...metrics import ranks
from ..study import Study
from ..task import Task

COUNT, QUICK_COUNT = 12, 4
FIRST = 5  # candidates that are shown of each ranking


class Cases(NamedTuple):
    """The section, best gains and worst harms."""

    section: Section
    gains: tuple[Case, ...]
    harms: tuple[Case, ...]


def cases(study: Study) -> Cases:
    """Queries by how far they rose or fell, as reciprocal rank sees it: from third to first is more than 300 to 100."""
    task, ours = study.test, study.ours
    queries, prompts = ours.refine(task, study.full)
    before, after = (ranks(*vectors, task.labels) for vectors in ((task.queries, task.prompts), (queries, prompts)))
    change = 1.0 / (1.0 + after) - 1.0 / (1.0 + before)
    count = QUICK_COUNT if study.config.quick else COUNT
    show = _Show(study, queries, prompts, before, after)
    gains = [show(row) for row in study.watch(_each_class_once(change, task.labels, count), "gains")]
    harms = [show(row) for row in study.watch(_each_class_once(-change, task.labels, count), "harms")]
    section = Section(
        key="cases",
        title="What happened to single queries?",
        about=(
            f"{int((change > 0).sum()):,} of {len(task):,} queries rose, {int((change < 0).sum()):,} fell. Shown are "
            "the best gains and the worst harms by reciprocal rank, one query per class"
            + (", with the first model." if len(study.subject.names) > 1 else ".")
            + ("" if study.shows.known else " The pairs have no captions, so what is relevant is not known.")
        ),
    )
    return Cases(section, tuple(gains), tuple(harms))


def _each_class_once(change: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], count: int) -> list[int]:
    """Rows of the largest positive changes, of every class the first."""
    chosen: dict[int, int] = {}
    for row in np.argsort(-change, kind="stable"):
        if change[row] <= 0 or len(chosen) == count:
            break
        chosen.setdefault(int(labels[row]), int(row))
    return list(chosen.values())


class _Show:
    """Makes a case of a query's row."""

    def __init__(
        self,
        study: Study,
        queries: Vectors,
        prompts: Vectors,
        before: npt.NDArray[np.int64],
        after: npt.NDArray[np.int64],
    ) -> None:
        self.study, self.queries, self.prompts, self.before, self.after = study, queries, prompts, before, after
        self.refiner = study.ours.refiner(study.full)
        self.row_of = {id_: row for row, id_ in enumerate(study.records.ids)}
        self.prompt_refinement = (
            self.refiner.refine(study.test.prompts, modality="text", role="candidate", explain=True)
            if study.ours.sides != "image"
            else None
        )

    def __call__(self, row: int) -> Case:
        study, task = self.study, self.study.test
        label = int(task.labels[row])
        return Case(
            name=task.classes[label],
            picture=study.pictures.query(int(task.rows[row])),
            rank_before=int(self.before[row]),
            rank_after=int(self.after[row]),
            before=_ranking(task, task.queries[row], task.prompts, label),
            after=_ranking(task, self.queries[row], self.prompts, label),
            neighbours=self._neighbours(row, label),
            prompt_neighbours=()
            if self.prompt_refinement is None
            else self._shown(self.prompt_refinement, label, label),
        )

    def _neighbours(self, row: int, label: int) -> tuple[Shown, ...]:
        if self.study.ours.sides == "text":
            return ()
        side: Modality = "image"
        hidden = self.study.test.hidden
        query = self.study.test.queries[row : row + 1]
        found = self.refiner.refine(
            query, modality=side, explain=True, exclude=hidden[row : row + 1] if hidden else None
        )
        return self._shown(found, 0, label)

    def _shown(self, refinement: Refinement, row: int, label: int) -> tuple[Shown, ...]:
        found, trust = refinement.neighbours, refinement.trust
        if found is None or trust is None:
            return ()
        relevant = self._relevant(found.ids[row], label)
        payloads = (found.payloads or [[]] * len(found.ids))[row]
        return tuple(
            Shown(
                caption=str(payload.get("caption", id_)),
                picture=self.study.pictures.pair(payload),
                similarity=float(found.similarity[row, place]),
                trust=float(trust[row, place]),
                relevant=relevant[place],
            )
            for place, (id_, payload) in enumerate(zip(found.ids[row], payloads, strict=True))
        )

    def _relevant(self, ids: Sequence[str], label: int) -> list[bool | None]:
        shows = self.study.shows
        if not shows.known:
            return [None] * len(ids)
        of_class = set(shows.pair[shows.number == self.study.test.numbers[label]].tolist())
        return [self.row_of[id_] in of_class for id_ in ids]


def _ranking(task: Task, query: Vectors, prompts: Vectors, label: int) -> tuple[Ranked, ...]:
    similarity = prompts @ query  # (C,)
    first = np.argsort(-similarity, kind="stable")[:FIRST]
    return tuple(
        Ranked(name=task.classes[row], similarity=float(similarity[row]), true=bool(row == label)) for row in first
    )
