"""Nearest rows: exact in one product, and by lists."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.calibration import nearest
from reco_plugin.calibration.nearest import HELD, nearest_columns, nearest_others, nearest_to, sort_into_lists
from reco_plugin.types import Vectors

K = 11


def unit(x: Vectors) -> Vectors:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def grouped(rows: int, groups: int, spread: float) -> Vectors:
    """Rows (N, 32) around centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, 32))
    return unit(centres[rng.integers(0, groups, rows)] + spread * rng.standard_normal((rows, 32)))


@pytest.fixture
def by_lists(monkeypatch):
    monkeypatch.setattr(nearest, "BY_LISTS", 1_000)


def test_few_rows_are_compared_with_all():
    x = grouped(900, 30, 0.5)
    rows, similarity = nearest_others(x, K)
    true = x @ x.T
    np.fill_diagonal(true, -2.0)
    np.testing.assert_allclose(similarity, -np.sort(-true, axis=1)[:, :K], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), similarity, atol=1e-6)  # of another shape


def test_many_rows_are_compared_with_those_of_near_lists(monkeypatch):
    x, done = grouped(5_000, 50, 0.5), list[int]()
    true, _ = nearest_others(x, K)
    monkeypatch.setattr(nearest, "BY_LISTS", 1_000)
    rows, similarity = nearest_others(x, K, done.append, sort_into_lists(x, K))
    assert sum(done) == len(x) and len(done) > 50  # by lists
    assert np.mean([np.isin(a, b).mean() for a, b in zip(true, rows, strict=True)]) > HELD - 0.03
    assert (rows != np.arange(len(x))[:, None]).all()
    assert all(len(set(row.tolist())) == K for row in rows)
    np.testing.assert_allclose(np.einsum("nd,nkd->nk", x, x[rows]), similarity, atol=1e-5)
    assert (np.diff(similarity, axis=1) <= 0).all()
    again, _ = nearest_others(x, K, lists=sort_into_lists(x, K))
    np.testing.assert_array_equal(rows, again)


def test_other_rows_find_the_nearest_of_near_lists(by_lists):
    x = grouped(6_000, 50, 0.5)
    x, y = x[:5_000], x[5_000:]
    lists = sort_into_lists(x, K)
    assert lists is not None
    true, near = nearest_to(y, x, K)
    np.testing.assert_allclose(near, -np.sort(-(y @ x.T), axis=1)[:, :K], atol=1e-5)
    done = list[int]()
    rows, similarity = nearest_to(y, x, K, done.append, lists)
    assert sum(done) == len(y) and len(done) > 10  # by lists
    assert np.mean([np.isin(a, b).mean() for a, b in zip(true, rows, strict=True)]) > HELD - 0.03
    np.testing.assert_allclose(np.einsum("nd,nkd->nk", y, x[rows]), similarity, atol=1e-5)
    assert nearest_to(y[:0], x, K, lists=lists)[0].shape == (0, K)


def test_rare_rows_far_from_all_others_find_the_nearest_of_those(by_lists):
    values = unit(np.random.default_rng(0).standard_normal((60, 64)))
    x = np.repeat(values, [100] * 20 + [2] * 40, axis=0)[np.random.default_rng(1).permutation(2_080)]
    done = list[int]()
    rows, similarity = nearest_others(x, K, done.append, sort_into_lists(x, K))
    assert sum(done) == len(x) and len(done) > 10  # by lists
    assert (rows != np.arange(len(x))[:, None]).all()
    assert (similarity > -1.0).all()
    true = x @ x.T
    np.fill_diagonal(true, -2.0)
    assert np.mean(np.abs(similarity + np.sort(-true, axis=1)[:, :K]) < 1e-5) > HELD


@pytest.mark.parametrize("kind", ["no lists in them", "all equal", "two values"])
def test_rows_that_fall_into_no_lists_are_compared_with_all(kind, by_lists):
    x = unit(np.random.default_rng(0).standard_normal((2_000, 128)))
    if kind != "no lists in them":
        x = x[np.arange(2_000) % (1 if kind == "all equal" else 2)]
    rows, similarity = nearest_others(x, K, lists=sort_into_lists(x, K))
    true = x @ x.T
    np.fill_diagonal(true, -2.0)
    np.testing.assert_allclose(similarity, -np.sort(-true, axis=1)[:, :K], atol=1e-6)
    assert (rows != np.arange(len(x))[:, None]).all()


@pytest.mark.parametrize("columns", [1_999, 2_000, 50_111])
def test_the_nearest_of_a_long_row_are_those_of_a_full_sort(columns):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((3, columns)).astype(np.float32)
    scores[0, 500:540] = 9.0  # more equal ones than are asked for, in one block
    scores[1, -3:] = (7.0, 8.0, 6.0)  # behind the last whole block
    scores[2] = -2.0
    rows, best = nearest_columns(scores, 11)
    np.testing.assert_array_equal(best, -np.sort(-scores, axis=1)[:, :11])
    np.testing.assert_array_equal(np.take_along_axis(scores, rows, axis=1), best)
    assert all(len(set(row.tolist())) == 11 for row in rows)
    assert rows[1, :3].tolist() == [columns - 2, columns - 3, columns - 1]
