"""Images that are opened on access, and an even choice among many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from ..types import ImageInput, Vectors


class LazyImages(Sequence[ImageInput]):
    """N images behind a function that opens the one at a position from 0 to N-1, at each access."""

    def __init__(self, count: int, load: Callable[[int], ImageInput]) -> None:
        self._count, self._load = count, load

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageInput: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageInput]: ...
    def __getitem__(self, index: int | slice) -> ImageInput | list[ImageInput]:
        positions = range(self._count)[index]
        return self._load(positions) if isinstance(positions, int) else [self._load(row) for row in positions]


def pick(images: Sequence[ImageInput] | Vectors, rows: npt.NDArray[np.int64]) -> Sequence[ImageInput] | Vectors:
    """Select images, or vectors (N, D), by row (M,); raw images stay unopened."""
    if isinstance(images, np.ndarray):
        return np.asarray(images[rows])
    return LazyImages(len(rows), lambda position: images[int(rows[position])])


def spread(count: int, limit: int) -> npt.NDArray[np.int64]:
    """At most ``limit`` positions (M,) below ``count``, at even distances.

    >>> spread(10, 4).tolist(), spread(3, 4).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    return np.arange(count) if limit >= count else np.arange(limit) * count // limit


def spread_over_classes(labels: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """At most ``limit`` rows (M,) of (N,) labels, in order, with the same share of each class.

    >>> spread_over_classes(np.array([0, 1, 0, 1, 0, 1]), 2).tolist()  # the first of each class
    [0, 1]
    """
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[spread(len(labels), limit)])
