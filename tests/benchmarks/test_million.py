"""The benchmark of a large memory, with a small one: it kills, resumes, checks and compares for real."""

from __future__ import annotations

import re

import pytest

from benchmarks.million import table
from benchmarks.million.process import QUERIES, check, fill, opened
from benchmarks.million.run import Run, results
from benchmarks.million.swap import SMALL
from benchmarks.synthetic import Synthetic

PAIRS, DIMENSION = 4000, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("million")
    Run(PAIRS, DIMENSION, folder / f"{PAIRS}x{DIMENSION}", lambda line: None).measure(index=False)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return results(folder / f"{PAIRS}x{DIMENSION}")


def test_nothing_is_lost_of_what_edge_confirmed(found) -> None:
    facts = found["edge fill"]
    assert facts["killed_at"] >= 0.6 * PAIRS and facts["rows"] == PAIRS
    assert facts["lost"] <= 0  # it may have written more before it was hit
    assert facts["written"] == PAIRS - facts["resumed"]


def test_the_reference_goes_on_from_what_its_file_holds(found) -> None:
    facts = found["exact fill"]
    assert facts["resumed"] in range(2000, PAIRS + 1, 1000)  # written at 1000, 2000, 3000 ...
    assert facts["lost"] == facts["killed_at"] - facts["resumed"]


@pytest.mark.parametrize("kind", ["exact", "edge"])
def test_all_pairs_are_there_after_resuming(found, kind: str) -> None:
    assert found[f"{kind} check"]["equal"] is True
    assert found[f"{kind} check"]["pairs"] == PAIRS


def test_edge_finds_what_the_reference_finds(found) -> None:
    assert len(found["edge ask"]["found"]) == QUERIES
    assert table.recall(found["edge ask"]["found"], found["exact ask"]["found"]) == pytest.approx(1, abs=1e-3)


def test_a_step_that_was_measured_is_not_repeated(folder) -> None:
    said: list[str] = []
    Run(PAIRS, DIMENSION, folder / f"{PAIRS}x{DIMENSION}", said.append).measure(index=False)
    assert said == []


@pytest.mark.parametrize("kind", ["exact", "edge"])
def test_a_swap_changes_what_the_name_stands_for_and_no_answer_under_way(found, kind: str) -> None:
    facts = found[f"{kind} swap"]
    assert (facts["after"], facts["after_rollback"]) == (PAIRS, SMALL)
    assert facts["asked"] > 0 and facts["failed"] == 0


def test_the_page_has_every_table(folder) -> None:
    page = table.page(
        "<!-- GEOMETRY -->|<!-- WRITING -->\n<!-- SEARCHING -->\n<!-- INDEXING --><!-- SWAPPING -->", folder, "same"
    )
    assert page.startswith("same|") and "<!--" not in page
    assert len(re.findall(r"^\| Qdrant Edge \| 4,000 \| 16 ", page, re.MULTILINE)) == 3
    assert "all equal" in page and "The index was not built." in page


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_wrong_memory_is_noticed(tmp_path, harm: str) -> None:
    catalogue, told = Synthetic(2000, DIMENSION), dict[str, object]()
    store = opened("exact", tmp_path, DIMENSION)
    fill(store, catalogue, lambda **facts: None)
    check(store, catalogue, lambda **facts: told.update(facts))
    assert told["equal"] is True
    if harm == "missing":
        store.delete(["pair-000000007"])
    else:
        pair = next(store.scroll(ids=["pair-000000007"]))
        store.upsert(type(pair)(pair.ids, pair.text, pair.image, pair.payloads))
    check(store, catalogue, lambda **facts: told.update(facts))
    assert told["equal"] is False
    store.close()


def test_recall_is_the_share_of_the_right_ones() -> None:
    assert table.recall([["a", "b"], ["c", "x"]], [["b", "a"], ["c", "d"]]) == 0.75
