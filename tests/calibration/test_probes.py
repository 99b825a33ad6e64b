"""Nearest rows among very many, and searches of pairs in RAM."""

from __future__ import annotations

import tracemalloc
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pytest
from trust_worlds import D, world

from reco_plugin.calibration import learn as learning
from reco_plugin.calibration import probes
from reco_plugin.calibration.in_ram import PairsInRam
from reco_plugin.calibration.learn import learn
from reco_plugin.calibration.match import MatchState, read_matches
from reco_plugin.calibration.nearest import Lists, nearest_others, nearest_to
from reco_plugin.calibration.probes import (
    HELD,
    KEPT,
    Probes,
    nearest_by_each,
    nearest_others_of,
    nearest_rows_to,
    probe,
    sort_rows,
)
from reco_plugin.machine.blas import one_thread_each
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import MODALITIES, Modality, Records, Search, Vectors, other

K = 11


def unit(x: npt.NDArray[np.float64]) -> Vectors:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def rows() -> Vectors:
    """3,500 rows (N, 64) of groups, the first one 300 times more."""
    rng = np.random.default_rng(0)
    centres, scale = rng.standard_normal((120, 64)), 1.0 / np.arange(1, 65)
    x = unit((centres[rng.integers(0, 120, 3_500)] + 0.7 * rng.standard_normal((3_500, 64))) * scale)
    return np.concatenate([x, np.repeat(x[:1], 300, axis=0)])


@pytest.fixture(scope="module")
def sorted_rows(rows: Vectors) -> Probes:
    return probe(rows, K)


def held(true: Vectors, similarity: Vectors) -> float:
    """Share of the neighbours that are as near as the true ones."""
    return float((similarity >= true[:, -1:] - 1e-5).mean())


def test_rows_find_nearly_all_of_their_nearest_others(rows: Vectors, sorted_rows: Probes) -> None:
    done = list[int]()
    found, similarity = sorted_rows.nearest(rows, K, done.append, others=True, chunk=1_000)
    assert done == [1_000, 1_000, 1_000, 800]
    assert sorted_rows.looked < len(sorted_rows.centres) / 2
    assert sorted_rows.axes.shape[1] < rows.shape[1], "fewer dimensions are enough"
    assert (found != np.arange(len(rows))[:, None]).all()
    assert all(len(set(row)) == K for row in found.tolist())
    np.testing.assert_allclose(np.einsum("nd,nkd->nk", rows, rows[found]), similarity, atol=1e-5)
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert held(nearest_others(rows, K)[1], similarity) > HELD * KEPT - 0.01


def test_other_rows_find_nearly_all_of_their_nearest(rows: Vectors) -> None:
    y, x = rows[:200], rows[200:]
    found, similarity = probe(x, K).nearest(y, K, int, others=False)
    np.testing.assert_allclose(np.einsum("nd,nkd->nk", y, x[found]), similarity, atol=1e-5)
    assert held(nearest_to(y, x, K)[1], similarity) > HELD * KEPT - 0.02


def test_the_same_rows_find_the_same(rows: Vectors, sorted_rows: Probes) -> None:
    again = probe(rows, K)
    for one, two in zip(*(p.nearest(rows, K, int, others=True) for p in (sorted_rows, again)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_rows_find_takes_as_much_ram_as_so_many_at_a_time_need(rows: Vectors, sorted_rows: Probes) -> None:
    peaks = list[int]()
    for chunk in (800, 80):
        tracemalloc.start()
        try:
            sorted_rows.nearest(rows[:800], K, int, others=True, chunk=chunk)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] / 2


def test_rare_rows_far_from_all_others_find_some() -> None:
    values = unit(np.random.default_rng(0).standard_normal((60, 64)))
    x = np.repeat(values, [100] * 20 + [2] * 40, axis=0)[np.random.default_rng(1).permutation(2_080)]
    found, similarity = probe(x, K).nearest(x, K, int, others=True)
    assert (found != np.arange(len(x))[:, None]).all()
    assert all(len(set(row)) == K for row in found.tolist())
    assert held(nearest_others(x, K)[1], similarity) > 0.95


@pytest.mark.parametrize("values", [1, 2])
def test_equal_rows_find_equal_ones(values: int) -> None:
    x = unit(np.random.default_rng(0).standard_normal((values, 64)))[np.arange(2_000) % values]
    found, similarity = probe(x, K).nearest(x, K, int, others=True)
    assert (found != np.arange(len(x))[:, None]).all()
    np.testing.assert_allclose(similarity, 1.0, atol=1e-5)


def test_only_very_many_rows_are_probed(rows: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sort_rows(rows, K) is None
    np.testing.assert_array_equal(nearest_others_of(rows[:300], K, int, None)[0], nearest_others(rows[:300], K)[0])
    monkeypatch.setattr(probes, "MANY", 1_000)
    lists = sort_rows(rows, K)
    assert isinstance(lists, Probes) and not isinstance(lists, Lists)
    assert nearest_others_of(rows, K, int, lists)[0].shape == (len(rows), K)
    assert nearest_rows_to(rows[:0], rows, K, int, lists)[0].shape == (0, K)


@one_thread_each()  # as those who learn call it
def test_both_modalities_find_at_a_time_what_each_finds(rows: Vectors, sorted_rows: Probes) -> None:
    sides: dict[Modality, Vectors] = {"image": rows, "text": rows[::-1].copy()}
    lists = {"image": sorted_rows, "text": probe(sides["text"], K)}
    done = list[int]()
    found = nearest_by_each(sides, sides, K, done.append, lists, others=True)
    beside = nearest_by_each({m: x[:70] for m, x in sides.items()}, sides, K, int, lists, others=False)
    assert sum(done) == 2 * len(rows)
    for m in MODALITIES:
        for one, two in zip(found[m], lists[m].nearest(sides[m], K, int, others=True), strict=True):
            np.testing.assert_array_equal(one, two)
        for one, two in zip(beside[m], nearest_rows_to(sides[m][:70], sides[m], K, int, lists[m]), strict=True):
            np.testing.assert_array_equal(one, two)
    some = nearest_by_each(sides, sides, K, int, {"image": None, "text": lists["text"]}, others=True)
    np.testing.assert_array_equal(some["image"][0], nearest_others(rows, K)[0])
    np.testing.assert_array_equal(some["text"][0], found["text"][0])


def test_pairs_in_ram_find_what_a_store_finds() -> None:
    image, text, _ = world(40, 4)
    ids, rng = [f"pair {row}" for row in range(len(image))], np.random.default_rng(0)
    pairs, witnesses = Records(ids, image, text, [{}] * len(ids)), rng.standard_normal((len(ids), 3)).astype(np.float32)
    store = open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))
    store.upsert(pairs)
    store.set_witnesses(ids, witnesses)
    hidden: list[Collection[str]] = [ids[row : row + 3] if row % 2 else [] for row in range(20)]
    for m in MODALITIES:
        wanted = Search(pairs.side(m)[:20], m, other(m), 5, hidden, witnesses=True)
        one, two = (searches.search(wanted) for searches in (store, PairsInRam(store.header, pairs, witnesses)))
        assert one.ids == two.ids
        np.testing.assert_allclose(one.similarity, two.similarity, atol=1e-6)
        np.testing.assert_array_equal(one.vectors, two.vectors)
        np.testing.assert_array_equal(one.witnesses, two.witnesses)
        np.testing.assert_array_equal(one.found, two.found)
    few = PairsInRam(store.header, pairs.take(np.arange(2)), witnesses[:2])
    found = few.search(Search(image[:2], "image", "text", 5, [ids[:1], []], ids=False))
    assert found.found.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("many", [10_000, 100])
def test_questions_are_answered_in_ram_as_by_the_store(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    image, text, _ = world(100, 3)
    ids, known = [f"pair {row:04d}" for row in range(len(image))], list[MatchState]()
    for in_ram in (False, True):
        store = open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))
        monkeypatch.setattr(learning, "MANY", many if in_ram else 10_000)
        monkeypatch.setattr(learning, "PairsInRam", PairsInRam if in_ram else lambda *_, store=store: store)
        store.upsert(Records(ids, image, text, [{}] * len(ids)))
        assert learn(store, 5) is not None
        found = read_matches(store.header.calibration)
        assert found is not None
        known.append(found)
    for m in MODALITIES:
        for kind, questions in known[0].questions[m].items():
            np.testing.assert_array_equal(questions.place, known[1].questions[m][kind].place)
            np.testing.assert_allclose(questions.present, known[1].questions[m][kind].present, atol=2e-3)
