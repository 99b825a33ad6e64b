"""Which prompts of a set the memory knows, without a constant.

A prompt is covered where its nearest caption of the memory has it as its own nearest prompt, and the two are nearer to
each other than the caption is to any caption of another meaning, and than the prompt is to any other prompt. Equal
prompts are one prompt.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..types import Vectors

BLOCK = 512
"""Prompts that are compared with all at a time."""
RIVALS = 32
"""Captions around the nearest one among which its nearest of another meaning is looked for."""
_EQUAL = 1.0 - 1e-5  # cosine from which two prompts are the same text, encoded in two places of a batch


def find_covered(
    prompts: Vectors, captions: Vectors, similarity: npt.NDArray[np.float32], rival: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Say which prompts of one set are covered, (C,).

    >>> prompts = np.eye(3, dtype=np.float32)
    >>> captions = np.float32([[1, 0, 0], [0.6, 0.8, 0], [0, 1, 0]])  # the last prompt found that of the second
    >>> find_covered(prompts, captions, np.float32([1, 0.8, 0]), np.float32([0.5, 0.9, 0.2])).tolist()
    [True, False, False]

    Args:
        prompts: (C, D) unit-norm.
        captions: (C, D) the memory's nearest caption of each.
        similarity: (C,) of the two; below -1 where there is none.
        rival: (C,) similarity of that caption and its nearest one of another meaning.
    """
    covered = np.zeros(len(prompts), np.bool_)
    for start in range(0, len(prompts), BLOCK):  # a square of all of them may not fit
        rows = np.arange(start, min(start + BLOCK, len(prompts)))
        others = prompts[rows] @ prompts.T
        equal = others > _EQUAL
        nearest = (captions[rows] @ prompts.T).argmax(axis=1)
        nearest_other = np.where(equal, np.float32(-1.0), others).max(axis=1)
        covered[rows] = equal[np.arange(len(rows)), nearest] & (
            similarity[rows] > np.maximum(rival[rows], nearest_other)
        )
    return covered


def nearest_rival(
    similarity: npt.NDArray[np.float32], found: npt.NDArray[np.bool_], same: float
) -> npt.NDArray[np.float32]:
    """Similarity (C,) of the nearest caption of another meaning, among those found (C, R) around each.

    Where all of them mean the same, the others are at most as near as the last one.

    >>> nearest_rival(np.float32([[1, 0.9, 0.4], [1, 1, 0.99]]), np.ones((2, 3), bool), 0.8).tolist()
    [0.4000000059604645, 0.800000011920929]
    """
    other = found & (similarity <= same)
    nearest = np.where(other, similarity, -1.0).max(axis=1, initial=-1.0)
    whole = found.all(axis=1) & ~other.any(axis=1)  # there may be more beyond what was found
    bound = np.minimum(similarity[:, -1], same) if similarity.shape[1] else nearest
    return np.where(whole, bound, nearest).astype(np.float32)
