"""The one check of vectors that come from outside."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.errors import InputError, VectorError
from reco_plugin.values import check_vectors

D = 16


def unit(rows: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float16, list])
def test_other_kinds_of_numbers_become_float32_of_unit_norm(kind):
    given = unit(20).tolist() if kind is list else unit(20).astype(kind)
    checked = check_vectors(given, D)
    assert (checked.dtype, checked.shape) == (np.float32, (20, D))
    assert np.allclose(np.linalg.norm(checked, axis=1), 1, atol=2e-7)
    assert np.allclose(checked, unit(20), atol=1e-3)


def test_only_rows_that_are_off_are_scaled_and_in_a_copy():
    given = unit(500)
    given[1] *= 1.005
    before, checked = given.copy(), check_vectors(given, D)
    assert np.array_equal(given, before)
    assert np.delete(checked, 1, 0).tobytes() == np.delete(given, 1, 0).tobytes()
    assert abs(np.linalg.norm(checked[1]) - 1) < 2e-7


def test_another_shape_and_what_is_not_finite_are_named():
    with pytest.raises(VectorError, match=rf"\(B, {D}\), got \(2, {D + 1}\)"):
        check_vectors(np.ones((2, D + 1)), D)
    given = unit(4)
    given[2, 5] = np.inf
    with pytest.raises(VectorError, match=r"queries\[2\] holds NaN or infinity"):
        check_vectors(given, D, "queries")


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_another_norm_names_row_and_norm(factor):
    given = unit(4)
    given[3] *= np.float32(factor)
    with pytest.raises(VectorError, match=rf"vectors\[3\] has norm {factor:.4g}"):
        check_vectors(given, D)


def test_nothing_is_an_empty_batch():
    with pytest.raises(InputError, match="empty"):
        check_vectors([], D)


class NeedsGradient:
    """As a tensor of torch that needs one."""

    def __array__(self, *_args: object, **_keywords: object) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    "given",
    ["text", [[0.6, 0.8], [1.0]], np.ones((1, 2), "m8[s]"), NeedsGradient()],
)
def test_what_is_no_array_of_numbers(given):
    with pytest.raises(VectorError):
        check_vectors(given, 2)
