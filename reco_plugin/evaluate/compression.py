"""What compressed indexes lose: vectors as an index of fewer bits sees them, by the usual ways.

Every way here is asymmetric: the query stays whole, and each stored vector is what its code stands for, so a score is
an ordinary dot product. Graphs and lists that an engine searches by may lose more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..calibration.nearest import nearest_columns
from ..types import Vectors

Compression: TypeAlias = Literal["int8", "4 bit", "PQ", "1 bit"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)
"""A byte a number; half a byte; a byte for 16 numbers (product quantisation); a bit a number (as RaBitQ, BBQ)."""
RESCORED = 3
"""Times as many results as wanted that an index fetches to compare them by whole vectors."""
LEARNS_WELL = 10_000
"""Vectors from which the centres of PQ stand for more than the vectors that they were learned from."""
_LEARNED, _ROUNDS, _CODES = 10_000, 8, 256
_WIDTH = 16  # numbers that a byte of PQ stands for
_BLOCK, _ASKED = 4096, 256
_Found: TypeAlias = npt.NDArray[np.intp]


def compress(vectors: Vectors, way: Compression, *, seed: int = 0) -> Vectors:
    """Vectors (N, D) as an index sees them that was compressed so, (N, D).

    int8 and 4 bit: each dimension in steps from its lowest to its highest value. PQ: parts of 16 numbers, each the
    nearest of 256 centres learned from the vectors (Jégou, Douze and Schmid, Product quantization for nearest neighbor
    search, TPAMI 2011). 1 bit: signs after a random rotation, scaled so that a score is unbiased (Gao and Long, RaBitQ,
    SIGMOD 2024).

    >>> some = np.float32([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    >>> bool(abs(compress(some, "int8") - some).max() < 0.003), compress(some, "PQ").shape
    (True, (3, 2))
    """
    ways: Mapping[Compression, Callable[[], Vectors]] = {
        "int8": lambda: _in_steps(vectors, 255),
        "4 bit": lambda: _in_steps(vectors, 15),
        "PQ": lambda: _by_products(vectors, np.random.default_rng(seed)),
        "1 bit": lambda: _by_signs(vectors, np.random.default_rng(seed)),
    }
    return ways[way]()


def _in_steps(vectors: Vectors, steps: int) -> Vectors:
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    step = np.maximum((high - low) / steps, np.float32(1e-12))
    return np.asarray(low + np.rint((vectors - low) / step) * step, np.float32)


def _by_products(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    seen = np.empty_like(vectors)
    some = rng.permutation(len(vectors))[:_LEARNED]
    for start in range(0, vectors.shape[1], _WIDTH):
        part = np.ascontiguousarray(vectors[:, start : start + _WIDTH])
        centres = _centres(part[some], rng)
        seen[:, start : start + _WIDTH] = centres[_nearest(part, centres)]
    return seen


def _centres(part: Vectors, rng: np.random.Generator) -> Vectors:
    """Centres (K, d) of rows (N, d), by Lloyd's rounds; an empty one takes a row."""
    centres = part[rng.permutation(len(part))[:_CODES]].copy()
    for _ in range(_ROUNDS):
        code = _nearest(part, centres)
        count = np.bincount(code, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, code, part)
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres).astype(np.float32)
        empty = np.flatnonzero(count == 0)
        centres[empty] = part[rng.integers(len(part), size=len(empty))]
    return centres


def _nearest(part: Vectors, centres: Vectors) -> npt.NDArray[np.intp]:
    half = np.square(centres).sum(axis=1) / 2
    blocks = range(0, len(part), _BLOCK)
    return np.concatenate([(part[at : at + _BLOCK] @ centres.T - half).argmax(axis=1) for at in blocks])


def _by_signs(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    d = vectors.shape[1]
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0].astype(np.float32)
    mean = vectors.mean(axis=0)
    away = vectors - mean
    length = np.linalg.norm(away, axis=1, keepdims=True)
    turned = away @ turn
    signs = np.where(turned >= 0, np.float32(1.0), np.float32(-1.0)) / np.float32(np.sqrt(d))
    along = np.einsum("nd,nd->n", signs, turned)[:, None] / np.maximum(length, 1e-12)  # cosine of code and vector
    return np.asarray(mean + length * (signs @ turn.T) / np.maximum(along, 1e-6), np.float32)


@dataclass(frozen=True)
class Kept:
    """What a compressed index finds, of B queries.

    Attributes:
        found: (B, k) rows, best first, by the compressed vectors.
        rescored: (B, k) likewise, of three times as many, compared by whole vectors.
    """

    found: _Found
    rescored: _Found


def search(queries: Vectors, vectors: Vectors, seen: Vectors | None, k: int) -> Kept:
    """Search by B queries (B, D) in vectors (N, D) as an index sees them (N, D); None: whole ones."""
    parts = [
        _search(queries[at : at + _ASKED], vectors, seen, min(k, len(vectors))) for at in range(0, len(queries), _ASKED)
    ]
    return Kept(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _search(queries: Vectors, vectors: Vectors, seen: Vectors | None, k: int) -> tuple[_Found, _Found]:
    exact = np.asarray(queries @ vectors.T, np.float32)
    if seen is None:
        found, _ = nearest_columns(exact, k)
        return found, found
    more, _ = nearest_columns(np.asarray(queries @ seen.T, np.float32), min(RESCORED * k, len(vectors)))
    again, _ = nearest_columns(np.take_along_axis(exact, more, axis=1), k)
    return more[:, :k], np.take_along_axis(more, again, axis=1)


def share(found: _Found, exact: _Found) -> float:
    """Mean share of the exact rows (B, k) that were found (B, k)."""
    return float((found[:, :, None] == exact[:, None, :]).any(axis=1).mean())
