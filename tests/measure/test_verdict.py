"""The sentence: who may say switch, and what it names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reco_plugin.measure import SearchHow, SearchQuery
from reco_plugin.measure.judgments import Marks
from reco_plugin.measure.record import Shares
from reco_plugin.measure.titles import TitleEstimate, has_words, words_of
from reco_plugin.measure.verdict import DOUBTFUL, KnownQueries, decide

N = 400
NOISE = np.random.default_rng(0).normal(0, 0.1, N)
MOVED = np.random.default_rng(1).uniform(0.01, 0.5, N)
TEXTS = [SearchQuery(str(n), f"thing {n}") for n in range(N)]
ROWS = np.arange(N)


def judged(difference: np.ndarray, queries: Any = TEXTS, moved: np.ndarray = MOVED, **more: Any) -> Any:
    rows = np.arange(len(difference))
    values = {"plain": np.full(len(rows), 0.5), "refined": 0.5 + difference} | more.pop("arms", {})
    return decide(KnownQueries(queries, moved, SearchHow(), rows, values, **more))


def by_titles(difference: np.ndarray, **more: Any) -> Any:
    plain = np.full(N, 0.5)
    titles = TitleEstimate(ROWS, plain, plain + difference, {}, 900, 800)
    return decide(KnownQueries(TEXTS, MOVED, SearchHow(), titles=titles, **more))


def test_a_sure_gain_switches_and_names_what_it_rests_on_and_whom_it_helps() -> None:
    verdict = judged(NOISE + 0.1)
    assert (verdict.decision, verdict.basis, verdict.settings) == ("switch", "judgments", {})
    assert verdict.gain.interval.mean == pytest.approx((NOISE + 0.1).mean())
    gains = (NOISE + 0.1 > 0).mean()
    assert f"on 400 judged of 400 queries; {gains:.0%} of the searches gain, {1 - gains:.0%} lose" in verdict.sentence


@pytest.mark.parametrize("shift", [-0.1, 0.0])
def test_a_loss_or_no_gain_is_left(shift: float) -> None:
    verdict = judged(NOISE - NOISE.mean() + shift)
    assert verdict.decision == "leave"
    assert verdict.gain.effect == ("loses" if shift else "no difference")


def test_what_is_compared_is_the_best_way_of_today_with_the_best_refined_one() -> None:
    """Names stand in titles: text search finds more than vectors, and refined vectors add nothing to it."""
    text = np.full(N, 0.9)
    verdict = judged(NOISE + 0.1, arms={"text": text, "text + plain": text - 0.1, "text + refined": text - 0.05})
    assert verdict.decision == "leave"
    assert "compared with text search, text search with refined vectors lose" in verdict.sentence
    assert "Text search alone finds 90.0, plain vectors alone 50.0" in verdict.sentence
    verdict = judged(NOISE + 0.1, arms={"text": text, "text + plain": text, "text + refined": text + 0.05 + NOISE / 9})
    assert verdict.sentence.startswith("Switch from text search to text search with refined vectors: +5.")


def test_the_shares_are_of_all_searches_and_name_what_was_not_measured() -> None:
    queries = [SearchQuery(str(n), "thing", weight=9.0 if n < 100 else 1.0) for n in range(N)]
    verdict = judged(np.where(ROWS[:200] < 100, 0.2, -0.1), queries)
    assert verdict.shares == Shares(0.75, pytest.approx(100 / 1200), 0.0, pytest.approx(200 / 1200))
    assert "75% of the searches gain, 8% lose, 0% stay, 17% were not measured" in verdict.sentence


def test_queries_that_the_memory_knows_can_be_switched_alone_and_the_gain_is_of_the_other_half() -> None:
    presence = np.random.default_rng(3).uniform(0, 1, N)
    presence[::50] = np.nan
    gain = NOISE + np.where(presence >= np.nanquantile(presence, 0.75), 0.2, -0.1)
    verdict = judged(gain, presence=presence)
    assert verdict.decision == "switch for some"
    assert verdict.settings == {"presence": round(float(np.nanquantile(presence, 0.75)), 2)}
    assert judged(gain, presence=np.full(N, np.nan)).decision == "leave"


def test_a_modality_that_loses_stays_plain() -> None:
    queries = [SearchQuery(str(n), "thing" if n % 2 else None) for n in range(N)]
    verdict = judged(NOISE + np.where(ROWS % 2, 0.2, -0.1), queries)
    assert (verdict.decision, verdict.settings) == ("switch for some", {"refine": ["text queries"]})


def test_an_alarm_and_a_memory_that_moves_nothing_leave_it() -> None:
    assert judged(NOISE + 0.3, alarm="the vectors may be of another encoder").decision == "leave"
    assert judged(NOISE + 0.3, moved=np.zeros(N)).decision == "leave"


@pytest.mark.parametrize(("gain", "doubtful"), [(0.9, 0.0), (0.1, DOUBTFUL), (-0.1, 0.0)])
def test_titles_never_say_switch(gain: float, doubtful: float) -> None:
    verdict = by_titles(NOISE + gain, doubtful=doubtful)
    assert (verdict.decision, verdict.basis, verdict.settings) == ("not known", "titles", {})
    assert verdict.gain.interval.mean == pytest.approx((NOISE + gain).mean())
    assert "takes titles as true (800 of 900 documents are in the memory)" in verdict.sentence
    assert ("A doubtful estimate" in verdict.sentence) is (doubtful > 0 or gain < 0)
    assert decide(KnownQueries(TEXTS, MOVED, SearchHow())).basis == "nothing"


@pytest.mark.parametrize(("refined", "plain", "decision"), [(15, 2, "switch"), (2, 15, "leave"), (5, 4, "not known")])
def test_marks_decide_where_nobody_judged_enough(refined: int, plain: int, decision: str) -> None:
    better = ["refined"] * refined + ["plain"] * plain
    marks = Marks({str(n): one for n, one in enumerate(better)})  # type: ignore[misc]
    assert by_titles(NOISE + 0.1, marks=marks).decision == decision
    assert judged(np.full(10, 0.5), marks=marks).decision == decision
    assert judged(NOISE + 0.1, marks=marks).basis == "judgments"


def test_marks_do_not_say_that_refined_vectors_find_more_than_text_search() -> None:
    marks = Marks(dict.fromkeys(map(str, range(15)), "refined"))
    verdict = by_titles(NOISE + 0.1, marks=marks, searches_text=True)
    assert (verdict.decision, verdict.basis) == ("switch for some", "marks")
    assert "text search" in verdict.sentence


def test_words_are_found_in_titles() -> None:
    assert has_words("red foxes", words_of("red foxe"))  # only an s is cut
    assert not has_words("Two red foxes, drawn", words_of("a red fox"))
    assert has_words("The red fox of 1 A", words_of("a red fox"))
    assert has_words("大きな赤い狐の絵", words_of("赤い狐"))
    assert not has_words("", words_of("fox"))
