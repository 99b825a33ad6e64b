"""How sure an answer is: what the memory's pairs ask, the probability, the cut-off, and what is stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trust_worlds import world

from reco_plugin import Reco
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.signals.confidence import (
    RISK,
    SIZES,
    Confidence,
    Questions,
    cutoff_notes,
    match_rankings,
    read_confidence,
)
from reco_plugin.signals.logistic import chance_of
from reco_plugin.signals.questions import _look, _Scored, ask_own
from reco_plugin.types import Coverage, Records, Refinement


def records(classes: int, per: int) -> Records:
    """Pairs whose captions repeat word by word."""
    image, text, _ = world(classes, per)
    text = text[np.repeat(np.arange(classes) * per, per)]
    return Records([f"{row:05d}" for row in range(len(image))], image, text, [{}] * len(image))


def unmoved(queries, modality, hidden):
    return Refinement(queries, queries, coverage=Coverage(len(queries), len(queries)))


def judged(rng: np.random.Generator, many: int, wrong: float = 0.0) -> Questions:
    """Questions whose first answers are right with a chance of their score, less a constant."""
    score = rng.random(many)
    signals = np.stack([score, *np.zeros((2, many))], axis=1).astype(np.float32)
    return Questions(signals, rng.random(many) < score - wrong, rng.random(many) < 0.3)


def precision_at(known: Confidence, precision: float, wrong: float = 0.0) -> float | None:
    """True share of right ones above the cut-off for a precision."""
    cutoff = known.cutoff(precision)
    scores = np.linspace(0, 1, 10_001, dtype=np.float32)
    chance = chance_of(np.stack([scores, *np.zeros((2, len(scores)))], axis=1), known.weights)
    return None if cutoff is None else float(np.clip(scores - wrong, 0, 1)[chance >= cutoff[0]].mean())


@pytest.fixture(scope="module")
def calibration() -> Mapping[str, Any]:
    asked = ask_own(records(400, 3), unmoved)["text"]
    stored: dict[str, Any] = {way: [Confidence.fit(one).to_json() for one in some] for way, some in asked.items()}
    return {"confidence": json.loads(json.dumps({"text": stored | {"things": 400}}))}


def test_each_thing_asks_once_of_what_the_memory_knows_or_not() -> None:
    pairs, hidden = records(80, 3), []

    def refine(queries, modality, ids):
        rows = [pairs.ids[int(np.argmax(pairs.side(modality) @ query))] for query in queries]
        hidden.extend((modality, len(each), row in each) for each, row in zip(ids, rows, strict=True))
        return unmoved(queries, modality, ids)

    found = ask_own(pairs, refine)
    assert {way: [len(one.right) for one in some] for way, some in found["text"].items()} == {
        way: [80] * len(SIZES) for way in ("plain", "refined")
    }
    seen = Counter(many for modality, many, _ in hidden if modality == "text")
    assert sorted(seen) == [1, 3] and 40 <= seen[3] < 60, "half are gone, and of the others a tenth is not known"
    assert all(own for modality, _, own in hidden if modality == "image"), "a picture never finds itself"


def test_a_thing_of_one_pair_knows_itself_by_its_caption_only_and_few_do_not_ask() -> None:
    hidden: dict[str, list[int]] = {}

    def refine(queries, modality, ids):
        hidden.setdefault(modality, []).extend(map(len, ids))
        return unmoved(queries, modality, ids)

    ask_own(records(100, 1), refine)
    assert set(hidden["text"]) == {0, 1} and set(hidden["image"]) == {1}
    assert ask_own(records(59, 2), unmoved) == {}


def test_a_larger_index_has_better_rivals() -> None:
    for some in ask_own(records(300, 2), unmoved)["text"].values():
        best = [float(np.median(one.signals[~one.right, 0])) for one in some]
        right = [float(one.right.mean()) for one in some]
        assert best == sorted(best) and right == sorted(right, reverse=True)
        assert best[0] < best[-1] and right[0] > right[-1]


def test_the_best_of_a_larger_index_are_foretold() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.2, 0.05, (400, 3000)).astype(np.float32)
    none, own = np.zeros((400, 150), np.bool_), np.eye(400, 150, dtype=np.bool_)
    own[150:, 0] = True
    asked = _Scored(scores[:, :150], none, own, np.ones(400, np.bool_), queries(400))
    for times in (2, 20):
        foretold = float(np.median(_look(asked, times, np.ones(400, np.bool_), rng).signals[:, 0]))
        assert foretold == pytest.approx(float(np.median(scores[:, : 150 * times].max(axis=1))), abs=0.012)


def test_a_caption_that_was_encoded_in_batches_asks_once() -> None:
    pairs, rng = records(100, 4), np.random.default_rng(0)
    text = (pairs.text + 2e-5 * rng.normal(size=pairs.text.shape)).astype(np.float32)
    asked = ask_own(replace(pairs, text=text), unmoved)["text"]
    assert {len(one.right) for some in asked.values() for one in some} == {100}


def test_an_answer_that_ties_with_a_rival_does_not_count_as_right() -> None:
    pairs = records(100, 1)
    assert ask_own(pairs, unmoved)["text"]["plain"][0].right.any()
    pairs.image[1::2] = pairs.image[::2]  # each picture under two captions
    assert not ask_own(pairs, unmoved)["text"]["plain"][0].right.any()


def test_the_cutoff_breaks_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [precision_at(Confidence.fit(judged(rng, 1_200)), 0.8) for _ in range(50)]
    given = [one for one in found if one is not None]
    assert len(given) > 45, "there is one nearly always"
    assert sum(one < 0.8 for one in given) / len(found) <= RISK
    assert np.mean(given) < 0.85, "and it passes much of what labels would allow"


@pytest.mark.parametrize(("many", "right", "there"), [(30, True, False), (200, True, True), (500, False, False)])
def test_without_enough_right_answers_that_pass_there_is_no_cutoff(many: int, right: bool, there: bool) -> None:
    signals, fits = np.random.default_rng(2).random((many, 3)).astype(np.float32), np.arange(many) < 0.3 * many
    assert (Confidence.fit(Questions(signals, np.full(many, right), fits)).cutoff(0.9) is not None) is there


def test_a_higher_score_never_makes_less_sure() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(400, 3)).astype(np.float32)
    weights = Confidence.fit(Questions(signals, signals[:, 2] - signals[:, 0] > 0, rng.random(400) < 0.5)).weights
    assert weights[2] > 0.0 == weights[0]


def queries(many: int) -> Refinement:
    vectors = world(many, 1)[1]
    return Refinement(vectors, vectors)


def test_an_answer_of_a_higher_score_is_surer_and_passes(calibration: Any) -> None:
    found = match_rankings(calibration, queries(3), [[0.9, *[0.1] * 9], [0.1], []], "text", 0.6)
    assert found.chance[0] > found.chance[1] > found.chance[2] == 0.0
    assert found.least is not None and 0.1 < found.least[0] < 0.9
    assert found.passes.tolist() == [True, False, False]
    assert len(list(cutoff_notes(calibration, 0.6))) == 2
    before = match_rankings(calibration, queries(3), None, "text", 0.7)
    assert before.least is not None and (before.least > found.least).all() and np.isnan(before.chance).all()
    strict = match_rankings(calibration, queries(1), [[0.9, *[0.1] * 9]], "text", 0.999)
    assert (strict.least, strict.passes.tolist(), strict.why[:9]) == (None, [False], "no cosine")


def test_refined_rankings_are_judged_by_refined_questions_and_degraded_ones_are_plain(calibration: Any) -> None:
    refined = replace(queries(1), coverage=Coverage(1, 1), presence=np.float32([0.9]))
    only_refined = {"confidence": {"text": {**calibration["confidence"]["text"], "plain": None}}}
    one = match_rankings(only_refined, refined, [[0.7, 0.5]], "text").chance
    stretched = replace(refined, scale=np.float32([[2.0, 0.1]]))
    assert match_rankings(only_refined, stretched, [[0.3, 0.2]], "text").chance == pytest.approx(one, abs=1e-6)
    for plain in (
        queries(1),
        replace(refined, degraded="memory_error"),
        replace(refined, coverage=Coverage(1, 1, plain="the memory is not calibrated")),
    ):
        nothing = match_rankings(only_refined, plain, [[0.7, 0.5]], "text")
        assert (nothing.least, "reco memory build --relearn" in nothing.why) == (None, True)
        assert np.isnan(nothing.chance).all()
    unsure = match_rankings(only_refined, replace(refined, presence=None), [[0.7, 0.5]], "text")
    assert (unsure.least, unsure.why[:12]) == (None, "the presence")


def test_nothing_is_promised_of_an_index_that_was_not_tested(calibration: Any) -> None:
    asked = [match_rankings(calibration, queries(1), [[0.9, 0.2]], "text", 0.6, many) for many in (800, 2_000, 24_001)]
    assert asked[0].least is not None and asked[1].least is not None and asked[0].least < asked[1].least
    assert asked[2].least is None
    assert "24,001 documents was not tested, by so many things at most 24,000" in asked[2].why
    with pytest.raises(InputError, match="documents must be"):
        match_rankings(calibration, queries(1), None, "text", 0.6, 0)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.3, 0.2]], "1 ranking for 2 queries"),
        ([[0.3, 0.2], [0.1, 0.2]], r"scores\[1\] must be the best first"),
        ([[0.3, 0.2], [1.7, 0.2]], r"scores\[1\] must hold cosines"),
        ([[0.3, float("nan")], [0.2]], r"scores\[0\] must hold cosines"),
        ([[[0.3]], [0.2]], r"scores\[0\] must be a list of numbers"),
        ([["near"], [0.2]], r"scores\[0\] must be a list of numbers, got \['near'\]"),
    ],
)
def test_scores_that_cannot_be_are_refused(calibration: Any, scores: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        match_rankings(calibration, queries(2), scores, "text")


@pytest.mark.parametrize("precision", [1.0, 0.4, float("nan"), "0.9"])
def test_a_precision_that_cannot_be_is_refused(calibration: Any, precision: Any) -> None:
    with pytest.raises(InputError, match="precision must be a share"):
        match_rankings(calibration, queries(1), [[0.3]], "text", precision)


@pytest.mark.parametrize("damage", [{"weights": [1.0]}, {"cuts": [0.5]}, {"holds": "many"}, {"passes": None}])
def test_what_is_damaged_is_refused(calibration: Any, damage: dict[str, Any]) -> None:
    stored = calibration["confidence"]["text"]["plain"][0]
    damaged = [stored | damage] * len(SIZES)
    with pytest.raises(ConfigError, match="reco memory build --relearn"):
        read_confidence({"confidence": {"text": {"plain": damaged, "things": 60}}}, "text", "plain")


def test_an_application_asks_the_memory(filled: Reco, calibration: Any) -> None:
    asked = filled.embed(["a red circle", "a blue square"], modality="text")
    assert "it needs 300 pairs of 120 things" in filled.match(asked, [[0.3, 0.2]] * 2, modality="text").why
    store = filled.memory.store
    store.set_calibration({**store.header.calibration, **calibration})
    asked = replace(asked, presence=np.float32([0.9, 0.9]))
    sure = filled.match(asked, [[0.9, 0.5, *[0.2] * 8], [0.4, 0.39, *[0.38] * 8]], modality="text", precision=0.6)
    assert sure.chance[0] > sure.chance[1]
    with pytest.raises(InputError, match="modality must be"):
        filled.match(asked, [[0.3]] * 2, modality="sound")  # type: ignore[arg-type]
