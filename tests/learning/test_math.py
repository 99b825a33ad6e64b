"""The formulas of the method: gradients, moments, the model, trust, state, scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trust_worlds import D, measured, unit, world

from reco_plugin.errors import ConfigError
from reco_plugin.fusion.coverage import find_covered, nearest_rival
from reco_plugin.fusion.evidence import BOTH, Trust, caption_ratios
from reco_plugin.fusion.scores import keep_mass, score_pairs, to_vectors
from reco_plugin.learning import Calibration
from reco_plugin.learning.calibrate import HOPELESS, calibrate
from reco_plugin.learning.corpus import Corpus
from reco_plugin.learning.fit import Fit, minimise
from reco_plugin.learning.moments import low_rank
from reco_plugin.learning.plda import Plda, measure_plda
from reco_plugin.types import MODALITIES, Modality, Moves


def test_the_gradients_of_the_losses(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, seen = np.random.default_rng(0), 0

    def check(_: object, fun: Any, start: np.ndarray) -> tuple[np.ndarray, float]:
        nonlocal seen
        at = start + rng.normal(size=len(start)) * 0.3
        slow = [(fun(at + step)[0] - fun(at - step)[0]) / 2e-2 for step in 1e-2 * np.eye(len(at))]
        np.testing.assert_allclose(fun(at)[1], slow, rtol=0.05, atol=2e-3)
        seen += 1
        return at, fun(at)[0]

    monkeypatch.setattr(Fit, "_minimise", check)
    Fit(corpus, np.random.default_rng(0), int).fit()
    assert seen == 5, "two starts of two rounds of texts, one of images"


def test_the_ratio_of_a_caption_is_that_of_two_gaussians() -> None:
    """Slow twin: the joint densities of n + 1 pictures of one caption, and of n and one."""
    rng = np.random.default_rng(0)
    psi, n = np.array([4.0, 1.0, 0.2], np.float32), 3
    model = Plda(np.zeros(3, np.float32), np.eye(3, dtype=np.float16), psi)
    x = rng.normal(size=(n + 1, 3)).astype(np.float32)

    def density(rows: np.ndarray) -> float:
        total = 0.0
        for one, column in zip(psi, rows.T, strict=True):
            covariance = np.eye(len(rows)) + float(one)
            _, log = np.linalg.slogdet(covariance)
            total -= 0.5 * float(column @ np.linalg.solve(covariance, column) + log)
        return total

    slow = density(x) - density(x[:n]) - density(x[n:])
    fast = model.ratio(x[n], x[:n].mean(axis=0), np.array([n], np.float32))
    np.testing.assert_allclose(fast, slow, rtol=1e-4)


def test_the_model_tells_pictures_of_a_caption_from_others() -> None:
    image, text, _ = world(100, 6)
    corpus = measured(image, text)
    everyone = np.arange(len(corpus))
    near, alike = corpus.company(everyone)
    model = measure_plda(image, everyone, (near[:, 1:], alike[:, 1:]), np.ones(len(corpus), np.float32))
    assert (np.diff(model.psi) <= 0).all()
    x = model.of(image).reshape(100, 6, -1)
    mean, six = x[:, :5].mean(axis=1), np.full((1, 1), 5, np.float32)
    own, others = model.ratio(x[:, 5], mean, six), model.ratio(x[:, 5], np.roll(mean, 1, axis=0), six)
    assert (own > 0).mean() > 0.9
    assert (others < 0).mean() > 0.9


def test_a_pair_is_trusted_as_far_as_the_others_of_its_caption_agree() -> None:
    rng = np.random.default_rng(0)
    model = Plda(np.zeros(8, np.float32), np.eye(8, dtype=np.float16), np.full(8, 9.0, np.float32))
    x = rng.normal(size=(1, 1, 8)) * 3 + rng.normal(size=(1, 6, 8))
    x[0, 5] = rng.normal(size=8) * 3  # of another caption
    found = np.float32([[1, 1, 1, 1, 0, 1]])  # the fifth is padding
    company = found[:, None] * np.ones((1, 6, 1), np.float32)
    given = model, x.astype(np.float32), np.zeros((1, 6)), company
    trust = Trust(wrong=0.2, clip=0.0, level=0.0, temper=0.5).of(*given)
    assert trust[0, :4].min() > 0.9
    assert trust[0, 5] < 0.1
    confirmed = Trust(wrong=0.2, clip=0.0, level=0.0, temper=0.5).of(*given, confirmed=np.arange(6)[None] == 5)
    assert confirmed[0, 5] > 0.999, "a person's word counts more"
    ratio, first, end = caption_ratios(
        model,
        x[:, 0].astype(np.float32),
        x.astype(np.float32),
        trust * found,
        (company > 0) & (found[..., None] > 0),
        2,
    )
    assert first.sum() == 1
    assert ratio[0, 0] > 3
    assert end[0, 0] < np.log(0.01)


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


@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_doubt_grows_with_wrong_captions_and_most_end_the_use_of_a_memory(wrong: float) -> None:
    image, text, _ = world(100, 6)
    rng = np.random.default_rng(0)
    bad = np.flatnonzero(rng.random(len(text)) < wrong)
    text[bad] = text[rng.permutation(bad)]
    learned = calibrate(image, text)
    assert learned is not None
    state = learned.state
    assert wrong - 0.15 < state.trust.wrong < wrong + 0.25
    assert (state.trust.wrong >= HOPELESS) == bool(state.reason) == (wrong == 1.0)


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
    assert (again.text, again.image) == (state.text, state.image)


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
    with pytest.raises(ConfigError, match="format 5, not 4"):
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


def moving(rows: int, covered: object = True, seed: int = 0, modality: Modality = "image") -> Moves:
    rng = np.random.default_rng(seed)
    added = (0.3 * rng.normal(size=(rows, D))).astype(np.float32)
    constant = rng.uniform(-0.1, 0.1, rows).astype(np.float32)
    known, mean = np.broadcast_to(np.asarray(covered, np.bool_), (rows,)), unit(rng.normal(size=D)) * 0.5
    return Moves(modality, unit(rng.normal(size=(rows, D))), added, constant, mean, known, 4.0, 100.0)


def texts_moving(rows: int, covered: object = True) -> Moves:
    return moving(rows, covered, seed=1, modality="text")


def still(moves: Moves) -> Moves:
    """The same vectors, not moved."""
    return replace(moves, added=np.zeros_like(moves.added), constant=np.zeros_like(moves.constant), kappa=0.0)


def test_scores_where_all_some_or_no_candidates_are_covered() -> None:
    images, half = moving(5), np.arange(8) % 2 == 0
    all_, some, none = (texts_moving(8, covered) for covered in (True, half, False))
    frozen, both = images.plain @ all_.plain.T, score_pairs(images, all_)
    assert np.abs(both - frozen).max() > 0.1
    np.testing.assert_array_equal(score_pairs(images, none), frozen)
    np.testing.assert_array_equal(keep_mass(frozen, both, np.ones(8, np.bool_), 4.0, 100.0), both)
    mixed = score_pairs(images, some)
    np.testing.assert_array_equal(mixed[:, ~half], frozen[:, ~half])
    np.testing.assert_allclose(np.diff(mixed[:, half]), np.diff(both[:, half]) * 4.0 / 100.0, atol=1e-5)
    mass = [np.exp(100.0 * scores[:, half].astype(float)).sum(axis=1) for scores in (mixed, frozen)]
    np.testing.assert_allclose(*mass, rtol=1e-3)
    np.testing.assert_allclose(score_pairs(still(images), still(all_)), frozen, atol=1e-6)


def test_scores_where_one_side_moves() -> None:
    images, texts = moving(5), texts_moving(8)
    frozen = images.plain @ texts.plain.T
    by_images = images.added @ (texts.plain - images.mean).T + images.constant[:, None]
    by_texts = (images.plain - texts.mean) @ texts.added.T + texts.constant
    np.testing.assert_allclose(score_pairs(images, still(texts)), frozen + by_images, atol=1e-6)
    np.testing.assert_allclose(score_pairs(still(images), texts), frozen + by_texts, atol=1e-6)
    np.testing.assert_allclose(score_pairs(images, texts), frozen + BOTH * by_images + by_texts, atol=1e-6)
    np.testing.assert_allclose(score_pairs(texts, images).T, score_pairs(images, texts), atol=1e-6)


def test_candidates_that_do_not_move_keep_their_ranking(corpus: Corpus) -> None:
    moves = replace(still(moving(100)), plain=corpus.text[::4])
    plain, ours = (corpus.image @ vectors.T for vectors in (moves.plain, to_vectors(moves, corpus.values["image"])))
    np.testing.assert_allclose(ours, plain, atol=0.03)
    assert (ours.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.98


def test_candidates_rank_as_their_exact_scores_do(corpus: Corpus) -> None:
    moves, values = moving(8), corpus.values["image"]
    vectors, queries = to_vectors(moves, values), corpus.image[:50]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    exact = queries @ moves.plain.T + (queries - values.mean) @ moves.added.T + moves.constant
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
