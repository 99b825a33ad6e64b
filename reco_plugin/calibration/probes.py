"""Nearest rows among very many: each vector is compared with those of the lists whose centres are nearest to it.

They are compared in fewer dimensions, and the best of them again in all. How many lists and dimensions that takes is
measured on a sample of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..machine.blas import side_by_side
from ..types import MODALITIES, Modality, Vectors
from .nearest import (
    Lists,
    NearestRows,
    RowNumbers,
    centred,
    find_centres,
    list_of,
    nearest_columns,
    nearest_others,
    nearest_to,
    sort_into_lists,
)

MANY = 50_000
"""Rows from which this pays; fewer are found as :mod:`.nearest` does."""
HELD = 0.98
"""Share of the true neighbours that the lists must hold, on the sample."""
KEPT = 0.99
"""Share of them that must be among the candidates that are compared in all dimensions, if their lists hold them."""
_LISTS_PER_ROOT, _PER_LIST = 2, 40  # lists, and rows for each in k-means
_ASKED, _LENGTHS = 300, 20_000  # rows of the sample, and those by whose length axes are chosen
_DIMENSIONS = 32  # fewer dimensions, or more, in such steps
_ROUNDS = 1, 4, 16  # lists of a vector after which what was found sets what the next must exceed
_CHUNK, _BLOCK = 20_000, 1_000  # vectors that ask at a time (0.2 GB of what they find), and are compared with centres
_COMPARED = 64  # vectors of which candidates are compared at a time: of more, these leave the core's cache meanwhile
_NUMBERS = 2**25  # in an array that is made for a while
_GONE, _ROUNDING = -2.0, 1e-5  # below each similarity; of products
_Hits = tuple[RowNumbers, RowNumbers, npt.NDArray[np.float32]]  # who asked, what was found, scores


@dataclass(frozen=True)
class Probes:
    """Rows (N, D), sorted into lists.

    Attributes:
        x: the rows, unit-norm.
        order: (N,) rows, list by list.
        starts: (C + 1,) places in ``order``.
        axes: (D, P).
        mean: (P,) of the rows, along the axes.
        centres: (C, P) along the axes.
        short: (N, P) rows in the order of ``order``, along the axes.
        looked: lists that each vector is compared with.
        kept: candidates that are compared in all dimensions.
    """

    x: Vectors
    order: RowNumbers
    starts: RowNumbers
    axes: Vectors
    mean: Vectors
    centres: Vectors
    short: Vectors
    looked: int
    kept: int

    def nearest(
        self, y: Vectors, k: int, progress: Callable[[int], object], *, others: bool, chunk: int = _CHUNK
    ) -> NearestRows:
        """The k nearest rows of each of (M, D); where ``others``, those are the rows, and none finds itself."""
        return _find_all([(self, y)], k, progress, others=others, chunk=chunk)[0]

    def of_some(self, y: Vectors, rows: slice, k: int, *, others: bool) -> NearestRows:
        """The same of some of (M, D)."""
        asked = np.arange(rows.start, rows.stop) if others else None
        return self._compare(y[rows], self._candidates(y[rows]), k, asked)

    def _candidates(self, y: Vectors) -> RowNumbers:
        """Rows (M, kept) that are nearest to (M, D) along the axes; -1 where fewer were found."""
        short = np.asarray(y @ self.axes, np.float32)
        lists = np.concatenate([self._lists_of(short[at : at + _BLOCK]) for at in range(0, len(y), _BLOCK)])
        few = np.diff(self.starts)[lists].sum(axis=1) <= self.kept
        rows = np.full((len(y), self.kept), -1, np.intp)
        scores = np.full(rows.shape, 2.0 * _GONE, np.float32)
        for start, stop in zip((0, *_ROUNDS), (*_ROUNDS, self.looked), strict=True):
            rows, scores = self._add(short, lists[:, start:stop], rows, scores)
        for row in np.flatnonzero(few).tolist():  # rare things, whose lists are short
            rows[row] = self.order[nearest_columns(short[row : row + 1] @ self.short.T, self.kept)[0][0]]
        return rows

    def _lists_of(self, short: Vectors) -> RowNumbers:
        """Lists (M, L) with the centres nearest to each of (M, P), the nearest first."""
        near = np.asarray((short - self.mean) @ self.centres.T, np.float32)
        lists, close = _largest(near, self.looked)
        return np.take_along_axis(lists, np.argsort(-close, axis=1), axis=1)

    def _add(self, short: Vectors, lists: RowNumbers, rows: RowNumbers, scores: npt.NDArray[np.float32]) -> NearestRows:
        """The best (M, kept) of lists (M, L) and of what was found before, (M, kept), for (M, P)."""
        least, hits = scores.min(axis=1), list[_Hits]()
        for asks, held, products in self._products(short, lists):
            found = np.flatnonzero(products > least[asks, None])
            if len(found) > self.kept * len(asks):  # of the first list, and where many rows are equal
                best, most = _largest(products, self.kept)
                hits.append((np.repeat(asks, best.shape[1]), held[best].ravel(), most.ravel()))
            else:
                row, column = np.divmod(found, products.shape[1])
                hits.append((asks[row], held[column], products.reshape(-1)[found]))
        return _merge(hits, rows, scores, self.kept)

    def _products(
        self, short: Vectors, lists: RowNumbers
    ) -> Iterator[tuple[RowNumbers, RowNumbers, npt.NDArray[np.float32]]]:
        """For each list that occurs in (M, L): who of (M, P) asks it, its rows, and their products."""
        flat = lists.reshape(-1)
        order = np.argsort(flat, kind="stable")
        starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(flat)], strict=True):
            asks, number = order[start:stop] // lists.shape[1], int(flat[order[start]])
            held = slice(self.starts[number], self.starts[number + 1])
            size = max(1, _NUMBERS // 4 // max(held.stop - held.start, 1))  # where many are equal, a list is long
            for at in range(0, len(asks) if held.start < held.stop else 0, size):
                some = asks[at : at + size]
                yield some, self.order[held], short[some] @ self.short[held].T

    def _compare(self, y: Vectors, found: RowNumbers, k: int, asked: RowNumbers | None) -> NearestRows:
        """The k nearest of candidates (M, kept), none of which is the row that asks."""
        rows, similarity = np.empty((len(y), k), np.intp), np.empty((len(y), k), np.float32)
        for start in range(0, len(y), _COMPARED):
            some = slice(start, start + _COMPARED)
            scores = np.matmul(self.x.take(found[some], axis=0), y[some, :, None])[..., 0]
            gone = found[some] < 0
            if asked is not None:
                gone |= found[some] == asked[some, None]
            scores[gone] = _GONE
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            rows[some], similarity[some] = (np.take_along_axis(of, best, axis=1) for of in (found[some], scores))
        return rows, similarity


def nearest_others_of(
    x: Vectors, k: int, progress: Callable[[int], object], lists: Lists | Probes | None
) -> NearestRows:
    """The k nearest others of each of (N, D), by what :func:`sort_rows` made of them; progress as below."""
    if isinstance(lists, Probes):
        return lists.nearest(x, k, progress, others=True)
    return nearest_others(x, k, progress, lists)


def nearest_rows_to(
    y: Vectors, x: Vectors, k: int, progress: Callable[[int], object], lists: Lists | Probes | None
) -> NearestRows:
    """The k rows of (N, D) nearest to each of (M, D), which are not among them, by what :func:`sort_rows` made of x.

    Args:
        y: (M, D).
        x: (N, D).
        k: at most N.
        progress: gets the number of rows that are done, each time.
        lists: of x.
    """
    if isinstance(lists, Probes):
        return lists.nearest(y, k, progress, others=False)
    return nearest_to(y, x, k, progress, lists)


def nearest_by_each(
    asked: Mapping[Modality, Vectors],
    among: Mapping[Modality, Vectors],
    k: int,
    progress: Callable[[int], object],
    lists: Mapping[Modality, Lists | Probes | None],
    *,
    others: bool,
) -> dict[Modality, NearestRows]:
    """By each modality, the k rows of (N, D) nearest to each of (M, D), or to each other; arguments as above.

    Parts of both are worked on side by side where they are very many, so that no thread waits for the last of one.
    """
    probed = [(one, asked[m]) for m in MODALITIES if isinstance(one := lists[m], Probes)]
    if len(probed) == len(MODALITIES):
        return dict(zip(MODALITIES, _find_all(probed, k, progress, others=others), strict=True))
    if others:
        return {m: nearest_others_of(asked[m], k, progress, lists[m]) for m in MODALITIES}
    return {m: nearest_rows_to(asked[m], among[m], k, progress, lists[m]) for m in MODALITIES}


def _find_all(
    asked: Sequence[tuple[Probes, Vectors]],
    k: int,
    progress: Callable[[int], object],
    *,
    others: bool,
    chunk: int = _CHUNK,
) -> list[NearestRows]:
    """The k nearest of each of several (M, D), by the rows that each is looked for in."""
    found = [(np.empty((len(y), k), np.intp), np.empty((len(y), k), np.float32)) for _, y in asked]

    def find(part: tuple[int, int]) -> int:
        number, start = part
        probes, y = asked[number]
        some = slice(start, min(start + chunk, len(y)))
        (rows, similarity), (near, close) = found[number], probes.of_some(y, some, k, others=others)
        rows[some], similarity[some] = near, close
        return len(near)

    parts = [(number, start) for number, (_, y) in enumerate(asked) for start in range(0, len(y), chunk)]
    side_by_side(find, parts, progress)
    return list(found)


def sort_rows(x: Vectors, k: int) -> Lists | Probes | None:
    """Lists of rows (N, D), unit-norm, in which the k nearest of each are found; None: all are compared with all."""
    return probe(x, k) if len(x) > MANY else sort_into_lists(x, k)


def _largest(scores: npt.NDArray[np.float32], count: int) -> NearestRows:
    """Columns of the largest scores (m, n), at most so many of each row in any order, and the scores."""
    best = np.argpartition(-scores, min(count, scores.shape[1]) - 1, axis=1)[:, :count]
    return best, np.take_along_axis(scores, best, axis=1)


def _best_of(rows: RowNumbers, scores: npt.NDArray[np.float32], count: int) -> NearestRows:
    """So many of rows (m, n) with the best scores, in any order."""
    best, most = _largest(scores, count)
    return np.take_along_axis(rows, best, axis=1), most


def _merge(hits: list[_Hits], rows: RowNumbers, scores: npt.NDArray[np.float32], kept: int) -> NearestRows:
    """The best (M, kept) of what was found before and of later hits."""
    if not hits:
        return rows, scores
    asks, found, most = (np.concatenate(part) for part in zip(*hits, strict=True))
    order, counts = np.argsort(asks, kind="stable"), np.bincount(asks, minlength=len(rows))
    found, most, starts = found[order], most[order], np.cumsum(counts) - counts
    fewest_first = np.argsort(counts, kind="stable")  # a row with hundreds of hits widens its block
    for start in range(0, len(rows), _BLOCK):
        some = fewest_first[start : start + _BLOCK]
        place = np.arange(counts[some[-1]])
        if len(place):
            gone = place >= counts[some, None]
            hit = np.minimum(starts[some, None] + place, len(found) - 1)
            more, score = found.take(hit), most.take(hit)
            more[gone], score[gone] = -1, 2.0 * _GONE
            both = np.concatenate([rows[some], more], axis=1), np.concatenate([scores[some], score], axis=1)
            rows[some], scores[some] = _best_of(*both, kept)
    return rows, scores


def probe(x: Vectors, k: int) -> Probes:
    """Sort rows (N, D), unit-norm, into lists in which the k nearest of each are found."""
    rng, count = np.random.default_rng(0), int(_LISTS_PER_ROOT * len(x) ** 0.5)
    mean = np.asarray(x.mean(axis=0), np.float32)
    centres = find_centres(centred(x[rng.permutation(len(x))[: count * _PER_LIST]], mean), count)
    own = list_of(x, mean, centres)
    order, starts = np.argsort(own, kind="stable"), np.searchsorted(np.sort(own), np.arange(count + 1))
    asked, kept = np.sort(rng.choice(len(x), _ASKED, replace=False)), min(2 * k + 2, len(x))
    blocks = np.array_split(asked, -(-_ASKED * len(x) // _NUMBERS))
    found = [nearest_columns(_without_self(x[some] @ x.T, some), k) for some in blocks]
    true, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    axes = _find_axes(x, asked, similarity[:, -1:], k, kept)
    mean, centres = (np.asarray(one @ axes, np.float32) for one in (mean, centres))
    near = np.argsort(np.argsort(-((x[asked] @ axes - mean) @ centres.T), axis=1, kind="stable"), axis=1)
    looked = max(int(np.quantile(np.take_along_axis(near, own[true], axis=1), HELD)), *_ROUNDS) + 1
    short = np.empty((len(x), axes.shape[1]), np.float32)
    for start in range(0, len(x), _CHUNK):  # at once, it would be held twice
        some = slice(start, start + _CHUNK)
        short[some] = x[order[some]] @ axes
    return Probes(x, order, starts, axes, mean, centres, short, looked, kept)


def _find_axes(x: Vectors, asked: RowNumbers, least: npt.NDArray[np.float32], k: int, kept: int) -> Vectors:
    """As few axes (D, P), longest first, as keep the k nearest of some rows (M,) among so many candidates.

    Those are as similar as ``least`` (M, 1): where many rows are equal, it does not matter which are found.
    """
    some = x[:: max(1, len(x) // _LENGTHS)]
    longest = np.asarray(np.linalg.eigh(some.T @ some)[1][:, ::-1], np.float32)
    blocks = list(zip(*(np.array_split(part[::3], 10) for part in (asked, least)), strict=True))
    scores = [np.zeros((len(rows), len(x)), np.float32) for rows, _ in blocks]
    for stop in range(_DIMENSIONS, len(longest), _DIMENSIONS):
        held, found = x @ longest[:, stop - _DIMENSIONS : stop], list[npt.NDArray[np.intp]]()
        for score, (rows, worst) in zip(scores, blocks, strict=True):
            np.add(score, held[rows] @ held.T, out=score)
            best = nearest_columns(_without_self(score, rows), kept)[0]
            near = np.matmul(x[best], x[rows, :, None])[..., 0] >= worst - _ROUNDING
            found.append(np.minimum(near.sum(axis=1), k))
        if float(np.concatenate(found).mean()) >= KEPT * k:
            return np.ascontiguousarray(longest[:, :stop])
    return longest


def _without_self(scores: npt.NDArray[np.float32], asked: RowNumbers) -> npt.NDArray[np.float32]:
    """The scores (m, N), in place, of which none is of the row itself."""
    scores[np.arange(len(asked)), asked] = _GONE
    return scores
