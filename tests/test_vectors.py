"""Products by blocks equal whole ones, for every size of batch and block."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.vectors import multiply


@pytest.mark.parametrize(("rows", "columns"), [(0, 512), (1, 1), (257, 512), (600, 512)])
def test_blocks_make_the_product(rows, columns):
    rng = np.random.default_rng(rows)
    x, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, 512), (columns, 512)))
    found = multiply(x, matrix.T)
    assert (found.shape, found.dtype) == ((rows, columns), np.float32)
    np.testing.assert_allclose(found, x.astype(np.float64) @ matrix.T, rtol=0, atol=1e-4)


def test_a_row_is_nearly_the_same_whatever_stands_beside_it():
    rng = np.random.default_rng(0)
    x, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 512), (512, 128)))
    whole = multiply(x, matrix)
    for row in (0, 3, 63):
        np.testing.assert_allclose(multiply(x[row : row + 1], matrix), whole[row : row + 1], rtol=0, atol=1e-4)
