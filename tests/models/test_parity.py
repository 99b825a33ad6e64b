"""What is measured between a graph and torch, on vectors that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.errors import ArtifactError
from reco_plugin.models.parity import BOUNDS, Parity, check, compare, overlap, table

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


def test_length_is_not_compared() -> None:
    assert compare("x", SQUARE, 3 * SQUARE).least_cosine == pytest.approx(1)


def test_overlap_by_hand() -> None:
    assert overlap(SQUARE, SQUARE, nearest=2) == 1
    found = SQUARE.copy()
    found[0] = [-1, 0]  # found its two nearest in 1 and 2, now they are 4 and 3
    assert overlap(SQUARE, found, nearest=2) == pytest.approx(4 / 5)


def test_overlap_equals_a_search_that_is_written_out() -> None:
    index, found = unit(40, 6), unit(40, 6)
    found += 0.3 * unit(40, 6, seed=1)
    shares = []
    for row in range(40):
        others = [i for i in range(40) if i != row]
        true = set(sorted(others, key=lambda i: -float(index[row] @ index[i]))[:10])
        seen = set(sorted(others, key=lambda i: -float(found[row] @ index[i]))[:10])
        shares.append(len(true & seen) / 10)
    assert 0.5 < np.mean(shares) < 1
    assert overlap(index, found) == pytest.approx(np.mean(shares))


def test_ties_count_as_found() -> None:
    twins = np.repeat(unit(2, 8), 6, axis=0)  # five of six are equally near, whichever come first
    noisy = twins + 1e-8 * unit(12, 8, seed=2)
    assert overlap(twins, noisy, nearest=3) == 1


def test_with_nothing_to_choose_from_all_is_found() -> None:
    assert overlap(SQUARE[:1], -SQUARE[:1]) == 1
    assert overlap(SQUARE, -SQUARE) == 1  # the ten nearest of four others


@pytest.mark.parametrize(
    ("cosine", "share"), [(0.9, 1.0), (1.0, 0.5), (float("nan"), 1.0), (1.0, float("nan"))], ids=str
)
@pytest.mark.parametrize("precision", BOUNDS)
def test_each_measure_can_refuse(cosine: float, share: float, precision: str) -> None:
    with pytest.raises(ArtifactError, match=rf"clip_text in {precision} .*cosine .*allowed .*overlap .*Nothing was"):
        check(Parity("clip_text", 48, cosine, share, 0.0, 0), precision)  # type: ignore[arg-type]


def test_bounds_are_met_by_what_equals_them_and_loosen_with_the_precision() -> None:
    for precision, bounds in BOUNDS.items():
        check(Parity("clip_text", 48, bounds.cosine, bounds.overlap, 0.0, 0), precision)
    fp32, fp16, int8 = (BOUNDS[precision] for precision in ("fp32", "fp16", "int8"))
    assert fp32.cosine > fp16.cosine > int8.cosine and fp32.overlap > fp16.overlap > int8.overlap


def test_the_table_is_aligned() -> None:
    lines = table([Parity("clip_image", 48, 0.9, 1.0, 3e-4, 351_000_000), Parity("paper_text", 64, 1.0, 0.5, 0.0, 1)])
    assert len({len(line) for line in lines}) == 1 and "351.0" in lines[1]
