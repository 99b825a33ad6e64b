"""How many threads products take: one for small batches.

A BLAS that has used several threads lets them wait actively for some 30 ms, on the cores of the next encoding.
A benchmark showed it in which a plain call follows a refinement, and the encoding of a refined one does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_ALONE = 4 * 65_536
"""Multiplications up to which OpenBLAS, which numpy's wheels bring, takes one thread for a product of two matrices."""
_SMALL = 256
"""Rows of a batch above which more threads pay."""


def multiply(x: Floats, matrix: Floats) -> Floats:
    """The product (B, M) of (B, D) and (D, M), by rows of which no block is worth a second thread.

    >>> multiply(np.ones((3, 2), np.float32), np.eye(2, dtype=np.float32)).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    rows = _ALONE // max(matrix.size, 1)
    if len(x) > _SMALL or (rows < 2 and len(x) > 1):  # two rows of a large matrix already take a second thread
        return np.asarray(x @ matrix, np.float32)
    rows = max(rows, 1)
    out = np.empty((len(x), matrix.shape[1]), np.float32)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        if len(x[block]) == 1:  # a vector by a matrix takes more threads far earlier; einsum asks no BLAS
            np.einsum("d,dm->m", x[start], matrix, out=out[start])
        else:
            np.matmul(x[block], matrix, out=out[block])
    return out
