"""One seed, and for everything that is drawn a stream of its own; halves of a task's classes among it."""

from __future__ import annotations

import numpy as np

from ...errors import ConfigError
from ..task import Mask, Task


def stream(seed: int, draw: str) -> np.random.Generator:
    """The random numbers of one draw: independent of all other draws of the same seed.

    Two draws from ``default_rng(seed)`` would be one and the same permutation: half of the classes and half of the
    pairs would be the same half.

    >>> stream(0, "halves").permutation(5).tolist() == stream(0, "halves").permutation(5).tolist()
    True
    >>> stream(0, "halves").permutation(99).tolist() == stream(0, "wrong captions").permutation(99).tolist()
    False

    Args:
        seed: of the study.
        draw: what is drawn.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(draw.encode())))


def split_classes(task: Task, seed: int) -> tuple[Task, Task]:
    """A development half and a test half by class, each classified among its own classes.

    Seen and unseen classes are halved alike; of an odd number the test half gets one more. Classes without queries
    count too, as candidates.

    Raises:
        ConfigError: fewer than four classes.
    """
    if len(task.candidates) < 4:
        raise ConfigError(
            f"{len(task.candidates)} classes are too few to choose baselines on one half and report on the other: "
            "give a development set (--dev FILE)"
        )
    dev, test = _halves(task, seed, "development classes")
    return task.among(dev), task.among(test)


def folds(task: Task, seed: int) -> tuple[Mask, Mask]:
    """The classes of a task in two random halves, each of which is left out of the memory once; masks (L,)."""
    return _halves(task, seed, "folds")


def _halves(task: Task, seed: int, draw: str) -> tuple[Mask, Mask]:
    """(L,) a random half of the classes and the other; the first is the smaller, alike for seen and unseen ones."""
    first, second = np.zeros((2, len(task.classes)), np.bool_)
    rng, numbers, unseen = stream(seed, draw), task.candidates.labels, task.unseen
    for kind in [numbers] if unseen is None else [numbers[unseen[numbers]], numbers[~unseen[numbers]]]:
        drawn = rng.permutation(kind)
        first[drawn[: len(kind) // 2]] = True
        second[drawn[len(kind) // 2 :]] = True
    return first, second
