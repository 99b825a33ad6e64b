"""One classification task with neither, either or both sides refined: from ranks to the lines of its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Coverage, Vectors
from .intervals import Interval, bootstrap
from .metrics import top_k
from .table import gain, percent, table


@dataclass(frozen=True)
class Ranked:
    """What one variant did.

    Attributes:
        ranks: (N,) of the images' own candidates.
        moved: mean cosine distance between frozen and refined images; 0 means untouched.
        moved_prompts: the same for the candidates.
        coverage: how far the memory answered what was refined, where one side was.
    """

    ranks: npt.NDArray[np.int64]
    moved: float
    moved_prompts: float
    coverage: Coverage | None = None


@dataclass(frozen=True)
class Variant:
    """One line of the result.

    Attributes:
        refined: the side that was refined; ``"frozen"`` for none.
        top1: share of images whose class is nearest, with its 95 % interval.
        top5: share of images whose class is among the five nearest.
        gain: top-1 minus frozen, on the same images, with its 95 % interval.
        moved: mean cosine distance between frozen and refined images; 0 means untouched.
        moved_prompts: the same for the class prompts.
    """

    refined: str
    top1: Interval
    top5: float
    gain: Interval
    moved: float
    moved_prompts: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        return vars(self) | {"top1": self.top1._asdict(), "gain": self.gain._asdict()}


def variants_of(found: Mapping[str, Ranked], groups: npt.NDArray[Any]) -> tuple[Variant, ...]:
    """The lines of a result.

    Args:
        found: refined side -> ranks; ``"frozen"`` among them.
        groups: (N,) what is drawn together for the intervals.
    """
    frozen = found["frozen"].ranks < 1
    return tuple(
        Variant(
            refined=side,
            top1=bootstrap(hits := (one.ranks < 1).astype(np.float64), groups),
            top5=top_k(one.ranks, 5),
            gain=bootstrap(hits - frozen, groups),
            moved=one.moved,
            moved_prompts=one.moved_prompts,
        )
        for side, one in found.items()
    )


def variants_table(variants: Sequence[Variant]) -> str:
    """A plain text table, in per cent and points."""
    rows = [
        [v.refined, percent(v.top1.mean), percent(v.top5), "" if v.refined == "frozen" else gain(v.gain)]
        for v in variants
    ]
    return table(["refined", "top-1 %", "top-5 %", "gain in top-1, 95 % interval"], rows)


def moved(frozen: Vectors, refined: Vectors) -> float:
    """Mean cosine distance of vectors (N, D) from where they were."""
    return 0.0 if refined is frozen else float(np.mean(1.0 - np.sum(frozen * refined, axis=1)))
