"""One seed, and for everything that is drawn a stream of its own."""

from __future__ import annotations

import numpy as np


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
