"""What is measured between a graph and torch, on vectors that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.errors import ArtifactError
from reco_plugin.export.parity import BOUNDS, Parity, check, compare, overlap

pytestmark = pytest.mark.slow

SQUARE = np.float32([[1, 0], [0.6, 0.8], [0, 1], [-0.8, 0.6], [-1, 0]])  # each is nearest to its neighbours in the list


def unit(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_the_worst_input_counts() -> None:
    found = SQUARE.copy()
    found[1] = [0.8, 0.6]  # cosine 0.6 * 0.8 + 0.8 * 0.6 = 0.96
    parity = compare("clip_image", SQUARE, found, size_bytes=7)
    assert parity.least_cosine == pytest.approx(0.96) and parity.largest_difference == pytest.approx(0.2)
    assert (parity.graph, parity.inputs, parity.size_bytes) == ("clip_image", 5, 7)
    assert compare("x", SQUARE, found, difference=0.5).largest_difference == 0.5


def test_overlap_by_hand() -> None:
    assert overlap(SQUARE, SQUARE, nearest=2) == 1
    found = SQUARE.copy()
    found[0] = [-1, 0]  # found its two nearest in 1 and 2, now they are 4 and 3
    assert overlap(SQUARE, found, nearest=2) == pytest.approx(4 / 5)


def test_ties_count_as_found() -> None:
    twins = np.repeat(unit(2, 8), 6, axis=0)  # five of six are equally near, whichever come first
    noisy = twins + 1e-8 * unit(12, 8, seed=2)
    assert overlap(twins, noisy, nearest=3) == 1


@pytest.mark.parametrize(("cosine", "share"), [(0.9, 1.0), (1.0, 0.5), (float("nan"), 1.0)], ids=str)
def test_each_measure_can_refuse(cosine: float, share: float) -> None:
    check(Parity("clip_text", 48, BOUNDS["fp16"].cosine, BOUNDS["fp16"].overlap, 0.0, 0), "fp16")
    with pytest.raises(ArtifactError, match="clip_text in fp16"):
        check(Parity("clip_text", 48, cosine, share, 0.0, 0), "fp16")
