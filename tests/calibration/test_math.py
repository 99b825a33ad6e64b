"""The formulas of the method: gradients, moments, reliability, state, scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trust_worlds import D, measured, unit, world

from reco_plugin.calibration import Calibration
from reco_plugin.calibration.calibrate import HOPELESS, calibrate
from reco_plugin.calibration.corpus import Corpus
from reco_plugin.calibration.coverage import find_covered, nearest_rival
from reco_plugin.calibration.episodes import asked_by, look
from reco_plugin.calibration.evidence import weigh
from reco_plugin.calibration.fit import START, Loss, minimise
from reco_plugin.calibration.metric import measure_metric
from reco_plugin.calibration.moments import low_rank, measure_values
from reco_plugin.calibration.nearest import nearest_rows
from reco_plugin.calibration.reliability import agreement
from reco_plugin.calibration.scores import keep_mass, score_pairs, to_vectors
from reco_plugin.errors import ConfigError
from reco_plugin.types import MODALITIES, Modality, Moves, other


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_gradient_of_the_loss(corpus: Corpus, modality: Modality) -> None:
    rows, rng = np.arange(0, 400, 3), np.random.default_rng(0)
    asked = asked_by(corpus, modality, look(corpus, rows, 10), rng).ask(np.log(5.0))
    loss = Loss(asked, np.array_split(np.arange(len(rows)), 2), 0.1)
    at = START + rng.normal(size=len(START)) * 0.3
    gradient = loss(at)[1]
    slow = [(loss(at + step)[0] - loss(at - step)[0]) / 2e-3 for step in 1e-3 * np.eye(len(at))]
    np.testing.assert_allclose(gradient, slow, rtol=0.02, atol=2e-4)


def test_a_query_is_correlated_with_its_evidence_as_its_scores_are() -> None:
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(400, D)) * np.linspace(2.0, 0.1, D))
    values = measure_values(x, distinct=400, rank=D)
    query, near = unit(rng.normal(size=(30, D)) * np.linspace(3.0, 0.01, D) ** 2), x[rng.integers(0, 400, (30, 5))]
    similarity, shares = np.ones((30, 5), np.float32), (np.full((30, 5), 0.2), np.ones(30))
    said = weigh(10.0 * query, near, similarity, shares, similarity > 0, np.zeros(30, np.float32), values)
    slow = [np.corrcoef(x @ one, x @ other)[0, 1] for one, other in zip(query, said.direction, strict=True)]
    np.testing.assert_allclose(said.correlation, slow, atol=0.01)


def test_a_notebook_is_told_in_a_few_words_what_was_learned(state: Calibration) -> None:
    assert f"pairs={state.pairs}" in repr(state) and len(repr(state)) < 2_000


@pytest.mark.parametrize("rank", [8, D])
@pytest.mark.parametrize("shrinkage", [0.01, 0.5, 3.0])
def test_the_inverse_of_a_low_rank_matrix(rank: int, shrinkage: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, D)) * np.linspace(2.0, 0.2, D)
    matrix = low_rank(x.T @ x / 500, rank)
    eye = np.eye(D, dtype=np.float32)
    whole = matrix.apply(eye).astype(np.float64)
    if rank == D:
        np.testing.assert_allclose(whole, x.T @ x / 500, atol=4e-3)
    slow = np.linalg.inv(whole + shrinkage * np.trace(whole) / D * np.eye(D))
    np.testing.assert_allclose(matrix.inverse(shrinkage).apply(eye), slow, atol=0.01 * np.abs(slow).max())
    some = rng.normal(size=(7, D)).astype(np.float32)
    lengths = np.sqrt(np.einsum("bd,de,be->b", some, whole, some))
    np.testing.assert_allclose(matrix.length(some), lengths, rtol=1e-3)


@pytest.mark.parametrize("modality", MODALITIES)
def test_neighbours_of_wrong_captions_agree_less_with_the_others(modality: Modality) -> None:
    image, text, bad = world(100, 6, wrong=0.3)
    corpus = measured(image, text)
    places, similarity = nearest_rows(corpus.side(modality), corpus.side(modality), 10, others=True)
    found, values = np.ones(places.shape, np.bool_), corpus.values[other(modality)]
    agree = agreement(similarity, corpus.side(other(modality))[places], found, values, corpus.spreads[modality])
    assert agree.min() > 0.0 and agree.max() <= 1.0
    right, wrong = agree[~bad[places]], agree[bad[places]]
    assert np.mean(np.median(right) > wrong) > 0.8


def test_only_what_was_found_agrees(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    vectors, similarity = unit(rng.normal(size=(5, 4, D))), -np.sort(-rng.random((5, 4)), axis=1).astype(np.float32)
    found = np.arange(4) < np.array([[4], [3], [2], [1], [0]])
    values, spread = corpus.values["text"], corpus.spreads["image"]
    agree = agreement(similarity, vectors, found, values, spread)
    assert ((agree > 0.0) == found).all()
    fewer = agreement(similarity[1:2, :3], vectors[1:2, :3], found[1:2, :3], values, spread)
    np.testing.assert_allclose(fewer[0], agree[1, :3], rtol=1e-5)


def test_pairs_ask_in_a_metric_that_has_not_seen_their_images(corpus: Corpus) -> None:
    """Else the gate would be fitted to evidence that tells more of these images than of new ones."""
    alike = corpus.near_text[1] > corpus.same_caption
    asking = np.repeat(corpus.metric.fold, alike.sum(axis=1))
    assert (asking == corpus.metric.fold[corpus.near_text[0][alike]]).all(), "one caption, one fold"
    mine = corpus.metric.fold == 0
    image = corpus.image.copy()
    image[mine] = unit(np.random.default_rng(0).normal(size=image[mine].shape))
    spread = corpus.spreads["text"]
    values = replace(corpus.values["image"], precision=corpus.values["image"].plain_precision)
    before, after = (
        measure_metric(one, values, corpus.chosen, corpus.near_text, corpus.same_caption, spread)
        for one in (corpus.image, image)
    )
    np.testing.assert_array_equal(after.apply(np.flatnonzero(mine), image[mine]), before.without[0].apply(image[mine]))
    assert not np.allclose(after.whole.apply(image[:9]), before.whole.apply(image[:9]))


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_doubt_grows_with_wrong_captions_and_most_end_the_use_of_a_memory(wrong: float) -> None:
    image, text, _ = world(100, 6)
    rng = np.random.default_rng(0)
    bad = np.flatnonzero(rng.random(len(text)) < wrong)
    text[bad] = text[rng.permutation(bad)]
    learned = calibrate(image, text)
    assert learned is not None
    state = learned.state
    assert wrong - 0.15 < state.doubt < wrong + 0.25
    assert (state.doubt >= HOPELESS) == bool(state.reason) == (wrong == 1.0)


@pytest.mark.slow
def test_the_same_pairs_and_seed_give_the_same_bits() -> None:
    image, text, _ = world(100, 4, wrong=0.2)
    first, second = (calibrate(image, text, seed=3) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.state.to_json() == second.state.to_json()


@pytest.fixture(scope="module", params=[(100, 4), (20, 4)], ids=["fitted", "safe"])
def state(request: pytest.FixtureRequest) -> Calibration:
    learned = calibrate(*world(*request.param)[:2])
    assert learned is not None
    assert learned.state.fitted == (request.param == (100, 4))
    return learned.state


def test_a_state_comes_back_bit_for_bit(state: Calibration) -> None:
    stored = state.to_json()
    again = Calibration.from_json(stored)
    assert again.to_json() == stored
    for modality in MODALITIES:
        for part in ("mean", "slack"):
            ours, theirs = (getattr(one.values[modality], part) for one in (state, again))
            assert ours.tobytes() == theirs.tobytes()
        assert (again.sides[modality].gate is None) == (state.sides[modality].gate is None)


def test_a_damaged_state_is_refused(state: Calibration) -> None:
    stored = state.to_json()
    blob = stored["blob"]
    for change in (
        {"format": 1},
        {"blob": blob[:-8]},
        {"blob": "!"},
        {"blob": ("B" if blob[500] == "A" else "A").join((blob[:500], blob[501:]))},
        {"blob": None},
    ):
        with pytest.raises(ConfigError, match="reco memory build --relearn"):
            Calibration.from_json(stored | change)
    with pytest.raises(ConfigError, match="format 5, not 3"):
        Calibration.from_json(stored | {"format": 5})
    for gone in ("format", "blob"):
        with pytest.raises(ConfigError, match="reco memory build --relearn"):
            Calibration.from_json({name: value for name, value in stored.items() if name != gone})


def test_minimise_a_quadratic() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, lowest = root @ root.T + 0.5 * np.eye(6), rng.normal(size=6)

    def quadratic(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float((x - lowest) @ matrix @ (x - lowest) / 2), matrix @ (x - lowest)

    np.testing.assert_allclose(minimise(quadratic, np.zeros(6), 100), lowest, atol=2e-3)
    np.testing.assert_array_equal(minimise(quadratic, lowest, 100), lowest)


# --- scores and coverage


def moving(rows: int, covered: object = True, seed: int = 0) -> Moves:
    rng = np.random.default_rng(seed)
    added = (0.3 * rng.normal(size=(rows, D))).astype(np.float32)
    length = rng.uniform(1.0, 2.0, rows).astype(np.float32)
    known = np.broadcast_to(np.asarray(covered, np.bool_), (rows,))
    return Moves(unit(rng.normal(size=(rows, D))), added, length, unit(rng.normal(size=D)) * 0.5, known, 4.0)


def still(moves: Moves) -> Moves:
    """The same vectors, not moved."""
    return replace(moves, added=np.zeros_like(moves.added), length=np.ones_like(moves.length))


def test_scores_where_all_some_or_no_candidates_are_covered() -> None:
    images, half = moving(5), np.arange(8) % 2 == 0
    all_, some, none = (moving(8, covered, seed=1) for covered in (True, half, False))
    frozen, both = images.plain @ all_.plain.T, score_pairs(images, all_)
    assert np.abs(both - frozen).max() > 0.1
    np.testing.assert_array_equal(score_pairs(images, none), frozen)
    np.testing.assert_array_equal(keep_mass(frozen, both, np.ones(8, np.bool_), 4.0), both)
    mixed = score_pairs(images, some)
    alone = score_pairs(images, still(all_))  # images refined alone
    np.testing.assert_allclose(mixed[:, ~half], alone[:, ~half], atol=1e-5)
    np.testing.assert_allclose(np.diff(mixed[:, half]), np.diff(both[:, half]), atol=1e-5)
    mass = [np.exp(4.0 * scores[:, half]).sum(axis=1) for scores in (mixed, alone)]
    np.testing.assert_allclose(*mass, rtol=1e-4)
    np.testing.assert_allclose(score_pairs(still(images), still(all_)), frozen, atol=1e-6)


def test_scores_where_one_side_moves() -> None:
    images, texts = moving(5), moving(8, seed=1)
    by_images = images.plain @ texts.plain.T + images.added @ (texts.plain - images.mean).T
    np.testing.assert_allclose(score_pairs(images, still(texts)), by_images, atol=1e-6)
    by_texts = (images.plain - texts.mean) @ (texts.plain + texts.added).T / texts.length + texts.plain @ texts.mean
    np.testing.assert_allclose(score_pairs(still(images), texts), by_texts, atol=1e-6)
    both = by_images + by_texts - images.plain @ texts.plain.T  # no cross term
    np.testing.assert_allclose(score_pairs(images, texts), both, atol=1e-6)


def test_candidates_that_do_not_move_keep_their_ranking(corpus: Corpus) -> None:
    moves = replace(still(moving(100)), plain=corpus.text[::4])
    plain, ours = (corpus.image @ vectors.T for vectors in (moves.plain, to_vectors(moves, corpus.values["image"])))
    np.testing.assert_allclose(ours, plain, atol=0.03)
    assert (ours.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.98


def test_candidates_rank_as_their_exact_scores_do(corpus: Corpus) -> None:
    moves, values = moving(8), corpus.values["image"]
    vectors, queries = to_vectors(moves, values), corpus.image[:50]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    exact = (queries - values.mean) @ (moves.plain + moves.added).T / moves.length + moves.plain @ values.mean
    correlation = [np.corrcoef(ours, theirs)[0, 1] for ours, theirs in zip(queries @ vectors.T, exact, strict=True)]
    assert np.mean(correlation) > 0.95


def test_prompts_are_covered_by_a_caption_of_their_own() -> None:
    prompts = unit(np.random.default_rng(0).normal(size=(6, D)))
    captions = np.concatenate([prompts[:3], prompts[:3]])  # the last three found captions of the first three
    cosine = (prompts * captions).sum(axis=1)
    rival = np.full(6, 0.5, np.float32)
    assert find_covered(prompts, captions, cosine, rival).tolist() == [True] * 3 + [False] * 3
    assert not find_covered(prompts, captions, cosine, np.ones(6, np.float32)).any()
    twice = [np.concatenate([part, part]) for part in (prompts[:3], captions[:3], cosine[:3], rival[:3])]
    assert find_covered(*twice).all(), "equal prompts are one"
    assert find_covered(prompts[:0], captions[:0], cosine[:0], rival[:0]).shape == (0,)
    assert nearest_rival(np.zeros((2, 0), np.float32), np.zeros((2, 0), np.bool_), 0.9).tolist() == [-1.0, -1.0]
