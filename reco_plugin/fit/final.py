"""The test part, measured once: frozen, the best simple baseline, and what was chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluate.metrics import Interval
from .candidates import Way, baselines
from .choose import TASK_OF, Judged, recall
from .measure import KS, TASKS, QueryVectors, Ranks, Side, Task, gain, plain, refined, task_ranks
from .questions import Questions
from .result import TestLine


@dataclass(frozen=True)
class Baselines:
    """The best simple way for each query side, chosen on validation."""

    text: Way
    image: Way

    def of(self, task: Task) -> tuple[Way, Side]:
        """The one for a task, and what it refines."""
        return (self.text, "text") if task == "text->image" else (self.image, "image")


def best_baselines(questions: Questions) -> Baselines:
    """Choose on validation, by recall at 1, with nothing to keep them from harm."""

    def score(way: Way, side: Side) -> float:
        found = task_ranks(questions, TASK_OF[side], refined(questions, way, (side,)))
        return 0.0 if found is None else recall(found)

    text = max(baselines("text"), key=lambda way: score(way, "text"))
    return Baselines(text, max(baselines("image"), key=lambda way: score(way, "image")))


def final_lines(questions: Questions, chosen: Judged | None, simple: Baselines, *, seed: int) -> list[TestLine]:
    """Frozen, baseline and chosen on every task that there is.

    Args:
        questions: of the test part.
        chosen: on validation; None where nothing helped: then frozen stands for it.
        simple: baselines.
        seed: of the bootstrap.
    """
    frozen = plain(questions)
    sides: tuple[Side, ...] = () if chosen is None else chosen.sides
    moved, unknown = frozen, frozen
    if chosen is not None:
        moved = refined(questions, chosen.way, sides)
        unknown = refined(questions, chosen.way, sides, known=False)
    lines: list[TestLine] = []
    for task in TASKS:
        way, side = simple.of(task)
        start, ours = task_ranks(questions, task, frozen), task_ranks(questions, task, moved)
        if start is None or ours is None:
            continue
        theirs = _baseline(questions, task, frozen, refined(questions, way, (side,)), side)
        knowing_nothing = task_ranks(questions, task, unknown)
        loss = None if knowing_nothing is None else gain(questions, task, knowing_nothing, start, seed=seed)
        label = "nothing refined" if chosen is None else f"{chosen.way.label}: {_words(task, sides)}"
        lines += [
            _line(task, "frozen", "frozen CLIP", start),
            _line(task, "baseline", way.label, theirs, gain(questions, task, theirs, start, seed=seed)),
            _line(
                task,
                "chosen",
                label,
                ours,
                gain(questions, task, ours, start, seed=seed),
                gain(questions, task, ours, theirs, seed=seed),
                loss,
            ),
        ]
    return lines


def withdrawn(lines: Sequence[TestLine], sides: Sequence[Side]) -> tuple[Side, ...]:
    """Sides that the test part does not confirm: the gain's interval does not lie above zero, or the loss's below it.

    The best of many candidates looks good on validation by chance alone; the test part, which chose nothing, tells.
    """

    def confirmed(side: Side) -> bool:
        line = next((line for line in lines if line.way == "chosen" and line.task == TASK_OF[side]), None)
        if line is None or line.gain is None or line.loss is None:
            return False
        return line.gain.low > 0.0 and line.loss.high >= 0.0

    return tuple(side for side in sides if not confirmed(side))


def _baseline(questions: Questions, task: Task, frozen: QueryVectors, moved: QueryVectors, side: Side) -> Ranks:
    found = task_ranks(questions, task, frozen.with_side(side, moved))
    assert found is not None  # noqa: S101 - the task is there
    return found


def _line(
    task: Task,
    way: str,
    label: str,
    found: Ranks,
    gained: Interval | None = None,
    ahead: Interval | None = None,
    loss: Interval | None = None,
) -> TestLine:
    shares = {k: recall(found, k) for k in KS}
    return TestLine(
        task=task, way=way, label=label, queries=len(found), recall=shares, gain=gained, ahead=ahead, loss=loss
    )


def _words(task: Task, sides: Sequence[Side]) -> str:
    """What of a task is refined."""
    said = {"text->image": {"text": "texts"}, "image->text": {"image": "images"}}.get(
        task, {"image": "images", "names": "names"}
    )
    moved = [word for side, word in said.items() if side in sides]
    return f"{' and '.join(moved)} refined" if moved else "left plain"
