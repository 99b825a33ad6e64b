"""The check of all input vectors."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from .errors import InputError, VectorError
from .types import Vectors

NORM_TOLERANCE = 1e-2
"""Around norm 1. float16 vectors of real models are off by up to 1e-3; raw CLIP outputs have norms of 5 to 15."""
_SAME = 0.999
"""Cosine of one item encoded twice, at least: batches of other sizes and stores of float16 round otherwise."""


def check_vectors(
    vectors: npt.ArrayLike, dimension: int, what: str = "vectors", *, may_be_empty: bool = False
) -> Vectors:
    """Return a copy of vectors (B, D) as float32 of exactly unit norm.

    Raises:
        InputError: no vectors, unless ``may_be_empty``.
        VectorError: wrong shape or dimension, complex numbers, NaN or infinity, or norms that are not 1.

    >>> check_vectors([[0.6, 0.8]], 2).tolist() == [[0.6000000238418579, 0.800000011920929]]
    True
    """
    try:
        array = _real(vectors)
    except (TypeError, ValueError, OverflowError) as error:
        raise VectorError(f"{what} are not an array of numbers of shape (B, {dimension}): {error}") from None
    if array.size == 0 and not may_be_empty:
        raise InputError(f"no {what}: the batch is empty")
    if array.ndim != 2 or array.shape[1] != dimension:
        raise VectorError(f"{what} must have shape (B, {dimension}), got {array.shape}: is it the same encoder?")
    if array.size == 0:
        return array.copy()
    with np.errstate(over="ignore"):  # a norm of finite numbers may overflow: that is not 1 either
        norms = np.linalg.norm(array, axis=1)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise VectorError(f"{what}[{row}] holds NaN or infinity")
    worst = int(np.argmax(np.abs(norms - 1)))
    if abs(norms[worst] - 1) > NORM_TOLERANCE:
        raise VectorError(
            f"{what}[{worst}] has norm {norms[worst]:.4g}, not 1: divide each vector by its L2 norm first"
        )
    exact = np.abs(norms - 1) <= 1e-6  # a unit-norm vector stays the same, bit by bit
    return np.where(exact[:, None], array, array / norms[:, None]).astype(np.float32)


def are_same(one: Vectors, another: Vectors) -> bool:
    """Whether two unit-norm vectors (D,) are those of one item, but for rounding."""
    return bool(one @ another > _SAME)


def pack(vectors: Vectors) -> str:
    """Numbers of any shape as base64 of float32, little-endian, for JSON."""
    return base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...], what: str) -> Vectors:
    """The same numbers again, of a shape; -1 for a side that follows from the others.

    Raises:
        InputError: no base64, or of another number of bytes.

    >>> unpack(pack(np.float32([[0.5, 1], [2, 3]])), (-1, 2), "vectors").tolist()
    [[0.5, 1.0], [2.0, 3.0]]
    """
    try:
        raw = base64.b64decode(text, validate=True)
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
    except ValueError as error:
        wanted = " x ".join("B" if side < 0 else str(side) for side in shape)
        raise InputError(f"{what} must be base64 of {wanted} float32, little-endian: {error}") from None


def _real(vectors: npt.ArrayLike) -> Vectors:
    """Numbers as float32, any shape; too large ones become infinite."""
    array = np.asarray(vectors)
    if array.dtype.kind in "cSU":  # numpy would drop the imaginary part, and read texts as numbers
        raise TypeError(f"found {array.dtype.name}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, np.float32)
