"""Feedback: what people said is wrong holds the evidence back, near what they said it of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refiners import refiner_for_vectors
from trust_worlds import world

from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.signals import feedback as module
from reco_plugin.signals.feedback import Feedback, Voices
from reco_plugin.types import MODALITIES, Modality, Records, Refinement, Vectors

EACH = 4


def opinions(modality: Modality, queries: Vectors, answers: Vectors, *, right: int = 0) -> Feedback:
    """Opinions that answers are wrong; the last so many say that they are right."""
    says = np.arange(len(queries)) >= len(queries) - right
    return Feedback({modality: Voices(queries, answers, says)})


@pytest.fixture(scope="module")
def made() -> tuple[Refiner, Records]:
    """A memory of three pairs of each of 100 classes, and fourth pairs that ask."""
    image, text, _ = world(100, EACH)
    rows = np.arange(len(image))
    payloads: list[dict[str, Any]] = [{} for _ in rows]
    pairs = Records([str(row) for row in rows], image, text, payloads)
    last = rows % EACH == EACH - 1
    return refiner_for_vectors(pairs.take(~last)), pairs.take(last)


def told(refiner: Refiner, feedback: Feedback | None) -> Refiner:
    calibration = refiner.memory.calibration
    assert calibration is not None
    return Refiner(VectorMemory(refiner.memory.store, replace(calibration, feedback=feedback)), None)


def refined(refiner: Refiner, asks: Records, modality: Modality, feedback: Feedback | None) -> Refinement:
    return told(refiner, feedback).refine(asks.side(modality), modality=modality, explain=True)


def heaviest(found: Refinement) -> Vectors:
    """The answer that weighs most for each query."""
    assert found.neighbours is not None
    assert found.weights is not None
    return found.neighbours.vectors[np.arange(len(found.vectors)), found.weights.argmax(axis=1)]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_rejected_answer_no_longer_moves_the_query_that_it_was_rejected_for(made: Any, modality: Modality) -> None:
    refiner, asks = made
    before = refined(refiner, asks, modality, None)
    assert before.moved.min() > 0
    answer = heaviest(before)
    after = refined(refiner, asks, modality, opinions(modality, asks.side(modality), answer))
    assert before.weights is not None
    assert after.weights is not None
    rows, columns = np.arange(len(asks)), before.weights.argmax(axis=1)
    assert (after.weights[rows, columns] < 0.05 * before.weights[rows, columns]).all()
    assert (after.moved < before.moved).mean() > 0.9


def test_queries_that_are_unlike_it_move_as_before_to_the_last_bit(made: Any) -> None:
    refiner, asks = made
    plain = refined(refiner, asks, "image", None)
    one = opinions("image", asks.image[:1], heaviest(plain)[:1])
    after = refined(refiner, asks, "image", one)
    changed = (after.vectors != plain.vectors).any(axis=1)
    assert changed[0]
    assert changed.mean() < 0.12
    assert np.abs(after.moved - plain.moved)[1:].max() < 0.2 * plain.moved[0]
    assert (
        refined(refiner, asks, "text", one).vectors.tobytes() == refined(refiner, asks, "text", None).vectors.tobytes()
    )


def test_one_false_opinion_does_little_to_other_pictures_of_its_thing(made: Any) -> None:
    refiner, asks = made
    plain = refined(refiner, asks, "image", None)
    pairs = Records.join(list(refiner.memory.store.scroll()), asks.image.shape[1])
    first = pairs.take(np.arange(0, len(pairs), EACH - 1))  # a pair of each class is called wrong, by its own picture
    after = refined(refiner, asks, "image", opinions("image", first.image, first.text))
    assert after.moved.mean() > 0.55 * plain.moved.mean()
    several = refined(refiner, asks, "image", opinions("image", pairs.image, pairs.text))
    assert several.moved.mean() < 0.65 * after.moved.mean()


def test_an_opinion_that_it_is_right_speaks_for_it(made: Any) -> None:
    refiner, asks = made
    answer = heaviest(refined(refiner, asks, "image", None))
    beside_0, beside_1 = (beside(asks.image, draw) for draw in (0, 1))
    wrong = opinions("image", beside_0, answer)
    both = opinions("image", np.vstack([beside_0, beside_1]), np.vstack([answer, answer]), right=len(answer))
    held, let = (refined(refiner, asks, "image", feedback).moved.mean() for feedback in (wrong, both))
    assert let > 1.5 * held


def beside(vectors: Vectors, draw: int) -> Vectors:
    """Other views of what they show."""
    moved = vectors + 0.02 * np.random.default_rng(draw).normal(size=vectors.shape)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def test_many_queries_are_heard_in_blocks_that_say_the_same(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of all queries at once would be six times as large as all that was found."""
    refiner, asks = made
    said = opinions("image", asks.image, asks.text)  # more than are looked at for a query
    whole = refined(refiner, asks, "image", said)
    sizes = list[int]()
    keep = module._keep

    def counted(heard: Any, queries: Vectors, *more: Any) -> Any:
        sizes.append(len(queries))
        return keep(heard, queries, *more)

    monkeypatch.setattr(module, "_keep", counted)
    monkeypatch.setattr(module, "_NUMBERS", 30 * module.HEARD * asks.image.shape[1])
    parts = refined(refiner, asks, "image", said)
    assert sizes == [30, 30, 30, 10]
    assert np.abs(parts.vectors - whole.vectors).max() < 1e-5
