"""Ranks among candidates in blocks: the same as with all similarities at once, and never many of them in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import InputError
from reco_plugin.evaluate import Blocks, rank_blocks, ranking, ranks
from reco_plugin.evaluate.ranking import TIE


def unit(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def full_sort(queries: np.ndarray, candidates: np.ndarray, labels: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """(B, k) hits from one sort of all similarities; a wrong candidate within TIE comes before a true one."""
    true = labels[:, None] == own[None]
    similarity = queries @ candidates.T
    order = np.lexsort((true, -np.where(true, similarity - np.float32(TIE), similarity)))
    hits = np.take_along_axis(true, order, 1)[:, :k]
    return np.pad(hits, ((0, 0), (0, k - hits.shape[1])))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 40), st.integers(1, 45), st.integers(1, 12), st.booleans(), st.integers(0, 999)
)
def test_blocks_agree_with_everything_at_once(
    rows: int, total: int, size: int, k: int, several: bool, seed: int
) -> None:
    """Few dimensions and doubled candidates, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    queries, candidates = unit(rows, 3, seed), unit(total, 3, seed + 1)
    candidates[rng.integers(0, total, total // 3)] = candidates[0]
    own = rng.integers(0, 5, total) if several else np.arange(total)
    labels = own[rng.integers(0, total, rows)]
    found = rank_blocks(queries, Blocks(candidates, size), labels, own if several else None, k=k)
    np.testing.assert_array_equal(found.ranks, ranks(queries, candidates, labels, own))
    np.testing.assert_array_equal(found.hits, full_sort(queries, candidates, labels, own, k))
    np.testing.assert_array_equal(found.relevant, (labels[:, None] == own).sum(axis=1))
    shown = found.nearest >= 0
    assert shown.sum(axis=1).tolist() == [min(k, total)] * rows
    np.testing.assert_array_equal(found.hits[shown], (own[found.nearest] == labels[:, None])[shown])
    first = np.where(found.hits.any(axis=1), found.hits.argmax(axis=1), found.ranks)
    np.testing.assert_array_equal(first, found.ranks)


def test_small_steps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates, labels = unit(50, 8, 0), unit(20, 8, 1), np.random.default_rng(2).integers(0, 20, 50)
    whole = rank_blocks(queries, [candidates], labels, k=3)
    monkeypatch.setattr(ranking, "_BLOCK", 60)
    small = rank_blocks(queries, [candidates[:7], candidates[7:]], labels, k=3)
    np.testing.assert_array_equal(small.ranks, whole.ranks)
    np.testing.assert_array_equal(small.nearest, whole.nearest)


def test_without_the_nearest_the_ranks_are_the_same() -> None:
    queries, candidates, labels = unit(50, 8, 0), unit(20, 8, 1), np.random.default_rng(2).integers(0, 20, 50)
    found = rank_blocks(queries, Blocks(candidates, 7), labels, k=0)
    np.testing.assert_array_equal(found.ranks, ranks(queries, candidates, labels))
    assert found.nearest.shape == found.hits.shape == (50, 0)


def test_ties_count_against_us_across_blocks() -> None:
    same = np.tile(np.float32([[0.6, 0.8]]), (4, 1))
    found = rank_blocks(same, Blocks(same, 1), np.arange(4), k=4)
    assert found.ranks.tolist() == [3, 3, 3, 3]
    assert found.hits.tolist() == [[False, False, False, True]] * 4


class Counted:
    """Blocks that are made when they are asked for; the largest number alive at a time is known."""

    def __init__(self, blocks: int, rows: int, dimension: int) -> None:
        self.blocks, self.rows, self.dimension = blocks, rows, dimension

    def __iter__(self) -> Iterator[np.ndarray]:
        return (unit(self.rows, self.dimension, seed) for seed in range(self.blocks))


def test_memory_does_not_grow_with_the_candidates() -> None:
    """100,000 candidates of 64 dimensions are 24 MiB, and 40 queries' similarities to all of them 15 MiB."""
    peaks = []
    queries = unit(40, 64, 99)
    for blocks in (10, 100):
        tracemalloc.start()
        rank_blocks(queries, Counted(blocks, 1000, 64), np.arange(40), k=5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 4 << 20
    assert peaks[1] < 1.2 * peaks[0]


def test_candidates_may_be_a_half_precision_file(tmp_path: Path) -> None:
    candidates, labels = unit(300, 32, 1), np.arange(0, 300, 7)
    queries = unit(len(labels), 32, 3) * 0.2 + candidates[labels]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    np.save(tmp_path / "names.npy", candidates.astype(np.float16))
    mapped = Blocks(np.load(tmp_path / "names.npy", mmap_mode="r"), 64)
    found = rank_blocks(queries, mapped, labels)
    np.testing.assert_array_equal(found.ranks, ranks(queries, candidates, labels))
    for block in mapped:
        assert block.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("blocks", "labels", "own", "k", "message"),
    [
        ([unit(3, 4, 0)], [0, 3], None, 5, "query 1 has label 3, which no candidate has"),
        ([unit(3, 5, 0)], [0, 1], None, 5, r"candidate blocks \(c, 4\) expected, got \(3, 5\)"),
        ([unit(3, 4, 0)], [0], None, 5, "expected, got"),
        ([unit(3, 4, 0)], [0, 1], None, -1, "k from 0 expected"),
        ([unit(3, 4, 0)], [0, 1], [0, 1], 5, "more candidates than candidate labels: 3 > 2"),
        ([unit(3, 4, 0)], [0, 1], [0, 1, 2, 3], 5, "fewer candidates than candidate labels: 3 < 4"),
        (iter([unit(3, 4, 0)]), [0, 1], None, 5, "read twice"),
        ([], [0, 1], None, 5, "query 0 has label 0, which no candidate has"),
    ],
)
def test_what_does_not_fit_is_refused(blocks, labels, own, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_blocks(unit(2, 4, 1), blocks, np.array(labels), None if own is None else np.array(own), k=k)
