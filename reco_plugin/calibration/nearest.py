"""Nearest rows among many: all of them for a small matrix, those of the nearest lists for a large one.

A row lies in the list of its nearest centre. The rows of one list are compared, in one product, with those of the lists
nearest to theirs: as many lists as hold :data:`HELD` of a sample's true neighbours. That is a tenth to a third of the
work of comparing all with all; where it would be more, all are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Vectors

BY_LISTS = 20_000
"""Rows from which they are compared by lists."""
HELD = 0.95
"""Share of the true neighbours that the lists must hold, on a sample."""
NUMBERS = 2**25
"""In an array that is made for a while, about: 128 MiB."""
_BLOCK, _ASKED = 1000, 500
_ROUNDS, _PER_LIST = 3, 40  # of k-means; more cost more than they save
_MANY, _COLUMNS = 2_000, 64  # columns from which they are searched by blocks; columns of a block
RowNumbers = npt.NDArray[np.intp]
_Group = tuple[RowNumbers, RowNumbers | None]  # rows, and those to compare them with; None: all
NearestRows = tuple[RowNumbers, npt.NDArray[np.float32]]
"""Rows (N, k) and similarities of the nearest others, the nearest first."""


@dataclass(frozen=True)
class Lists:
    """Rows (N, D) by list.

    Attributes:
        mean: (D,) of the rows.
        centres: (C, D).
        members: C of rows.
        near: of each, the lists to compare it with, itself first: together more than k rows.
    """

    mean: Vectors
    centres: Vectors
    members: list[RowNumbers]
    near: list[RowNumbers]

    def groups(self) -> Iterator[_Group]:
        """Rows of each list, and those to compare them with, which begin with them."""
        for number, members in enumerate(self.members):
            if len(members):
                yield members, self.around(number)

    def around(self, number: int) -> RowNumbers:
        """Rows to compare those of a list with."""
        return np.concatenate([self.members[other] for other in self.near[number]])

    def number_of(self, y: Vectors) -> RowNumbers:
        """The list that each of (M, D) lies in."""
        return list_of(y, self.mean, self.centres)


def nearest_others(
    x: Vectors, k: int, progress: Callable[[int], object] = int, lists: Lists | None = None
) -> NearestRows:
    """The k nearest others of each of (N, D), unit-norm.

    Args:
        x: the vectors.
        k: less than N.
        progress: gets the number of rows that are done, each time.
        lists: from :func:`sort_into_lists`; None: all are compared with all.
    """
    groups = lists.groups() if lists else [(np.arange(len(x)), None)]
    return _compare_groups(x, x, k, groups, progress, others=True)


def nearest_to(
    y: Vectors, x: Vectors, k: int, progress: Callable[[int], object] = int, lists: Lists | None = None
) -> NearestRows:
    """The k rows of (N, D) nearest to each of (M, D), which are not among them; ``lists`` of x as above."""
    groups: Iterable[_Group] = [(np.arange(len(y)), None)]
    if lists:
        own = lists.number_of(y)
        groups = ((np.flatnonzero(own == number), lists.around(number)) for number in np.unique(own).tolist())
    return _compare_groups(y, x, k, groups, progress, others=False)


def _compare_groups(
    y: Vectors, x: Vectors, k: int, groups: Iterable[_Group], progress: Callable[[int], object], *, others: bool
) -> NearestRows:
    """Compare rows of y with some of x, group by group; where ``others``, those begin with the rows themselves."""
    rows, similarities = np.empty((len(y), k), np.intp), np.empty((len(y), k), np.float32)
    for asked, among in groups:
        held = _Held(x, among)
        size = max(1, min(_BLOCK, NUMBERS // max(held.rows, 1)))
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            scores = held.products(y[some])
            if others:
                scores[np.arange(len(some)), np.arange(start, start + len(some))] = -2.0
            found, similarities[some] = nearest_columns(scores, k)
            rows[some] = found if among is None else among[found]
            progress(len(some))
    return rows, similarities


class _Held:
    """Rows of (N, D) that others are compared with; all of them without ``among``."""

    def __init__(self, x: Vectors, among: RowNumbers | None) -> None:
        self._x, self._among = x, among
        self.rows, self._part = len(x) if among is None else len(among), max(1, NUMBERS // x.shape[1])
        self._copy = x if among is None else x[among] if len(among) <= self._part else None

    def products(self, y: Vectors) -> npt.NDArray[np.float32]:
        """Products (B, M) with (B, D)."""
        if self._copy is not None or self._among is None:
            return np.asarray(y @ (self._x if self._copy is None else self._copy).T)
        starts = range(0, self.rows, self._part)
        return np.concatenate([y @ self._x[self._among[at : at + self._part]].T for at in starts], axis=1)


def nearest_columns(scores: npt.NDArray[np.float32], k: int) -> NearestRows:
    """Columns (B, k) of the largest scores (B, N) and the scores, the largest first."""
    k = min(k, scores.shape[1])
    some = _in_best_blocks(scores, k) if scores.shape[1] >= max(_MANY, 2 * k * _COLUMNS) else None
    among = scores if some is None else np.take_along_axis(scores, some, axis=1)
    picked = np.argpartition(-among, k - 1, axis=1)[:, :k]
    some = picked if some is None else np.take_along_axis(some, picked, axis=1)
    best = np.take_along_axis(scores, some, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1), np.take_along_axis(best, order, axis=1)


def _in_best_blocks(scores: npt.NDArray[np.float32], k: int) -> RowNumbers:
    """Columns (B, M) that hold the k largest of each row: those of the k blocks with the largest maxima, and the rest.

    Finding maxima takes an eighth of the time of partitioning a long row.
    """
    rows, width = len(scores), scores.shape[1] // _COLUMNS * _COLUMNS
    highest = scores[:, :width].reshape(rows, -1, _COLUMNS).max(axis=2)
    blocks = np.argpartition(-highest, k - 1, axis=1)[:, :k]
    columns = (blocks[:, :, None] * _COLUMNS + np.arange(_COLUMNS)).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(width, scores.shape[1]), (rows, scores.shape[1] - width))
    return np.concatenate([columns, rest], axis=1)


def sort_into_lists(x: Vectors, k: int) -> Lists | None:
    """Lists of about the root of N rows each; None for few rows, or where they save less than half of the work."""
    if len(x) < BY_LISTS:
        return None
    rng, count = np.random.default_rng(0), int(len(x) ** 0.5)
    mean = np.asarray(x.mean(axis=0))
    centres = find_centres(centred(x[rng.permutation(len(x))[: count * _PER_LIST]], mean), count)
    own = list_of(x, mean, centres)
    between = centres @ centres.T
    between[np.arange(count), np.arange(count)] = 2.0
    near = np.argsort(-between, axis=1, kind="stable")
    asked = rng.choice(len(x), _ASKED, replace=False)
    true = np.concatenate([_nearest_in(x, some, k) for some in np.array_split(asked, -(-_ASKED * len(x) // NUMBERS))])
    place = np.argsort(near, axis=1)[own[asked][:, None], own[true]]  # how far down the true neighbours' lists are
    sizes = np.bincount(own, minlength=count)
    rows = np.cumsum(sizes[near], axis=1)  # (C, C) in so many of the nearest lists
    enough = (rows <= k).sum(axis=1)  # rare captions lie in short lists, far from all others
    probed = np.maximum(int(np.quantile(place, HELD)), enough) + 1
    if 2 * int(sizes @ rows[np.arange(count), probed - 1]) > len(x) ** 2:
        return None
    members = np.split(np.argsort(own, kind="stable"), np.cumsum(sizes)[:-1])
    return Lists(mean, centres, members, [row[:most] for row, most in zip(near, probed, strict=True)])


def _nearest_in(x: Vectors, asked: RowNumbers, k: int) -> RowNumbers:
    """The k nearest others (M, k) of some rows."""
    scores = x[asked] @ x.T
    scores[np.arange(len(asked)), asked] = -2.0
    return nearest_columns(scores, k)[0]


def list_of(x: Vectors, mean: Vectors, centres: Vectors) -> RowNumbers:
    """Of each of (N, D), the number of its list."""
    blocks = (x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK))
    return np.concatenate([np.empty(0, np.intp), *(_nearest_centre(centred(block, mean), centres) for block in blocks)])


def centred(x: Vectors, mean: Vectors) -> Vectors:
    """Directions (N, D) from the mean."""
    away = x - mean
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-9
    return away


def find_centres(sample: Vectors, count: int) -> Vectors:
    """Centres (C, D) of a sample (M, D) by k-means on the sphere; the sample is in random order."""
    centres = sample[:count].copy()
    for _ in range(_ROUNDS):
        own = _nearest_centre(sample, centres)
        used, first = np.unique(np.sort(own), return_index=True)
        centres[used] = np.add.reduceat(sample[np.argsort(own, kind="stable")], first, axis=0)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return centres


def _nearest_centre(x: Vectors, centres: Vectors) -> RowNumbers:
    """Of each of (N, D), the number of its centre."""
    blocks = [x[start : start + _BLOCK] @ centres.T for start in range(0, len(x), _BLOCK)]
    return np.concatenate([np.empty(0, np.intp), *(block.argmax(axis=1) for block in blocks)])
