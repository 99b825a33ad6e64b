"""A memory with one image per caption: texts take it only where CLIP does not know it by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from refiners import refiner_for_vectors
from trust_worlds import D, unit

from reco_plugin.refine import Refiner
from reco_plugin.score import score_both
from reco_plugin.types import Records, Search, Vectors

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


@pytest.fixture(scope="module")
def refiner(pairs: tuple[Vectors, ...]) -> Refiner:
    ids = [f"{row:04d}" for row in range(CLASSES)]
    return refiner_for_vectors(Records(ids, pairs[0], pairs[1], [{}] * CLASSES))


def test_texts_follow_their_image_only_where_clip_does_not_know_it(
    refiner: Refiner, pairs: tuple[Vectors, ...]
) -> None:
    *_, queries, prompts = pairs
    refined = refiner.refine(prompts, modality="text", role="candidate", explain=True)
    assert refined.moves is not None
    assert refined.why is not None
    far = np.linalg.norm(refined.moves.added, axis=1)
    assert np.median(far[NEW]) > 20 * np.median(far[~NEW])
    known = next(why for why, new in zip(refined.why, NEW, strict=True) if not new and why is not None)
    assert "the encoder knows the pair by itself" in str(known)
    scores, right = score_both(refiner, queries, prompts), np.arange(CLASSES)
    before, after = (table.argmax(axis=1) == right for table in (scores.frozen, scores.scores))
    assert after[NEW].mean() > before[NEW].mean() + 0.2
    assert after[~NEW].mean() > before[~NEW].mean() - 0.01


def test_known_things_that_are_not_held_lose_nothing(pairs: tuple[Vectors, ...]) -> None:
    """That a pair has no answer but itself does not say that most queries have none."""
    held = NEW | (np.arange(CLASSES) % 4 == 0)
    ids = [f"{row:04d}" for row in np.flatnonzero(held)]
    refiner = refiner_for_vectors(Records(ids, pairs[0][held], pairs[1][held], [{}] * len(ids)))
    for chosen, least in ((NEW, 0.2), (~held, -0.01)):
        queries, prompts, right = pairs[2][chosen], pairs[3][chosen], np.arange(chosen.sum())
        scores = score_both(refiner, queries, prompts)
        before, after = (table.argmax(axis=1) == right for table in (scores.frozen, scores.scores))
        assert after.mean() > before.mean() + least


def test_texts_follow_pairs_that_clip_does_not_know(refiner: Refiner, pairs: tuple[Vectors, ...]) -> None:
    state, prompts = refiner.memory.calibration, pairs[3]
    assert state is not None
    applied = state.gate("text", None, candidate=True)
    assert applied is not None
    found = refiner.memory.searches.search(Search(prompts, "text", "image", 10))
    left = state.weigh("text", prompts, found, applied).factors["unknown_to_clip"]
    assert (left[NEW] > 0.5).mean() > 0.8
    known = replace(found, cosine=np.ones_like(found.cosine))
    assert (state.weigh("text", prompts, known, applied).factors["unknown_to_clip"] < 0.01).all()
