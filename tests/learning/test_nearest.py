"""Nearest rows, by products."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.learning import nearest
from reco_plugin.learning.nearest import nearest_rows
from reco_plugin.types import Vectors

K = 11


def unit(x: Vectors) -> Vectors:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def grouped(rows: int, groups: int, spread: float) -> Vectors:
    """Rows (N, 32) around centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((groups, 32))
    return unit(centres[rng.integers(0, groups, rows)] + spread * rng.standard_normal((rows, 32)))


@pytest.mark.parametrize("numbers", [nearest.NUMBERS, 50_000])
def test_rows_find_the_nearest_others_and_those_of_other_rows(monkeypatch, numbers):
    monkeypatch.setattr(nearest, "NUMBERS", numbers)  # blocks of all, or of 55 rows
    x, y, done = grouped(900, 30, 0.5), grouped(950, 40, 0.5)[900:], list[int]()
    rows, similarity = nearest_rows(x, x, K, done.append, others=True)
    true = x @ x.T
    np.fill_diagonal(true, -2.0)
    np.testing.assert_allclose(similarity, -np.sort(-true, axis=1)[:, :K], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), similarity, atol=1e-6)  # of another shape
    assert sum(done) == len(x)
    rows, similarity = nearest_rows(y, x, K)
    np.testing.assert_allclose(similarity, -np.sort(-(y @ x.T), axis=1)[:, :K], atol=1e-6)
    np.testing.assert_allclose(np.einsum("nd,nkd->nk", y, x[rows]), similarity, atol=1e-5)
    assert nearest_rows(y[:0], x, K)[0].shape == (0, K)
