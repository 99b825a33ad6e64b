"""Choose a policy by validation: which fusion, with which k and gate, on which sides.

The test part is measured once: frozen, the best simple baseline, and the chosen candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..artifact import Policy
from ..defaults import MAX_LOSS
from ..evaluate.encoding import refine_queries
from ..evaluate.measure import Measured, gain, measure, measure_among_own, measure_sides, move_among, refine_task
from ..evaluate.ranking import RECALL_AT
from ..evaluate.task import Side, Task, TaskItems
from ..measure.statistics import Interval
from ..types import Modality, Role
from .candidates import Candidate, Questions, baselines
from .config import FitSide, Goal, TaskName, TestLine

TASK_OF: dict[FitSide, TaskName] = {"text": "text->image", "image": "image->text", "names": "image->name"}
"""The task that decides on a side."""
WORDS: dict[FitSide, str] = {"text": "texts", "image": "images", "names": "names"}
_MOVED: dict[Side, str] = {"image": "images", "text": "texts", "both": "images and texts"}
GOALS: dict[Goal, tuple[FitSide, ...]] = {"search": ("text", "image"), "classify": ("names",)}


@dataclass(frozen=True)
class Verdict:
    """The result of one side on validation, all in recall@1.

    The loss is the worst change where refinement must not harm: with a memory that knows nothing of what is searched,
    and of refined images among names. Allowed is that of the configuration, or one query, or what chance alone explains
    (half of the 95 % interval), whichever is most.
    """

    side: FitSide
    gain: Interval  # in its task
    loss: float  # negative is worse than frozen
    allowed: float

    @property
    def gains(self) -> bool:
        """Whether the interval of the gain is above zero."""
        return self.gain.low > 0.0

    @property
    def harms(self) -> bool:
        """Whether it loses more than allowed."""
        return self.loss < -self.allowed

    @property
    def helps(self) -> bool:
        """Whether to refine this side."""
        return self.gains and not self.harms


@dataclass(frozen=True)
class Judged:
    """One candidate with its verdicts, in the order of the sides."""

    candidate: Candidate
    verdicts: tuple[Verdict, ...]

    @property
    def sides(self) -> tuple[FitSide, ...]:
        """The sides that it helps."""
        return tuple(verdict.side for verdict in self.verdicts if verdict.helps)

    def score(self, goal: Goal) -> tuple[float, float]:
        """Sum of the gains on the sides that it helps: first over the sides of the goal, then over the others."""
        wanted = GOALS[goal]
        gains = {verdict.side: verdict.gain.mean for verdict in self.verdicts if verdict.helps}
        first = sum(gain for side, gain in gains.items() if side in wanted)
        return first, sum(gains.values()) - first

    def verdict(self, side: FitSide) -> Verdict | None:
        """The verdict on one side; None where there is no such side."""
        return next((verdict for verdict in self.verdicts if verdict.side == side), None)


def measure_tasks(
    questions: Questions, candidate: Candidate, names: Iterable[TaskName] | None = None, *, known: bool = True
) -> dict[TaskName, dict[str, Measured]]:
    """Measure tasks frozen and with their queries refined; where names are searched, also with names and both refined.

    The index of text and image queries stays frozen. Where ``known``, the memory holds other pairs of the queries'
    groups; else none.
    """
    memory, found = questions.memory if known else questions.without, dict[TaskName, dict[str, Measured]]()
    refiner, queries = candidate.refiner(memory), dict[Modality, TaskItems]()
    for name in questions.tasks if names is None else names:
        task = questions.task(name, known=known)
        asks, sides = task.queries.modality, [str(task.queries.modality)]
        if asks not in queries:  # images query two tasks
            queries[asks] = refine_queries(refiner, task.queries)
        refined = replace(task, queries=queries[asks])
        if name == "image->name":
            refined, sides = refine_task(refiner, refined, ("text",)), ["image", "text", "both"]
            refined = move_among(refiner, task, refined)
        found[name] = measure_sides(task, [refined], sides)
    return found


def judge(questions: Questions, candidate: Candidate, *, max_loss: float = MAX_LOSS, seed: int = 0) -> Judged:
    """Measure one candidate on validation.

    Names are measured with images frozen, or refined where that helps.
    """
    tasks, known = questions.tasks, measure_tasks(questions, candidate)
    unknown = measure_tasks(questions, candidate, known=False)

    def verdict(side: FitSide, before: str, after: str) -> Verdict:
        def change(found: dict[TaskName, dict[str, Measured]], name: TaskName) -> Interval:
            return gain(found[name][after], found[name][before], tasks[name].groups, seed=seed)

        name, least = TASK_OF[side], max(max_loss, 1.0 / len(tasks[TASK_OF[side]]))
        losses = [change(unknown, name)]
        if side == "image" and "image->name" in tasks:
            losses += [change(found, "image->name") for found in (known, unknown)]
        worst, allowed = min(((one.mean, max(least, one.mean - one.low)) for one in losses), key=sum)
        return Verdict(side, change(known, name), worst, allowed)

    verdicts = [verdict("text", "frozen", "text"), verdict("image", "frozen", "image")]
    if "image->name" in tasks:
        sides = ("image", "both") if verdicts[1].helps else ("frozen", "text")
        verdicts.append(verdict("names", *sides))
    return Judged(candidate, tuple(verdicts))


def choose(judged: Iterable[Judged], goal: Goal = "search") -> Judged | None:
    """Choose the candidate that gains most on the sides that it helps; the first of equals; None if none helps."""
    best = max(judged, key=lambda one: one.score(goal), default=None)
    return best if best is not None and best.sides else None


def policy_of(candidate: Candidate, sides: Iterable[FitSide]) -> Policy:
    """Defaults of a model that refines these sides."""
    chosen = set(sides)
    queries: tuple[Modality, ...] = tuple(side for side in ("image", "text") if side in chosen)
    roles: dict[Role, tuple[Modality, ...]] = {"query": queries, "candidate": ("text",) if "names" in chosen else ()}
    return Policy(k=candidate.k, gate=candidate.gated, caution=candidate.caution, refine=roles)


def best_baselines(questions: Questions, chosen: Judged | None) -> dict[TaskName, Candidate]:
    """Choose the best baseline for each task on validation by recall@1, whatever it loses.

    It moves what the chosen candidate does, so that the two compare; the query where that moves nothing.
    """

    def best(task: Task, side: Side) -> Candidate:
        def recall(one: Candidate) -> float:
            return _recall(measure(task, [refine_task(one.refiner(questions.memory), task, {side})]))

        return max(baselines(side), key=recall)

    return {name: best(task, _side_of(name, chosen, task.queries.modality)) for name, task in questions.tasks.items()}


def final_lines(
    questions: Questions, chosen: Judged | None, simple: Mapping[TaskName, Candidate], *, seed: int
) -> list[TestLine]:
    """Measure frozen, the best baseline and the chosen candidate on every task of the test part.

    Where no candidate was chosen, since none helps, frozen is used.
    """
    lines: list[TestLine] = []
    both = [measure_tasks(questions, chosen.candidate, known=known) for known in (True, False)] if chosen else []
    for name, task in questions.tasks.items():
        side = _side_of(name, chosen, task.queries.modality)
        theirs = measure_tasks(questions, simple[name], [name])[name]
        start = ours = unknown = untold = theirs["frozen"]
        label, sides = "nothing refined", _find_refined_sides(name, chosen)
        if chosen is not None:
            variant = side if sides else "frozen"
            ours, unknown, untold = both[0][name][variant], both[1][name][variant], both[1][name]["frozen"]
            words = " and ".join(WORDS[side] for side in sides)
            label = f"{chosen.candidate.label}: {f'{words} refined' if sides else 'left plain'}"
        over, baseline = partial(gain, groups=task.groups, seed=seed), theirs[side]
        lines += [
            _line(name, "frozen", "frozen CLIP", start),
            _line(
                name, "baseline", f"{simple[name].label}: {_MOVED[side]} moved", baseline, gain=over(baseline, start)
            ),
            _line(
                name,
                "chosen",
                label,
                ours,
                gain=over(ours, start),
                ahead=over(ours, baseline),
                loss=over(unknown, untold),
            ),
        ]
    return lines


def own_lines(questions: Questions, candidate: Candidate, *, seed: int) -> list[TestLine]:
    """Texts among texts and images among images of the test part, frozen and with the query moved for that.

    How far, the memory alone decides: nothing of it is chosen. None of a modality where no two show the same.
    """
    refiner, lines = candidate.refiner(questions.memory), list[TestLine]()
    task = questions.tasks["image->text"]
    own: dict[TaskName, TaskItems] = {"text->text": task.candidates, "image->image": task.queries}
    for name, items in own.items():
        found, groups = measure_among_own(refiner, replace(items, own=None), max(RECALL_AT))
        if not found:
            continue
        label = "refined for it" if np.any(found["query"].ranks != found["frozen"].ranks) else "left plain"
        over = gain(found["query"], found["frozen"], groups, seed=seed)
        lines += [
            _line(name, "frozen", "frozen CLIP", found["frozen"]),
            _line(name, "chosen", f"{_MOVED[items.modality]} {label}", found["query"], gain=over),
        ]
    return lines


def find_unconfirmed(lines: Sequence[TestLine], sides: Sequence[FitSide]) -> tuple[FitSide, ...]:
    """Find sides that the test part does not confirm: the gain's interval is not above zero, or the loss's is below it.

    The best of many candidates looks good on validation by chance alone; the test part is independent of the choice.
    """

    def is_confirmed(side: FitSide) -> bool:
        line = next((line for line in lines if line.way == "chosen" and line.task == TASK_OF[side]), None)
        if line is None or line.gain is None or line.loss is None:
            return False
        return line.gain.low > 0.0 and line.loss.high >= 0.0

    return tuple(side for side in sides if not is_confirmed(side))


def _find_refined_sides(name: TaskName, chosen: Judged | None) -> list[FitSide]:
    """The sides of a task that the chosen candidate refines."""
    of: dict[TaskName, tuple[FitSide, ...]] = {"text->image": ("text",), "image->text": ("image",)}
    return [side for side in of.get(name, ("image", "names")) if chosen is not None and side in chosen.sides]


def _side_of(name: TaskName, chosen: Judged | None, asks: Modality) -> Side:
    """What the chosen candidate moves in a task, by modality; the query's where it moves nothing."""
    sides = _find_refined_sides(name, chosen)
    return "both" if len(sides) > 1 else "text" if "names" in sides else asks


def _line(task: TaskName, way: str, label: str, found: Measured, **gains: Interval) -> TestLine:
    shares = {k: _recall(found, k) for k in RECALL_AT}
    return TestLine(task=task, way=way, label=label, queries=found.ranks.shape[1], recall=shares, **gains)


def _recall(found: Measured, k: int = 1) -> float:
    """Share of queries with a true result among the first k."""
    return float(found.top(k).mean())
