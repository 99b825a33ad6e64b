"""The benchmark of a large memory, with a small one: it kills, resumes, checks and compares for real."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from benchmarks.page import filled
from benchmarks.scale.__main__ import PAGE, recall, tables
from benchmarks.scale.process import QUERIES, SEARCHES, check, fill, learn_from, opened
from benchmarks.scale.run import Run, results
from benchmarks.synthetic import Synthetic

PAIRS, DIMENSION = 4000, 16
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    Run(PAIRS, DIMENSION, folder / f"{PAIRS}x{DIMENSION}", lambda line: None).measure(graph=False)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return results(folder / f"{PAIRS}x{DIMENSION}")


def test_nothing_is_lost_of_what_edge_confirmed(found) -> None:
    facts = found["fill all pairs"]
    assert facts["killed_at"] >= 0.6 * PAIRS and facts["rows"] == PAIRS
    assert facts["lost"] <= 0  # it may have written more before it was hit
    assert facts["written"] == PAIRS - facts["resumed"]


def test_the_reference_goes_on_from_what_its_file_holds(found) -> None:
    facts = found["fill reference"]
    assert facts["resumed"] in range(2000, PAIRS + 1, 1000)  # written at 1000, 2000, 3000 ...
    assert facts["lost"] == facts["killed_at"] - facts["resumed"]


@pytest.mark.parametrize("way", ["reference", "all pairs"])
def test_all_pairs_are_there_after_resuming(found, way: str) -> None:
    assert found[f"check {way}"]["equal"] is True
    assert found[f"check {way}"]["pairs"] == PAIRS


def test_edge_finds_what_the_reference_finds(found) -> None:
    for search in SEARCHES:
        asked, truth = (found[f"ask {way}"][search]["found"] for way in ("all pairs", "reference"))
        assert len(asked) == QUERIES and recall(asked, truth) == pytest.approx(1, abs=1e-3)


def test_a_step_that_was_measured_is_not_repeated(folder) -> None:
    said: list[str] = []
    Run(PAIRS, DIMENSION, folder / f"{PAIRS}x{DIMENSION}", said.append).measure(graph=False)
    assert said == []


def test_the_search_index_finds_nearly_all(found) -> None:
    for search in SEARCHES:
        asked = found["ask search index"][search]["found"]
        assert recall(asked, found["ask reference"][search]["found"]) > 0.9, search


def test_learning_judges_every_pair_after_there_is_a_state(found) -> None:
    facts = found["learn all pairs"]
    assert facts["left"] == 0 and 0 < facts["state_s"] <= facts["judged_s"] and facts["state_cpu_s"] > 0


def test_what_a_run_that_was_cut_off_left_is_not_measured(tmp_path) -> None:
    catalogue = Synthetic(2000, DIMENSION)
    with closing(opened("reference", tmp_path, DIMENSION)) as store:
        fill(store, catalogue, lambda **facts: None)
        store.set_witnesses(["pair-000000007"], np.zeros((1, 3), np.float32))
        with pytest.raises(RuntimeError, match="judged before"):
            learn_from(store, catalogue, lambda **facts: None)


def test_there_is_a_table_for_every_block_of_the_page(folder) -> None:
    made = tables(folder)
    filled((ROOT / PAGE).read_text("utf-8"), made)
    assert len(re.findall(r"(?m)^\| 4,000 \| 16 \| (search index|all pairs|reference) ", made["searching"])) == 12
    assert made["writing"].count("all equal") == 2 and "| 4,000 | 16 | search index |" in made["indexing"]
    assert made["learning"].count("| 4,000 | 16 |") == 1


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_wrong_memory_is_noticed(tmp_path, harm: str) -> None:
    catalogue, told = Synthetic(2000, DIMENSION), dict[str, object]()
    store = opened("reference", tmp_path, DIMENSION)
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
    assert recall([["a", "b"], ["c", "x"]], [["b", "a"], ["c", "d"]]) == 0.75
