"""From what candidates do on validation to a policy: which fusion, with which k and gate, on which sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from ..artifact import Policy
from ..defaults import MAX_LOSS
from ..evaluate.metrics import Interval
from ..types import Modality, Role
from .candidates import Way
from .config import Goal
from .measure import QueryVectors, Ranks, Side, Task, gain, plain, refined, task_ranks
from .questions import Questions

TASK_OF: dict[Side, Task] = {"text": "text->image", "image": "image->text", "names": "image->name"}
"""What decides on a side."""
GOALS: dict[Goal, tuple[Side, ...]] = {"search": ("text", "image"), "classify": ("names",)}


@dataclass(frozen=True)
class Verdict:
    """Whether one side gains on validation.

    Attributes:
        side: that is refined.
        gain: in recall at 1 of its task.
        loss: the worst change of recall at 1 where refinement is not to harm: with a memory without the groups that are
            asked for, and of refined images among names. Negative is worse than frozen.
        bearable: the loss that is put up with; that of the configuration, or one query where that is more.
    """

    side: Side
    gain: Interval
    loss: float
    bearable: float

    @property
    def gains(self) -> bool:
        """Whether the interval of the gain lies above zero."""
        return self.gain.low > 0.0

    @property
    def harms(self) -> bool:
        """Whether it loses too much where it cannot help."""
        return self.loss < -self.bearable

    @property
    def helps(self) -> bool:
        """Whether to refine this side."""
        return self.gains and not self.harms


@dataclass(frozen=True)
class Judged:
    """One candidate with its verdicts, in the order of the sides."""

    way: Way
    verdicts: tuple[Verdict, ...]

    @property
    def sides(self) -> tuple[Side, ...]:
        """That it would refine."""
        return tuple(verdict.side for verdict in self.verdicts if verdict.helps)

    def score(self, goal: Goal) -> tuple[float, float]:
        """Sum of the gains on the sides that it helps: first those that the goal asks for, then the others."""
        wanted = GOALS[goal]
        gains = {verdict.side: verdict.gain.mean for verdict in self.verdicts if verdict.helps}
        first = sum(gain for side, gain in gains.items() if side in wanted)
        return first, sum(gains.values()) - first

    def verdict(self, side: Side) -> Verdict | None:
        """On one side; None where there is no such side."""
        return next((verdict for verdict in self.verdicts if verdict.side == side), None)


def judge(questions: Questions, way: Way, *, max_loss: float = MAX_LOSS, seed: int = 0) -> Judged:
    """Measure one candidate on validation.

    Names are judged beside images as they were decided: plain, or refined where that helps.
    """
    frozen = plain(questions)
    moved = [refined(questions, way, known=known) for known in (True, False)]

    def verdict(side: Side, base: list[QueryVectors]) -> Verdict:
        after = [before.with_side(side, vectors) for before, vectors in zip(base, moved, strict=True)]
        task = TASK_OF[side]
        start, end = _ranks(questions, task, base[0]), _ranks(questions, task, after[0])
        losses = [_change(questions, task, base[1], after[1])]
        if side == "image" and questions.prompts is not None:
            losses += [_change(questions, "image->name", b, a) for b, a in zip(base, after, strict=True)]
        return Verdict(side, gain(questions, task, end, start, seed=seed), min(losses), max(max_loss, 1.0 / len(start)))

    verdicts = [verdict("text", [frozen] * 2), verdict("image", [frozen] * 2)]
    if questions.prompts is not None:
        images = [frozen.with_side("image", vectors) if verdicts[1].helps else frozen for vectors in moved]
        verdicts.append(verdict("names", images))
    return Judged(way, tuple(verdicts))


def choose(judged: Iterable[Judged], goal: Goal = "search") -> Judged | None:
    """The candidate that gains most on the sides that it helps; the earlier of equals. None where none helps."""
    best = max(judged, key=lambda one: one.score(goal), default=None)
    return best if best is not None and best.sides else None


def complementary(judged: Sequence[Judged], goal: Goal = "search") -> tuple[Way, Way] | None:
    """The candidates that gain most on texts and on images, of one k and gate; None where one candidate does as well.

    A model has a fusion for each side, but one k, and one gate that is open or not.
    """
    texts: Side = "text" if goal == "search" else "names"
    best, least = None, max((sum(_gains(one, texts)) for one in judged), default=0.0)
    for text, image in product(judged, repeat=2):
        if (text.way.k, text.way.gated) != (image.way.k, image.way.gated):
            continue
        score = _gains(text, texts)[0] + _gains(image, texts)[1]
        if score > least:
            best, least = (text.way, image.way), score
    return best


def _gains(one: Judged, texts: Side) -> tuple[float, float]:
    """On texts and on images; 0 where it does not help."""
    found = (one.verdict(texts), one.verdict("image"))
    on_texts, on_images = (v.gain.mean if v is not None and v.helps else 0.0 for v in found)
    return on_texts, on_images


def policy_of(way: Way, sides: Iterable[Side]) -> Policy:
    """Defaults of a model that refines these sides."""
    chosen = set(sides)
    queries: tuple[Modality, ...] = tuple(side for side in ("image", "text") if side in chosen)
    roles: dict[Role, tuple[Modality, ...]] = {"query": queries, "candidate": ("text",) if "names" in chosen else ()}
    return Policy(k=way.k, gate=way.gated, refine=roles, candidate_height=way.height)


def recall(found: Ranks, k: int = 1) -> float:
    """Share of queries with a true result among the first k."""
    return float(np.mean(found < k))


def _ranks(questions: Questions, task: Task, vectors: QueryVectors) -> npt.NDArray[np.int64]:
    found = task_ranks(questions, task, vectors)
    assert found is not None  # noqa: S101 - only sides that there are, are judged
    return found


def _change(questions: Questions, task: Task, before: QueryVectors, after: QueryVectors) -> float:
    return recall(_ranks(questions, task, after)) - recall(_ranks(questions, task, before))
