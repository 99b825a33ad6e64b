"""The rule of the sentence, and the words that it may rest on."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.compare import Marks, SearchHow, SearchQuery, SwitchRule
from reco_plugin.compare.evidence import Indication, by_captions_of_index, has_words, words_of
from reco_plugin.compare.measure import judge
from reco_plugin.compare.search import Rankings
from reco_plugin.compare.verdict import Heard, decide
from reco_plugin.engines import IndexHit
from reco_plugin.evaluate.ranking import graded_ndcg, ndcg
from reco_plugin.interleave import Votes

N = 400
NOISE = np.random.default_rng(0).normal(0, 0.1, N)
MOVED = np.random.default_rng(1).uniform(0.01, 0.5, N)
TEXTS = [SearchQuery(str(n), f"thing {n}") for n in range(N)]


def said(difference: np.ndarray, queries=TEXTS, moved=MOVED, kind="judgments", **more):
    rows = np.arange(len(difference))
    evidence = Indication(kind, rows, np.full(len(rows), 0.5), 0.5 + difference, len(queries))
    return decide(evidence, queries, moved, SearchHow(), Heard(**more))


def test_a_sure_gain_switches_and_names_what_it_rests_on_and_whom_it_helps():
    verdict = said(NOISE + 0.1)
    assert (verdict.decision, verdict.rule, verdict.rests_on) == ("switch", SwitchRule(), "judgments")
    assert verdict.gain.mean == pytest.approx((NOISE + 0.1).mean())
    gains = (NOISE + 0.1 > 0).mean()
    assert f"on 400 judged of 400 queries; {gains:.0%} of these searches gain, {1 - gains:.0%} lose" in verdict.sentence


@pytest.mark.parametrize("shift", [-0.1, 0.0])
def test_a_loss_or_no_gain_is_left(shift):
    verdict = said(NOISE - NOISE.mean() + shift)
    assert (verdict.decision, verdict.rule) == ("leave", None)
    assert ("lose" in verdict.sentence.partition(":")[2].partition(":")[0]) is (shift < 0)


def test_a_few_that_gain_among_very_many_are_no_gain():
    few = np.zeros(N)
    few[:4] = 0.6
    verdict = said(few)
    assert verdict.decision == "not known"
    assert "4 of 400 judged queries" in verdict.sentence


def test_queries_that_moved_far_can_be_switched_alone():
    far = np.quantile(MOVED, 0.75) <= MOVED
    verdict = said(NOISE + np.where(far, 0.2, -0.1))
    assert verdict.decision == "switch for some"
    assert verdict.rule.moved == pytest.approx(np.quantile(MOVED, 0.75))


def test_queries_that_the_memory_knows_can_be_switched_alone():
    """By the setting of a service, before what each query's move says."""
    presence = np.random.default_rng(3).uniform(0, 1, N)
    presence[::50] = np.nan
    gain = NOISE + np.where(presence >= np.nanquantile(presence, 0.75), 0.2, -0.1)
    verdict = said(gain, presence=presence)
    assert verdict.decision == "switch for some"
    assert verdict.rule == SwitchRule(presence=round(float(np.nanquantile(presence, 0.75)), 2))
    held = verdict.rule.holds(np.full(N, "text"), MOVED, None, presence)
    assert held.tolist() == (presence >= verdict.rule.presence).tolist()
    assert verdict.gain.mean == pytest.approx(np.where(held, gain, 0).mean(), abs=0.02), "of the half that confirms"
    assert said(gain, presence=np.full(N, np.nan)).decision == "leave"


def test_a_modality_that_loses_stays_plain():
    queries = [SearchQuery(str(n), "thing" if n % 2 else None) for n in range(N)]
    verdict = said(NOISE + np.where(np.arange(N) % 2, 0.2, -0.1), queries)
    assert (verdict.decision, verdict.rule) == ("switch for some", SwitchRule(("text",)))


@pytest.mark.parametrize("gains", [True, False])
def test_queries_with_a_filter_are_a_part_of_their_own(gains):
    own = np.arange(N) % 2 == 0
    queries = [SearchQuery(str(n), "thing", where="price < 5" if own[n] else None) for n in range(N)]
    verdict = said(NOISE + np.where(own == gains, 0.2, -0.1), queries)
    assert (verdict.decision, verdict.rule) == ("switch for some", SwitchRule(filtered=gains))
    assert verdict.rule.holds(np.full(N, "text"), MOVED, own).tolist() == (own == gains).tolist()
    assert said(NOISE + 0.1, queries).rule == SwitchRule()


def test_a_query_counts_as_often_as_it_was_asked():
    queries = [SearchQuery(str(n), "thing", weight=100.0 if n < 100 else 1.0) for n in range(N)]
    loses_where_it_counts = np.where(np.arange(N) < 100, -0.2, 0.2)
    assert said(loses_where_it_counts).decision != "leave"
    verdict = said(loses_where_it_counts, queries, np.full(N, 0.1))
    assert verdict.decision == "leave"
    assert "3% of these searches gain, 97% lose" in verdict.sentence


def test_an_alarm_and_a_memory_that_moves_nothing_leave_it():
    assert said(NOISE + 0.3, alarm="the vectors may be of another encoder").decision == "leave"
    assert said(NOISE + 0.3, moved=np.zeros(N)).decision == "leave"


@pytest.mark.parametrize("gain", [0.9, 0.1, -0.1])
def test_titles_never_say_switch(gain):
    """Where the memory is the index, a wrong title is both what it teaches and what counts as right."""
    verdict = said(NOISE + gain, kind="captions of the index")
    assert (verdict.decision, verdict.rule) == ("not known", None)
    assert verdict.gain.mean == pytest.approx((NOISE + gain).mean())
    assert "takes titles as true" in verdict.sentence
    assert decide(None, TEXTS, MOVED, SearchHow(), Heard()).decision == "not known"


def test_clicks_then_marks_decide_where_nobody_judged_enough():
    words, few = "captions of the index", np.full(10, 0.5)
    refined, plain, uneven = Marks(15, 2, 5), Marks(2, 15, 5), Marks(5, 4, 20)
    for evidence in ({"kind": words, "difference": NOISE + 0.1}, {"difference": few}):
        assert said(**evidence, marks=refined).decision == "switch"
        assert said(**evidence, marks=plain).decision == "leave"
        assert said(**evidence, marks=uneven).decision == "not known"
        clicked = said(**evidence, marks=plain, votes=Votes(20, 60))
        assert (clicked.decision, clicked.rests_on) == ("switch", "clicks")
        assert said(**evidence, votes=Votes(5, 6)).decision == "not known"
    assert said(NOISE + 0.1, marks=plain, votes=Votes(60, 20)).rests_on == "judgments"


def test_words_are_found_in_captions():
    assert has_words("Two red foxes, drawn", words_of("a red fox")) is False  # foxe: only an s is cut
    assert has_words("red foxes", words_of("red foxe"))
    assert has_words("The red fox of 1 A", words_of("a red fox"))
    assert not has_words("a fox", words_of("red fox"))
    assert has_words("大きな赤い狐の絵", words_of("赤い狐"))
    assert not has_words(None, words_of("fox"))


def test_captions_of_the_index_judge_what_any_arm_found():
    def hits(*found: str) -> list[IndexHit]:
        return [IndexHit(name, 1.0, name.split(":")[1]) for name in found]

    plain, refined = hits("1:an owl", "2:a red fox"), hits("2:a red fox", "3:red fox, sitting")
    rankings = Rankings({"plain": [plain, hits("1:an owl")], "refined": [refined, hits("4:a cat")]})
    evidence = by_captions_of_index([SearchQuery("a", "red fox"), SearchQuery("b", "dragon")], rankings, 10)
    assert evidence.rows.tolist() == [0]
    assert evidence.refined[0] == 1.0 > evidence.plain[0] > 0


def test_judging_agrees_with_the_metrics_of_eval():
    hits = np.random.default_rng(2).random((50, 10)) < 0.3
    relevant = hits.sum(axis=1) + 2
    ids = [[f"right-{n}" if hit else f"wrong-{n}" for n, hit in enumerate(row)] for row in hits]
    grades = [
        dict.fromkeys([*(one for one in row if one.startswith("right")), "missed-1", "missed-2"], 1.0) for row in ids
    ]
    np.testing.assert_allclose(judge(ids, grades, 10)["ndcg"], ndcg(hits, relevant))
    found, best = np.array([[1.0, 3.0]]), np.array([[3.0, 1.0]])
    assert graded_ndcg(best, best)[0] == 1.0 > graded_ndcg(found, best)[0]
