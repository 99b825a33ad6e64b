"""How sure an answer is: what the memory's pairs ask, the chances, what is stored, and what cannot be promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trust_worlds import world

from reco_plugin.errors import ConfigError, InputError
from reco_plugin.extras.chances import (
    LOOKED,
    MatchState,
    ThingQuestions,
    auc_of,
    cutoff_notes,
    fit_logistic,
    read_matches,
    reliability_curve,
    signals_of,
)
from reco_plugin.extras.questions import ask_own
from reco_plugin.match import match_rankings
from reco_plugin.types import Coverage, Records, Refinement


def records(classes: int, per: int) -> Records:
    """Pairs whose captions repeat word by word."""
    image, text, _ = world(classes, per)
    text = text[np.repeat(np.arange(classes) * per, per)]
    return Records([f"{row:05d}" for row in range(len(image))], image, text, [{}] * len(image))


def unmoved(queries, modality, hidden):
    return Refinement(queries, queries, coverage=Coverage(len(queries), len(queries)))


@pytest.fixture(scope="module")
def state() -> MatchState:
    found = ask_own(records(400, 3), unmoved)
    assert found is not None
    return found


def test_each_thing_asks_once_and_its_own_pairs_are_hidden() -> None:
    pairs, hidden = records(80, 3), []

    def refine(queries, modality, ids):
        rows = [pairs.ids[int(np.argmax(pairs.side(modality) @ query))] for query in queries]
        hidden.extend((modality, len(each), row in each) for each, row in zip(ids, rows, strict=True))
        return unmoved(queries, modality, ids)

    found = ask_own(pairs, refine)
    assert found is not None
    assert (found.things, found.index, found.alone) == (80, 80, 0.0)
    assert {kind: len(one) for kind, one in found.questions["text"].items()} == dict.fromkeys(
        ("plain", "known", "unknown"), 80
    )
    assert {many for _, many, _ in hidden} == {1, 3}
    assert all(own for modality, _, own in hidden if modality == "image"), "a picture never finds itself"


def test_things_of_one_pair_ask_as_unknown_ones_only() -> None:
    found = ask_own(records(100, 1), unmoved)
    assert found is not None
    assert (found.alone, sorted(found.questions["text"])) == (1.0, ["plain", "unknown"])
    cutoffs = found.cutoffs("text", "refined", 0.6, 0.0)
    if any(cutoffs.of.values()):
        assert "100% of them have one pair" in cutoffs.why
    assert ask_own(records(59, 2), unmoved) is None


def test_an_absent_answer_is_never_right_and_places_are_those_of_the_ranking() -> None:
    pairs = records(100, 2)
    found = ask_own(pairs, unmoved)
    assert found is not None
    asked = found.questions["text"]["plain"]
    signals, right = asked.mixed(1.0)
    assert not right.any()
    assert (signals == asked.absent).all()
    signals, right = asked.mixed(0.0)
    assert (right == (asked.place == 1)).all()
    assert right.mean() > 0.1
    assert (asked.present[right, 0] >= asked.absent[right, 0]).all()
    assert (asked.present[~right, 0] == asked.absent[~right, 0]).all(), "only a right first answer can be missed first"
    assert asked.place.max() <= LOOKED


def test_a_caption_that_was_encoded_in_batches_asks_once() -> None:
    pairs, rng = records(100, 4), np.random.default_rng(0)
    for noise in (1e-7, 1e-6, 2e-5):
        text = (pairs.text + noise * rng.normal(size=pairs.text.shape)).astype(np.float32)
        found = ask_own(replace(pairs, text=text), unmoved)
        assert found is not None
        assert {len(one) for one in found.questions["text"].values()} == {100}
        if noise < 1e-5:
            assert (found.things, found.alone) == (100, 0.0)


def test_a_caption_of_very_many_pairs_hides_none_of_them_one_by_one() -> None:
    pairs, rng = records(300, 2), np.random.default_rng(0)
    pairs.text[:300] = pairs.text[0] + 2e-5 * rng.normal(size=(300, pairs.text.shape[1])).astype(np.float32)
    longest = []

    def refine(queries, modality, hidden):
        longest.append(max(map(len, hidden)))
        return unmoved(queries, modality, hidden)

    found = ask_own(pairs, refine)
    assert found is not None
    assert len(found.questions["text"]["unknown"]) == 150
    assert max(longest) <= 256


def test_an_answer_that_ties_with_a_rival_does_not_count_as_right() -> None:
    pairs = records(100, 1)
    pairs.image[1::2] = pairs.image[::2]  # each picture under two captions
    found = ask_own(pairs, unmoved)
    assert found is not None
    assert not (found.questions["text"]["plain"].place == 1).any()


def test_the_state_is_stored_and_read_back(state: MatchState) -> None:
    stored = state.to_json()
    again = read_matches({"match": stored})
    assert again is not None
    assert again.to_json() == stored
    assert again.cutoffs("text", "plain", 0.6, 0.1) == state.cutoffs("text", "plain", 0.6, 0.1)
    assert read_matches({}) is None
    assert cutoff_notes({}) == []
    promised = sum(
        any(state.cutoffs(m, way, 0.6).of.values()) for m in ("image", "text") for way in ("plain", "refined")
    )
    assert promised > 0
    notes = cutoff_notes({"match": stored}, 0.6)
    assert len(notes) == promised and all("right with 60%" in note for note in notes)
    middle = len(stored["blob"]) // 2  # where the compressed stream breaks, not the archive
    flipped = stored["blob"][:middle] + "AAAA" + stored["blob"][middle + 4 :]
    for damaged in (
        {"format": 99},
        {"format": 0},
        {"blob": "!"},
        {"blob": stored["blob"][:-40]},
        {"blob": flipped},
        {"sha256": None},
        {"index": "many"},
    ):
        with pytest.raises(ConfigError, match="reco memory build --relearn"):
            read_matches({"match": stored | damaged})
    with pytest.raises(ConfigError, match="damaged"):
        read_matches({"match": {"format": 1}})


def test_chances_rise_with_the_score_and_hold_on_other_questions(state: MatchState) -> None:
    sure = state.sureness("text", "plain")
    assert sure is not None
    assert sure.error < 0.12
    assert sure.auc > 0.6
    low, high = np.float32([[0.2, 0.0, 0.05, 0.0]]), np.float32([[0.5, 0.2, 0.3, 0.0]])
    assert sure.first(low) <= sure.first(high)
    assert sure.none(low) >= sure.none(high)


def test_signals_of_short_rankings_lead_by_nothing() -> None:
    moved = np.float32([0.04])
    assert signals_of(np.float32([[0.3] * 10]), moved).tolist() == [pytest.approx([0.3, 0.0, 0.0, 0.2])]
    assert signals_of(np.float32([[0.3]]), moved).shape == (1, 4)


def test_a_weight_that_goes_the_wrong_way_is_left_out() -> None:
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(400, 4)).astype(np.float32)
    chance = fit_logistic(signals, signals[:, 0] - signals[:, 1] > 0, np.ones(400), 1.0)
    assert chance.weights[1] == 0.0
    assert chance.weights[0] > 0.0
    signals[:, 2] = 1.0  # never changes
    assert fit_logistic(signals, signals[:, 0] > 0, np.ones(400), 1.0).weights[2] == 0.0


def test_curve_and_auc_are_those_of_the_textbook() -> None:
    chance, true = np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, True, False])
    error, curve = reliability_curve(chance, true)
    assert error == pytest.approx((2 * 0.1 + 2 * 0.4) / 4)
    assert [number for _, _, number in curve] == [2, 2]
    assert auc_of(chance, true) == pytest.approx((1 + 1 + 0.5) / 3)
    assert np.isnan(auc_of(chance, np.ones(4, np.bool_)))


def queries(many: int) -> Refinement:
    vectors = world(many, 1)[1]
    return Refinement(vectors, vectors)


def test_rankings_get_chances_that_fit_one_another(state: MatchState) -> None:
    found = match_rankings(state, queries(3), [[0.9, *[0.1] * 9], [0.3], []], "text", 0.6, 0.0)
    assert found.way == "plain"
    assert (found.first + found.none <= 1.0 + 1e-9).all()
    assert found.first[0] > found.first[1] > found.first[2] == 0.0
    assert found.none[2] == 1.0
    assert found.passes.tolist() == [True, False, False]
    cut = found.cutoff("match")
    assert cut is not None
    assert found.first[0] >= cut > found.first[1]
    with pytest.raises(InputError, match="by must be score, lead, match, got 'rank'"):
        found.cutoff("rank")  # type: ignore[arg-type]


def test_refined_rankings_are_judged_by_refined_questions_and_degraded_ones_are_plain(state: MatchState) -> None:
    refined = replace(queries(1), coverage=Coverage(1, 1))
    assert match_rankings(state, refined, [[0.3, 0.2]], "text").way == "refined"
    degraded = replace(refined, degraded="memory_error")
    assert match_rankings(state, degraded, [[0.3, 0.2]], "text").way == "plain"
    unread = replace(refined, coverage=Coverage(1, 1, plain="the memory is not calibrated"))
    assert match_rankings(state, unread, [[0.3, 0.2]], "text").way == "plain"
    stretched = replace(refined, scale=np.float32([[2.0, 0.1]]))
    one = match_rankings(state, refined, [[0.7, 0.5]], "text").first
    assert match_rankings(state, stretched, [[0.3, 0.2]], "text").first == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.3, 0.2]], "1 ranking for 2 queries"),
        ([[0.3, 0.2], [0.1, 0.2]], r"scores\[1\] must be the best first"),
        ([[0.3, 0.2], [1.7, 0.2]], r"scores\[1\] must hold cosines"),
        ([[0.3, float("nan")], [0.2]], r"scores\[0\] must hold cosines"),
        ([[[0.3]], [0.2]], r"scores\[0\] must be a list of numbers"),
        ([["near"], [0.2]], r"scores\[0\] must be a list of numbers, got \['near'\]"),
        ([[0.3, [0.2]], [0.2]], r"scores\[0\] must be a list of numbers"),
        ([[1e39], [0.2]], r"scores\[0\] must hold cosines"),
    ],
)
def test_scores_that_cannot_be_are_refused(state: MatchState, scores, said: str) -> None:
    with pytest.raises(InputError, match=said):
        match_rankings(state, queries(2), scores, "text")


@pytest.mark.parametrize(
    ("precision", "absent"), [(1.0, 0.1), (0.4, 0.1), (0.9, 1.0), (0.9, -0.1), (0.9, float("nan"))]
)
def test_promises_that_cannot_be_are_refused(state: MatchState, precision: float, absent: float) -> None:
    with pytest.raises(InputError, match="must be a share from"):
        match_rankings(state, queries(1), [[0.3]], "text", precision, absent)


def test_a_memory_that_was_not_asked_says_what_to_do(state: MatchState) -> None:
    with pytest.raises(InputError, match="reco memory build --relearn"):
        match_rankings(None, queries(1), [[0.3]], "text")
    few = ThingQuestions(
        np.zeros((10, 4), np.float32),
        np.ones(10, np.int16),
        np.zeros((10, 4), np.float32),
        np.zeros(10, np.float32),
    )
    small = MatchState({"text": {"plain": few}, "image": {}}, 10, 10, 0.0)
    with pytest.raises(InputError, match="too few of the memory's 10 things"):
        match_rankings(small, queries(1), [[0.3]], "text")
    assert "too few" in small.cutoffs("text", "plain", 0.9).why
