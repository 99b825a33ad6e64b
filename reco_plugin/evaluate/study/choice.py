"""Choose baselines on the development task; nothing of the test task is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from ...fuse import Fuser
from ...refine import VectorMemory
from ...retrieve import Retrieval
from ..baselines import ALONE, enrichments, ensembles, grid, transfers
from ..methods import Measures, Method, ScoringMethod
from ..task import Task


@dataclass(frozen=True)
class Chosen:
    """The best of one kind of baseline.

    Attributes:
        kind: for people.
        method: the best variant.
        settings: of that variant, in words.
        variants: how many there were.
        dev_top1: its top-1 on the development task.
    """

    kind: str
    method: Measures
    settings: str
    variants: int
    dev_top1: float


def choose(
    dev: Task, memory: VectorMemory, ours: Method, watch: Callable[[Iterable[Any], str], Iterable[Any]]
) -> tuple[Chosen, ...]:
    """Of every kind the variant with the highest top-1 on ``dev``, the first where several are; the best kind first.

    Baselines retrieve as many neighbours as ours, and trust all of them.
    """
    near = Retrieval(ours.how.k)
    kinds: dict[str, list[Measures]] = {
        "mean of neighbours": [_moving(fuser, near, "both") for fuser in grid()],
        "kNN label transfer": [_moving(fuser, near, "image") for fuser in transfers()],
        "logit ensemble": [ScoringMethod(scorer, near) for scorer in ensembles()],
        "text-only enrichment": [
            _moving(fuser, replace(near, search="uni", fusion="uni"), "text") for fuser in enrichments()
        ],
    }
    best = []
    for kind, methods in kinds.items():
        scores = [method.measure(dev, memory).top(1).mean() for method in watch(methods, f"choose {kind}")]
        top = max(range(len(methods)), key=scores.__getitem__)
        best.append(Chosen(kind, methods[top], _settings(methods[top]), len(methods), float(scores[top])))
    return tuple(sorted(best, key=lambda chosen: -chosen.dev_top1))


def _moving(fuser: Fuser, how: Retrieval, sides: Any) -> Method:
    return Method((fuser,), how, gate=False, sides=sides)


def _settings(method: Measures) -> str:
    kind: Any = method.fusers[0] if isinstance(method, Method) else method.scorer  # type: ignore[attr-defined]
    values = {field.name: getattr(kind, field.name) for field in fields(kind) if field.name != "name"}
    return ", ".join(
        f"{name.replace('_', ' ')} {'alone' if value == ALONE else format(value, 'g')}"
        for name, value in values.items()
    )
