"""Queries that are compared with vectors of their own modality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from trust_worlds import D, measured, unit

from reco_plugin.calibration.sharpen import LENGTHS, Index, learn_sharpening
from reco_plugin.data import Captioned
from reco_plugin.evaluate.retrieval import retrieval
from reco_plugin.refine import refiner_for_vectors
from reco_plugin.types import MODALITIES, Modality, Records, Vectors

STYLES, CLASSES = 6, 150


def pictures(per: int, seed: int) -> tuple[Vectors, Vectors, np.ndarray]:
    """Pictures that differ most by their style, a caption for each in other words, and their classes."""
    meaning = np.random.default_rng(0).normal(size=(CLASSES, D))
    meaning[:, :STYLES] = 0.0  # a style says nothing of the class
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(CLASSES), per)
    style = np.zeros((len(label), D))
    style[:, :STYLES] = rng.normal(size=(len(label), STYLES))
    shown = meaning[label] + 4.0 * style + 0.5 * rng.normal(size=style.shape)
    said = meaning[label] + 0.1 * rng.normal(size=style.shape)
    return unit(shown + 3.0), unit(said - 3.0), label


def right(query: Vectors, asked: np.ndarray, index: Vectors, held: np.ndarray) -> float:
    return float((held[(query @ index.T).argmax(axis=1)] == asked).mean())


@pytest.fixture(scope="module")
def styled() -> Callable[[Vectors, Index], Vectors]:
    """Moves pictures by what a memory of such ones has learned."""
    corpus = measured(*pictures(4, 1)[:2])
    learned, _ = learn_sharpening(corpus, "image", np.random.default_rng(0))
    assert learned.own == pytest.approx(LENGTHS["image"][-1], rel=0.05)
    return lambda query, index: learned.move(query, corpus.values["image"], index)


@pytest.mark.parametrize("index", ["own", "both"])
def test_pictures_find_pictures_and_averages_of_the_same_thing(
    styled: Callable[[Vectors, Index], Vectors], index: Index
) -> None:
    asked, _, label = pictures(1, 2)
    image, text, held = pictures(1, 3)
    there = image if index == "own" else unit(image + text)
    assert right(unit(asked + styled(asked, index)), label, there, held) > right(asked, label, there, held) + 0.1


def test_a_query_unlike_all_that_the_memory_holds_moves_less(
    styled: Callable[[Vectors, Index], Vectors],
) -> None:
    asked = pictures(1, 2)[0][:20]
    strange = unit(np.random.default_rng(0).normal(size=asked.shape) - 6.0 * np.eye(1, D, 3))
    far, near = (np.linalg.norm(styled(q, "own"), axis=1).mean() for q in (strange, asked))
    assert far < near / 2


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("once", [True, False])
def test_queries_stay_plain_where_no_pair_has_an_answer(once: bool, modality: Modality) -> None:
    rng = np.random.default_rng(0)
    image, text = (unit(rng.normal(size=(400, D))) for _ in MODALITIES)
    if not once:  # each pair stands four times: all find their equal already
        image, text = (np.repeat(side[:100], 4, axis=0) for side in (image, text))
    learned, check = learn_sharpening(measured(image, text), modality, np.random.default_rng(0))
    assert learned.own == learned.both == 0.0
    assert check is None


def test_captions_of_other_pictures_do_no_harm() -> None:
    image, text, _ = pictures(4, 1)
    corpus = measured(image, text[np.random.default_rng(0).permutation(len(text))])
    moves, _ = learn_sharpening(corpus, "image", np.random.default_rng(0))
    (asked, _, label), (there, _, held) = pictures(1, 2), pictures(1, 3)
    moved = unit(asked + moves.move(asked, corpus.values["image"], "own"))
    assert right(moved, label, there, held) >= right(asked, label, there, held)


def test_the_same_pairs_in_any_order_move_queries_as_far() -> None:
    image, text, _ = pictures(4, 1)
    found = []
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(len(image))
        found.append(learn_sharpening(measured(image[rows], text[rows]), "image", np.random.default_rng(0))[0].own)
    assert np.std(found) < 0.01


def test_the_self_check_says_what_pictures_gain_among_pictures() -> None:
    """About what pictures that are not in the memory gain."""
    image, text, _ = pictures(4, 1)
    corpus = measured(image, text)
    learned, check = learn_sharpening(corpus, "image", np.random.default_rng(0))
    assert check is not None and check.pairs == len(image)
    (asked, _, label), (there, _, held) = pictures(1, 2), pictures(3, 3)
    moved = unit(asked + learned.move(asked, corpus.values["image"], "own"))
    before, after = (100.0 * right(query, label, there, held) for query in (asked, moved))
    assert check.frozen == pytest.approx(before, abs=10.0)
    assert check.gain == pytest.approx(after - before, abs=10.0) and check.gain > 4.0 * check.error > 0.0


def test_without_a_move_the_self_check_tells_no_gain() -> None:
    image, text, _ = pictures(4, 1)
    shuffled = measured(unit(np.random.default_rng(4).normal(size=image.shape)), text)  # chance moves half of such
    learned, check = learn_sharpening(shuffled, "image", np.random.default_rng(0))
    assert check is not None and (learned.own, check.gain, check.error) == (0.0, 0.0, 0.0) and check.frozen < 5.0


@pytest.mark.slow
def test_a_refiner_moves_queries_for_what_they_are_compared_with() -> None:
    image, text, _ = pictures(4, 1)
    pairs = Records([f"{row:03d}" for row in range(len(image))], image, text, [{}] * len(image))
    refiner = refiner_for_vectors([pairs])
    asked, said, label = pictures(1, 2)
    there, words, held = pictures(1, 3)
    for target, index in (("image", there), ("both", unit(there + words))):
        found = refiner.refine(asked, modality="image", target=target)  # type: ignore[arg-type]
        assert right(found.vectors, label, index, held) > right(asked, label, index, held) + 0.1
        assert found.refined.all() and found.why_plain(0) == ""
    for modality, query, options, why in (
        ("text", said, {}, "the memory's own pairs show no gain"),
        ("image", asked, {"role": "candidate"}, "only queries move"),
        ("image", asked, {"gate": False}, "only queries move"),
    ):
        kept = refiner.refine(query, modality=modality, target=modality, **options)  # type: ignore[arg-type]
        assert np.array_equal(kept.vectors, query) and why in kept.why_plain(0)


@pytest.mark.slow
def test_an_evaluation_shows_each_modality_among_its_own() -> None:
    """Two pictures of a thing with the same caption find each other; an image's two captions likewise."""
    image, text, _ = pictures(4, 1)
    pairs = Records([f"{row:03d}" for row in range(len(image))], image, text, [{}] * len(image))
    (there, words, held), again = pictures(2, 3), pictures(2, 4)[1]
    said, owner = np.concatenate([np.repeat(words[::2], 2, axis=0), again]), np.tile(np.arange(len(held)), 2)
    found = retrieval(refiner_for_vectors([pairs]), Captioned("styles", there, said, owner))
    assert found["image->image", "query"].gain.low > 0.05
    assert found["text->text", "query"].recall == found["text->text", "frozen"].recall
    alone = retrieval(refiner_for_vectors([pairs]), Captioned("alone", there, again, np.arange(len(held))))
    assert {line.direction for line in alone.variants} == {"text->image", "image->text"}
    assert "text->text: nothing can be said, since 0 texts show the same as another" in alone.render()
    assert alone.to_dict()["alike"] == {"text->text": 0, "image->image": 0}
