"""The mathematics of calibration against slow twins: finite differences, numpy's inverse, identities."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from trust_worlds import D, measured, unit, world

from reco_plugin.calibration import Calibration, fit, rivals
from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.check import Check, Rightness, SidesRefined, choose_form
from reco_plugin.calibration.corpus import Corpus
from reco_plugin.calibration.coverage import find_covered, nearest_rival
from reco_plugin.calibration.episodes import asked_by, look
from reco_plugin.calibration.fit import START, Loss, minimise
from reco_plugin.calibration.formula import move
from reco_plugin.calibration.gate import FITTED_FEATURES, SHARPNESS, features
from reco_plugin.calibration.moments import low_rank, measure_values
from reco_plugin.calibration.reliability import LEAST, Judges, Reliability, judge
from reco_plugin.calibration.rivals import meet
from reco_plugin.calibration.scores import keep_mass, score_pairs, to_vectors
from reco_plugin.calibration.signals import weigh
from reco_plugin.cli.memory import calibration_lines
from reco_plugin.errors import ConfigError
from reco_plugin.types import MODALITIES, Mass, Modality, Moves, Vectors


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("weighted", "bolder"), [(False, 0.0), (True, 0.0), (False, 9.0)])
def test_the_gradient_of_the_loss(
    corpus: Corpus, modality: Modality, weighted: bool, bolder: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "WHOLE", 48)
    asked = np.random.default_rng(1).permutation(len(corpus))[:240]
    questions = asked_by(corpus, modality, look(corpus, asked, 10)).questions(SHARPNESS)
    met = meet(questions, np.array_split(np.arange(240), 3), 6, np.random.default_rng(0))
    loss = Loss(questions, met, 0.4, np.linspace(0.0, 1.0, 240), weighted)
    at = START + np.random.default_rng(2).normal(size=len(START)) * 0.2
    at[0] += bolder
    _, gradient = loss(at)
    step = 3e-3
    slow = [(loss(at + step * axis)[0] - loss(at - step * axis)[0]) / (2 * step) for axis in np.eye(len(START))]
    np.testing.assert_allclose(gradient, slow, rtol=0.03, atol=3e-4)


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_loss_is_that_of_whole_matrices(
    corpus: Corpus, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all rivals count: of two blocks, the second has one pair less, and each pair meets both."""
    questions = asked_by(corpus, modality, look(corpus, np.arange(61), 10)).questions(SHARPNESS)
    blocks = np.array_split(np.random.default_rng(0).permutation(61), 2)
    met = meet(questions, blocks, 4, np.random.default_rng(0))
    drawn, unanswerable, at = np.linspace(0.0, 1.0, 61), 0.4, START + 0.3
    loss = Loss(questions, met, unanswerable, drawn, weighted=False)
    kappa, wrong, logits = np.exp(at[-1]), 1.0 / (1.0 + np.exp(-at[-2])), []
    for episode in map(questions.episode, questions.both):
        strength = np.exp(features(episode.signals, questions.spread)[:, FITTED_FEATURES] @ at[:5])[:, None]
        moved = move(episode.plain, episode.evidence, strength, episode.signals[:, 6:7])
        logits.append(np.where(episode.out, -1e9, kappa * (moved + episode.base)))
    terms = [(1.0 - unanswerable, logits[0]), (unanswerable, logits[1])]
    if modality == "text":  # candidates of an image, which compete
        mixed = np.where((drawn < 1.0 - unanswerable)[:, None], *logits)
        terms = [(weight / 2.0, z.T) for weight, z in (*terms, (1.0, mixed))]
    each = np.zeros(61)
    for block in blocks:
        there = np.isin(np.arange(61), block) | np.eye(61, dtype=np.bool_)  # its own answer is always there
        for weight, z in terms:
            own = np.exp(z.diagonal() - np.logaddexp.reduce(np.where(there, z, -1e9), axis=1))
            each -= weight * np.log((1.0 - wrong) * own + wrong / len(block)) / 2.0
    np.testing.assert_allclose(loss.of_pairs(at), each, rtol=1e-4, atol=1e-6)
    value, gradient = loss(at)
    monkeypatch.setattr(fit, "_CACHED", 600)  # a few rows at a time
    np.testing.assert_allclose(loss.of_pairs(at), each, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss(at)[1], gradient, rtol=1e-4, atol=1e-6)
    assert loss(at)[0] == pytest.approx(value, rel=1e-6)
    some = met.where(np.isin(met.rows, blocks[0]))
    np.testing.assert_allclose(
        Loss(questions, some, unanswerable, drawn, weighted=False).of_pairs(at), each[np.sort(blocks[0])], rtol=1e-4
    )


@pytest.mark.parametrize("modality", MODALITIES)
def test_few_rivals_stand_for_all(corpus: Corpus, modality: Modality, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they add up to is, in the mean over draws, the sum over all; the highest are always there."""
    questions = asked_by(corpus, modality, look(corpus, np.arange(200), 10)).questions(SHARPNESS)
    blocks = [np.arange(100), np.arange(100, 200)]
    monkeypatch.setattr(rivals, "WHOLE", 48)

    def total(drawn: int, seed: int) -> np.ndarray:
        monkeypatch.setattr(rivals, "DRAWN", drawn)
        met = meet(questions, blocks, 4, np.random.default_rng(seed))
        assert sorted(met.rows.tolist()) == sorted([*range(200)] * 2) and (met.among == 100.0).all()
        assert (met.weight[0][met.places == met.rows[:, None]] < -1e8).all(), "none is its own rival"
        return np.stack([np.exp(met.evidence[i] + met.plain + met.weight[i]).sum(axis=1) for i in (0, 1)])

    whole, few = total(100, 0), np.stack([total(24, seed) for seed in range(60)])
    assert few.std(axis=0).max() > 0.0
    np.testing.assert_allclose(few.mean(axis=0), whole, rtol=0.1)
    assert np.median(few.std(axis=0) / whole) < 0.1


def test_a_query_is_correlated_with_its_evidence_as_its_scores_are() -> None:
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(400, D)) * np.linspace(2.0, 0.1, D))
    values = measure_values(x, distinct=400, rank=D)
    query, near = unit(rng.normal(size=(30, D)) * np.linspace(3.0, 0.01, D) ** 2), x[rng.integers(0, 400, (30, 5))]
    similarity, shares = np.ones((30, 5), np.float32), (np.full((30, 5), 0.2), np.ones(30))
    said = weigh(query, near, similarity, shares, similarity > 0, np.zeros(30, np.float32), values, unit=0.1)
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


@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_reliability_ranks_wrong_captions_behind_right_ones(wrong: float) -> None:
    image, text, bad = world(100, 6, wrong=wrong)
    reliability = measured(image, text).reliability_of(np.arange(len(image)))
    right, others = reliability[~bad], reliability[bad]
    auc = (right[:, None] > others).mean() + 0.5 * (right[:, None] == others).mean()
    assert auc > 0.9


def beside(similarity: list[float], vectors: list[int], counts: list[float] | None = None) -> Judges:
    """Neighbours of one pair, whose other side is an axis each."""
    there = np.array([similarity], np.float32)
    eye = np.eye(D, dtype=np.float32)
    return Judges(there, eye[None, vectors], np.ones_like(there) if counts is None else np.float32([counts]))


def test_a_caption_between_those_that_its_image_brings_is_none_of_them(corpus: Corpus) -> None:
    """Which the mean of what it brings does not say."""
    eye = np.eye(D, dtype=np.float32)
    near = {"image": beside([0.9, 0.9], [0, 1]), "text": beside([1.0], [5])}

    def added(text: Vectors) -> float:
        pair: dict[Modality, Vectors] = {"image": eye[5:6], "text": unit(text[None])}
        alike = judge(corpus.values, corpus.spreads, pair, near)[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("reco_plugin.calibration.reliability._log_alike", lambda *_: np.zeros(1, np.float32))
            plain = judge(corpus.values, corpus.spreads, pair, near)[0]
        assert alike[2] == plain[2]
        return float(alike[1] - plain[1])

    far = 3.0 / corpus.spreads["text"]
    assert added(eye[0]) == pytest.approx(np.log(0.5 * (1.0 + np.exp(-min(far, 8.0)))), abs=1e-4)
    assert added(eye[0] + eye[1]) == pytest.approx(max(far * (np.sqrt(0.5) - 1.0), -8.0), rel=1e-4)
    assert added(eye[0] + eye[1]) < added(eye[0]) - 1.0


def test_a_neighbour_that_does_not_count_says_nothing(corpus: Corpus) -> None:
    eye = np.eye(D, dtype=np.float32)
    pair: dict[Modality, Vectors] = {"image": eye[5:6], "text": eye[:1]}
    texts = beside([0.9], [5])
    both, one, wrong = (
        judge(corpus.values, corpus.spreads, pair, {"image": found, "text": texts})[0]
        for found in (beside([0.9, 0.9], [0, 1], [1.0, 0.0]), beside([0.9], [0]), beside([0.9, 0.9], [0, 1]))
    )
    np.testing.assert_allclose(both, one, atol=1e-5)
    assert wrong[1] < one[1] - 0.1
    alone = judge(corpus.values, corpus.spreads, pair, {"image": beside([-2.0], [0]), "text": beside([-2.0], [0])})
    np.testing.assert_allclose(alone[0, :2], 0.0, atol=1e-5)
    assert alone[0, 2] == one[2]


def test_what_is_shown_of_reliability_ranks_also_what_lies_at_its_floor() -> None:
    reliability = Reliability(np.array([1.0, 0.0, 0.0, 0.0]), 0.5, mean=0.7)
    witnesses = np.zeros((401, 3), np.float32)
    witnesses[:, 0] = np.linspace(-10.0, 8.0, 401)
    of, shown = reliability.of(witnesses), reliability.shown(witnesses)
    assert (of == LEAST).sum() > 200, "all these are equal"
    assert (np.diff(shown) > 0.0).all(), "none of these are"
    assert shown.min() > 0.0 and shown.max() < 1.0
    assert np.array_equal(shown[of > 0.5], of[of > 0.5])
    assert np.abs(np.diff(shown)).max() < 0.03, "without a step"
    witnesses[0, 1] = np.nan
    assert reliability.shown(witnesses)[0] == np.float32(0.7), "not judged yet"
    assert (Reliability(reliability.weights, 0.0).shown(witnesses[1:]) == 1.0).all()


@pytest.mark.slow
def test_the_same_pairs_and_seed_give_the_same_bits() -> None:
    image, text, _ = world(100, 4, wrong=0.2)
    first, second = (calibrate(image, text, seed=3) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.state.to_json() == second.state.to_json()
    assert first.witnesses.tobytes() == second.witnesses.tobytes()


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
    assert again.check == state.check
    for modality in MODALITIES:
        for part in ("mean", "slack"):
            ours, theirs = (getattr(one.values[modality], part) for one in (state, again))
            assert ours.tobytes() == theirs.tobytes()
        assert set(again.sides[modality].gates) == set(state.sides[modality].gates)
        assert again.sides[modality].sharpening == state.sides[modality].sharpening
    said = [line for line in calibration_lines(stored, state.pairs) if line.startswith("compared with their own kind")]
    assert said == ([again.among_own] if state.fitted else [])


@pytest.mark.parametrize(("per", "alone"), [(1, 1.0), (4, 0.0)])
def test_the_self_check_says_where_held_out_pairs_find_no_answer(per: int, alone: float) -> None:
    learned = calibrate(*world(400 // per, per)[:2])
    assert learned is not None
    assert learned.state.check is not None
    stored = learned.state.check.to_json()
    assert stored["alone"] == alone
    assert ("of little worth" in learned.state.check.meaning) == (per == 1)
    assert Check.from_json(stored) == learned.state.check


@pytest.mark.slow
def test_the_self_check_says_what_to_refine() -> None:
    """Both sides where each helps, and what leaves an index as it is where no other form is surely better."""
    learned = calibrate(*world(100, 8)[:2])
    assert learned is not None
    assert learned.state.check is not None
    check = learned.state.check
    for modality in MODALITIES:
        side = check.side(modality)
        assert side.gain_of(side.best) >= side.gain_of("queries")
        assert side.both > 0.0
        assert side.candidates > 0.0
    assert re.fullmatch(r"image queries .*gain .*\(\+[\d.]+\), text queries .*gain .*\(\+[\d.]+\)", check.advice)
    assert not replace(check, alone=1.0).advice
    stored = check.to_json()
    assert Check.from_json(stored) == check
    with pytest.raises(ValueError, match="no form"):
        Check.from_json(stored | {"image": stored["image"] | {"best": "all"}})


@pytest.mark.parametrize(
    ("queries", "both", "candidates", "best"),
    [
        (30, 60, 62, "both"),  # candidates alone seem better by as little as chance brings
        (30, 60, 90, "candidates"),
        (30, 31, 60, "candidates"),
        (30, 31, 29, "queries"),
    ],
)
def test_chance_chooses_no_candidates_alone(queries: int, both: int, candidates: int, best: SidesRefined) -> None:
    """Each form answers so many of 100 pairs, candidates alone others than both do, where they can."""
    place = np.arange(100)
    hits: dict[SidesRefined, Rightness] = {"plain": place < 0, "queries": place < queries, "both": place < both}
    hits["candidates"] = place[::-1] < candidates
    assert choose_form(hits, np.full(100, 0.01, np.float32), "queries") == best


@pytest.mark.parametrize(
    ("classes", "per"),
    [(50, 8), (300, 1), (500, 2)],
)
@pytest.mark.slow
def test_vectors_of_another_encoder_are_an_alarm(classes: int, per: int) -> None:
    """Turned images lie to one another as before, so the gates would seem to gain as much as there is to gain."""
    image, text, _ = world(classes, per, wrong=0.05)
    right = calibrate(image, text)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    turned = calibrate(unit(image @ turn), text)
    assert right is not None and turned is not None
    assert right.state.check is not None and turned.state.check is not None
    assert not right.state.check.by_chance and "ALARM" not in str(right.state.check)
    check = turned.state.check
    assert max(check.image.gain, check.text.gain) > 20.0
    assert check.by_chance
    assert re.match(
        r"ALARM: .* as by chance\. Image queries \+", str(check)
    )  # a domain unknown to CLIP looks like this, too
    assert "worth nothing if the vectors are of another encoder" in check.meaning
    assert not check.advice
    assert [one for one in calibration_lines(right.state.to_json(), len(image)) if "fit their neighbours by 0." in one]
    said = "; ".join(calibration_lines(turned.state.to_json(), len(image)))
    assert "ALARM" in said
    assert "fit their neighbours" not in said, "said of no use where the alarm is raised"


def test_a_damaged_state_is_refused(state: Calibration) -> None:
    stored = state.to_json()
    blob = stored["blob"]
    for change in (
        {"format": 2},
        {"format": 5},
        {"sha256": "0" * 64},
        {"blob": blob[:-8]},
        {"blob": "!"},
        {"blob": ("B" if blob[500] == "A" else "A").join((blob[:500], blob[501:]))},
        {"blob": None},
        {"pairs": "many"},
    ):
        with pytest.raises(ConfigError, match="reco memory build --relearn"):
            Calibration.from_json(stored | change)
    with pytest.raises(ConfigError, match="format 5, not 1"):
        Calibration.from_json(stored | {"format": 5})
    for gone in ("format", "sha256", "blob", "pairs"):
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


def moving(rows: int, covered: object = True, seed: int = 0, trusted: float = 0.0) -> Moves:
    rng = np.random.default_rng(seed)
    added = (0.3 * rng.normal(size=(rows, D))).astype(np.float32)
    length = rng.uniform(1.0, 2.0, rows).astype(np.float32)
    known = np.broadcast_to(np.asarray(covered, np.bool_), (rows,))
    return Moves(
        unit(rng.normal(size=(rows, D))), added, length, unit(rng.normal(size=D)) * 0.5, known, Mass(4.0, 8.0, trusted)
    )


def still(moves: Moves) -> Moves:
    """The same vectors, not moved."""
    return replace(moves, added=np.zeros_like(moves.added), length=np.ones_like(moves.length))


def test_scores_where_all_some_or_no_candidates_are_covered() -> None:
    images, half = moving(5), np.arange(8) % 2 == 0
    all_, some, none = (moving(8, covered, seed=1) for covered in (True, half, False))
    frozen, both = images.plain @ all_.plain.T, score_pairs(images, all_)
    assert np.abs(both - frozen).max() > 0.1
    np.testing.assert_array_equal(score_pairs(images, none), frozen)
    np.testing.assert_array_equal(keep_mass(frozen, frozen, both, np.ones(8, np.bool_), Mass(4.0, 8.0, 1.0)), both)
    mixed = score_pairs(images, some)
    alone = score_pairs(images, still(all_))  # images refined alone
    np.testing.assert_allclose(mixed[:, ~half], alone[:, ~half], atol=1e-5)
    np.testing.assert_allclose(np.diff(mixed[:, half]), np.diff(both[:, half]), atol=1e-5)
    mass = [np.exp(4.0 * scores[:, half]).sum(axis=1) for scores in (mixed, alone)]
    np.testing.assert_allclose(*mass, rtol=1e-4)
    np.testing.assert_allclose(score_pairs(still(images), still(all_)), frozen, atol=1e-6)


@pytest.mark.parametrize("trusted", [0.0, 0.4, 1.0])
def test_what_covered_candidates_take_as_far_as_clip_knows_the_memory(trusted: float) -> None:
    images, texts = moving(200, trusted=trusted), moving(8, np.arange(8) % 2 == 0, seed=1)
    covered, plain = texts.covered, images.plain @ texts.plain.T

    def odds(scores: np.ndarray, sharpness: float) -> np.ndarray:
        inside, outside = (np.exp(sharpness * scores[:, part]).sum(axis=1) for part in (covered, ~covered))
        return np.asarray(np.log(inside / outside))

    refined, frozen = odds(plain + images.added @ (texts.plain - images.mean).T, 4.0), odds(plain, 8.0)
    assert (frozen < refined).any() and (frozen > refined).any()
    expected = np.where(frozen < refined, trusted * frozen + (1.0 - trusted) * refined, refined)
    np.testing.assert_allclose(odds(score_pairs(images, texts), 4.0), expected, atol=1e-4)


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
