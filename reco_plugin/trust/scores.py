"""Exact scores of images and texts, both refined; one cosine of two moved vectors has a meaningless cross term.

A score is the frozen one, plus what each side's evidence says of the other's **plain** vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..types import Moves

Floats = npt.NDArray[np.float32]


def score_pairs(images: Moves, texts: Moves) -> Floats:
    """Scores (B, C) of images for texts, in units of a cosine.

    Where only some texts are covered, those keep the mass that the images alone gave them: they compete among
    themselves by both sides, and take nothing more from the others. Where few are covered, images hardly move.

    Args:
        images: B queries.
        texts: C candidates of one set; those that are not covered count plain.
    """
    frozen, covered = np.asarray(images.plain @ texts.plain.T, np.float32), texts.covered
    if not covered.any():
        return frozen
    seen = np.asarray(images.added @ (texts.plain - images.mean).T, np.float32)  # what the images' evidence says
    centred = images.plain - texts.mean
    moved = (centred @ (texts.plain + texts.added).T) / texts.length + texts.plain @ texts.mean
    return keep_mass(frozen + seen, np.asarray(moved + seen, np.float32), covered, images.sharpness or texts.sharpness)


def keep_mass(image_only: Floats, both: Floats, covered: npt.NDArray[np.bool_], sharpness: float) -> Floats:
    """Scores (B, C): by both sides on covered candidates, shifted so that these keep their mass; else by images alone.

    The same as ``both`` where all are covered.
    """
    if covered.all():
        return both
    shift = _soft_maximum(image_only[:, covered], sharpness) - _soft_maximum(both[:, covered], sharpness)
    out = image_only.copy()
    out[:, covered] = both[:, covered] + shift
    return out


def _soft_maximum(scores: Floats, sharpness: float) -> Floats:
    """(B, 1) of scores (B, C)."""
    most = scores.max(axis=1, keepdims=True)
    total = np.exp(sharpness * (scores - most)).sum(axis=1, keepdims=True)
    return np.asarray(most + np.log(total) / sharpness, np.float32)
