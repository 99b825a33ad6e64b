"""A memory with one image per caption."""

from __future__ import annotations

import numpy as np
import pytest
from refiners import refiner_for_vectors
from trust_worlds import D, unit

from reco_plugin.fusion.exact_scores import score_both
from reco_plugin.types import Records, Vectors

pytestmark = pytest.mark.slow

CLASSES = 800
NEW = np.arange(CLASSES) % 2 == 1  # what CLIP does not know


@pytest.fixture(scope="module")
def pairs() -> tuple[Vectors, Vectors, Vectors, Vectors]:
    """Images and captions (N, D), other images of the same things, and prompts that name them."""
    rng = np.random.default_rng(0)
    meaning, gap = rng.normal(size=(CLASSES, D)), 5.0 * np.eye(2, D)
    shown = np.where(NEW[:, None], rng.normal(size=(CLASSES, D)), meaning + 0.3 * rng.normal(size=(CLASSES, D)))

    def images() -> Vectors:
        return unit(shown + 0.6 * rng.normal(size=(CLASSES, D)) + gap[0])

    def texts() -> Vectors:
        return unit(meaning + 0.05 * rng.normal(size=(CLASSES, D)) + gap[1])

    return images(), texts(), images(), texts()


def top(scores: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == np.arange(len(scores))).mean())


def test_names_that_clip_does_not_know_are_learned_from_one_image(pairs: tuple[Vectors, ...]) -> None:
    """Where CLIP knows no name, its scores count little, and the pictures decide."""
    image, text, queries, prompts = (side[NEW] for side in pairs)
    refiner = refiner_for_vectors(Records([f"{row:04d}" for row in range(len(image))], image, text, [{}] * len(image)))
    assert refiner.memory.calibration is not None
    assert refiner.memory.calibration.reason == ""
    scores = score_both(refiner, queries, prompts)
    assert top(scores.scores) > top(scores.frozen) + 0.2


def test_known_things_lose_nothing_whether_they_are_held_or_not(pairs: tuple[Vectors, ...]) -> None:
    """Among these, a name that CLIP does not know is like a wrong caption: one picture does not tell the two apart."""
    for held in (np.arange(CLASSES) >= 0, NEW | (np.arange(CLASSES) % 4 == 0)):
        ids = [f"{row:04d}" for row in np.flatnonzero(held)]
        refiner = refiner_for_vectors(Records(ids, pairs[0][held], pairs[1][held], [{}] * len(ids)))
        chosen = ~NEW if held.all() else ~held
        scores = score_both(refiner, pairs[2][chosen], pairs[3][chosen])
        assert top(scores.scores) > top(scores.frozen) - 0.01
