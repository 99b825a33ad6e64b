"""The decisions: one a kind of query, by judgments, titles or marks, and the search that is best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reco_plugin.evaluation import SearchOptions, SearchQuery
from reco_plugin.evaluation.hybrid import engine_query
from reco_plugin.evaluation.judgments import Marks
from reco_plugin.evaluation.search import SearchResults
from reco_plugin.evaluation.verdict import decide
from reco_plugin.sources.indexes import Description, IndexAddress, IndexHit

N = 200
TEXTS = [SearchQuery(f"q{n}", f"thing {n}") for n in range(N)]
DRAWN = np.random.default_rng(0)


def ranked(arm: str, places: Any) -> list[list[IndexHit]]:
    """Rankings of ten, of which the right document of query n stands at a place; from 10 on, nowhere."""
    return [
        [IndexHit(f"right-{n}" if place == at else f"{arm}-{place}-{at}", 1.0) for at in range(10)]
        for n, place in enumerate(places)
    ]


def searched(plain: Any, refined: Any, queries: Any = TEXTS, judged: int = N, **arms: Any) -> SearchResults:
    hits = {arm: ranked(arm, places) for arm, places in {"plain": plain, "refined": refined, **arms}.items()}
    grades = [{f"right-{n}": 1.0} if n < judged else {} for n in range(len(queries))]
    return SearchResults(queries, ["names"] * len(queries), np.ones(len(queries)), hits, SearchOptions(), grades=grades)


BAD, GOOD = np.full(N, 5), np.where(np.arange(N) % 2, 0, 5)


def test_a_sure_gain_is_one_decision_in_one_direction() -> None:
    (verdict,) = decide(searched(BAD, GOOD)).verdicts
    assert (verdict.decision, verdict.basis, verdict.settings) == ("refine", "judgments", {})
    assert verdict.sentence.startswith(
        "Refine text queries: 50 of 100 more show a right result first (50, before 0); +"
    )
    assert "on 200 judged of 200 queries" in verdict.sentence


@pytest.mark.parametrize(("refined", "effect"), [(BAD, "loses"), (DRAWN.permutation(GOOD), "no difference")])
def test_a_loss_or_no_gain_is_left(refined: np.ndarray, effect: str) -> None:
    (verdict,) = decide(searched(GOOD, refined)).verdicts
    assert (verdict.decision, verdict.gain.effect) == ("leave", effect)


def test_texts_and_images_are_decided_each_by_itself() -> None:
    queries = [SearchQuery(f"q{n}", f"thing {n}" if n < N // 2 else None) for n in range(N)]
    half = np.arange(N) < N // 2
    text, image = decide(searched(np.where(half, 5, 0), np.where(half, 0, 5), queries)).verdicts
    assert (text.decision, image.decision) == ("refine", "leave")
    assert "image" not in text.sentence
    assert "text" not in image.sentence


def test_traffic_stands_beside_and_does_not_decide() -> None:
    """One query in twenty is nearly all of the traffic, and gains; of the others none does."""
    weights = np.where(np.arange(N) % 20, 1.0, 1000.0)
    queries = [SearchQuery(f"q{n}", f"thing {n}", weight=weights[n]) for n in range(N)]
    (verdict,) = decide(searched(BAD, np.where(weights > 1, 0, 5), queries)).verdicts
    assert verdict.decision == "not known"
    assert "+63.2 where each counts as often as it is searched for" in verdict.sentence


def test_judgments_that_equal_titles_decide_under_that_condition() -> None:
    (verdict,) = decide(searched(BAD, GOOD), titles=True).verdicts
    assert (verdict.decision, verdict.basis) == ("refine if the titles are right", "titles")
    assert "so a wrong title counts as right" in verdict.sentence


def test_where_text_search_was_not_tried_the_decision_says_so() -> None:
    (verdict,) = decide(searched(BAD, GOOD), untried="Text search was not tried.").verdicts
    assert verdict.sentence.endswith("Text search was not tried.")


def test_text_search_alone_is_named_where_it_is_best() -> None:
    search, refine = decide(searched(BAD, GOOD, text=np.zeros(N, int))).verdicts
    assert refine.sentence.startswith("Refine text queries that vectors search: ")
    assert (search.decision, search.settings, search.query) == ("use", {"text_weight": 1.0}, "")
    assert search.sentence.startswith("Search texts by text search alone: +")


def test_the_weight_is_fitted_on_one_half_and_tested_on_the_other() -> None:
    """Text search has two in three right, and finds nothing for the others; vectors have those right."""
    words = np.arange(N) % 3 > 0
    found = searched(np.full(N, 9), np.where(words, 4, 0), text=np.where(words, 0, 10))
    verdicts, _, weight = decide(found, query=lambda weight: f"weight {weight}")
    assert verdicts[1].decision == "use"
    assert verdicts[1].settings == {"text_weight": weight}
    assert verdicts[1].query == f"weight {weight}"
    assert found.measure(found.fused("refined", weight))["ndcg"].mean() > 0.8


def test_an_alarm_and_a_memory_that_moves_nothing_leave_it() -> None:
    assert (
        decide(searched(BAD, GOOD, judged=0), alarm="the vectors may be of another encoder").verdicts[0].decision
        == "leave"
    )
    still = searched(BAD, GOOD)
    still.moved[:] = 0
    assert decide(still).verdicts[0].basis == "nothing"


@pytest.mark.parametrize(("refined", "plain", "decision"), [(15, 2, "refine"), (2, 15, "leave"), (5, 4, "not known")])
def test_marks_decide_where_nobody_judged_enough(refined: int, plain: int, decision: str) -> None:
    better = ["refined"] * refined + ["plain"] * plain
    marks = Marks({f"q{n}": one for n, one in enumerate(better)})  # type: ignore[misc]
    for judged in (0, 10):
        assert decide(searched(BAD, GOOD, judged=judged), marks).verdicts[0].decision == decision
    assert decide(searched(BAD, GOOD), marks).verdicts[0].basis == "judgments"
    assert (
        "text search"
        in decide(
            searched(BAD, GOOD, judged=0, text=BAD),
            Marks({"q1": "refined"} | {f"q{n}": "refined" for n in range(2, 15)}),
        )
        .verdicts[0]
        .sentence
    )


@pytest.mark.parametrize("scheme", ["opensearch", "elasticsearch", "weaviate", "postgresql", "https", "milvus", ""])
def test_the_engines_own_query_names_its_fields_and_both_weights(scheme: str) -> None:
    address = IndexAddress(scheme, "shop", text="title") if scheme else None
    query = engine_query(address, Description("engine", "products", 9, "clip", 128, "cosine", "hnsw"), 0.8, 7)
    assert "0.2" in query
    assert ("0.8" in query) is (scheme != "weaviate"), "there alpha is the weight of vectors"
    if scheme in ("opensearch", "elasticsearch", "weaviate", "postgresql"):
        assert "title" in query
        assert "7" in query
