"""Which captions of a catalogue are probably wrong, and what each should be.

Six signals score a pair. A logistic model weighs them: it learns to tell the pairs as they are from the same pairs with
some captions exchanged, so it needs no labels and fits what CLIP knows of this catalogue. :mod:`.clean_count` counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fusion.evidence import IDENTICAL, likeness
from ..learning.nearest import RowNumbers, nearest_rows
from ..learning.plda import measure_plda
from ..types import Vectors
from ..vectors import Floats

FEWEST = 100
"""Pairs below which no model is fitted."""
K = 16
COMPANY = 0.3
"""Weight of other pictures under the same or a similar caption, from which a caption counts as one with several."""
SURE = 3.0
"""Weight of a caption that a person decided, beside one that is taken for right."""
_ROUNDS, _SHARE, _NEAR = 4, 0.15, 0.5  # rounds of exchange of each kind, pairs of a round, and how they count
_FOLDS, _SAMPLE, _BEST = 5, 500, 0.05
_WARM = 0.1  # of cosine, in the weight of neighbours
_TINY = 1e-6
Wrong = npt.NDArray[np.bool_]
Decided = npt.NDArray[np.int8]


@dataclass(frozen=True)
class CaptionScores:
    """How wrong the captions of N pairs look.

    Attributes:
        score: (N,) logarithm of odds up to a constant; the largest is the worst.
        signals: (N, 6) what each signal adds to the score: CLIP's score of the pair above its best other captions; the
            score of the caption, and of the picture, that a ridge map of the other pairs expects; captions of similar
            pictures; pictures of similar captions; and the picture under the caption's other pictures (PLDA).
        several: (N,) whether other pictures have the same or a similar caption.
        exchanged: scores of exchanged captions, at random and among similar pictures, with ``several`` of each.
        picture: (N,) number of each picture; pairs of the same picture have the same one.
        suggested: row whose caption fits the picture best, by row; of the ``suggestions`` worst ones.
        agreeing: how many of the most similar pictures have such a caption, by row likewise.
    """

    score: Floats
    signals: Floats
    several: Wrong
    exchanged: tuple[tuple[Floats, Wrong], tuple[Floats, Wrong]]
    picture: RowNumbers
    suggested: dict[int, int]
    agreeing: dict[int, int]

    @property
    def order(self) -> RowNumbers:
        """Rows (N,), the worst first."""
        return np.argsort(-self.score, kind="stable")


def score_captions(
    image: Vectors, text: Vectors, *, decided: Decided | None = None, suggestions: int = 500, seed: int = 0
) -> CaptionScores:
    """Score pairs (N, D), unit-norm; a row's caption is its row of ``text``.

    Args:
        image: of the pictures.
        text: of their captions.
        decided: (N,) 1: a person found the caption right; -1: wrong; 0: not known. None: of none.
        suggestions: how many of the worst get one.
        seed: of the exchanges.

    Raises:
        DataError: fewer than :data:`FEWEST` pairs, or all captions are the same.
    """
    if len(image) < FEWEST:
        raise DataError(f"{len(image)} pairs are too few to judge captions by one another: {FEWEST} are the fewest")
    pairs, rng = _Pairs(image, text, seed), np.random.default_rng(seed)
    rows = np.arange(len(image))
    given, several = pairs.signals(rows), pairs.company(rows)[1].sum(axis=1) > COMPANY
    rounds = [(near, *pairs.exchange(rng, near)) for near in (False, True) for _ in range(_ROUNDS)]
    features = [pairs.signals(source) for _, source, _ in rounds]
    middle, spread = np.median(given, axis=0), given.std(axis=0) + _TINY
    known = np.zeros(len(rows), np.int8) if decided is None else decided
    teaches = (known != 0) & (known == -1).any()  # the right alone are the hardest of the right: they mislead
    given_as = [source == rows for _, source, _ in rounds]
    wrong = [mask | (as_is & (known == -1)) for as_is, (*_, mask) in zip(given_as, rounds, strict=True)]
    weight = [
        _balanced(mask, _NEAR if near else 1.0) * np.where(as_is & teaches, SURE, 1.0)
        for as_is, (near, _, mask) in zip(given_as, rounds, strict=True)
    ]
    ready = [np.clip((part - middle) / spread, -5, 5) for part in (given, *features)]
    fitted = _fit_logistic(np.concatenate(ready[1:]), np.concatenate(wrong), np.concatenate(weight))
    score = [np.asarray(part @ fitted, np.float32) for part in ready]
    exchanged = []
    for near in (False, True):
        chosen = [n for n, (kind, *_) in enumerate(rounds) if kind == near]
        source = [rounds[n][1][rounds[n][2]] for n in chosen]  # a caption takes its company along
        exchanged.append(
            (
                np.concatenate([score[n + 1][rounds[n][2]] for n in chosen]),
                np.concatenate([several[rows] for rows in source]),
            )
        )
    worst = np.argsort(-score[0], kind="stable")[:suggestions]
    suggested = pairs.suggest(worst, fitted / spread)
    signals = np.asarray(ready[0] * fitted, np.float32)
    agreeing = {row: pairs.count_alike(row, other) for row, other in suggested.items()}
    return CaptionScores(
        score[0], signals, several, (exchanged[0], exchanged[1]), pairs.same_pictures(), suggested, agreeing
    )


class _Pairs:
    """Pairs, with what an exchange of captions leaves as it is."""

    def __init__(self, image: Vectors, text: Vectors, seed: int) -> None:
        rng, count = np.random.default_rng(seed), len(image)
        self.image, self.text, k = image, text, min(K, len(image) - 1)
        self._x, self._y = image - image.mean(axis=0), text - text.mean(axis=0)
        if min(float(np.square(side).sum(axis=1).mean()) for side in (self._x, self._y)) < _TINY:
            raise DataError("all pictures, or all captions, are the same: nothing tells a wrong caption")
        self._near_x, self._near_y = _unit(self._x), _unit(self._y)
        self.near_image = nearest_rows(self._near_x, self._near_x, k, others=True)
        self.near_text = nearest_rows(self._near_y, self._near_y, k, others=True)
        other = np.where(self.near_text[1] < 1 - _TINY, self.near_text[1], -1.0).max(axis=1)  # not the same caption
        self._apart = max(float(np.median(1 - other)), 1e-3)
        self._fold = rng.permutation(count) % _FOLDS
        self._some = rng.permutation(count)[:_SAMPLE]
        best = max(1, int(_BEST * len(self._some)))
        self._best = np.partition(image @ text[self._some].T, -best, axis=1)[:, -best:].mean(axis=1)
        self._weight = _softmax(self.near_image[1])

    def signals(self, source: RowNumbers) -> Floats:
        """Signals (N, 6) where row n has the caption of row ``source[n]``, a permutation."""
        image, y, near = self._near_x, self._y[source], self._near_y[source]
        expected, drawn = self._expected(source), _unit(_ridge(y, self._x, self._fold))
        scores = expected @ self._y[self._some].T
        clip = (self.image * self.text[source]).sum(axis=1) - self._best
        back = drawn @ image[self._some].T
        rows, alike = self._around(source), _softmax(self.near_text[1][source])
        pictures = _unit(np.einsum("nk,nkd->nd", alike, self._x[rows]))
        columns = [
            clip,
            ((expected * y).sum(axis=1) - scores.mean(axis=1)) / (scores.std(axis=1) + _TINY),
            ((drawn * image).sum(axis=1) - back.mean(axis=1)) / (back.std(axis=1) + _TINY),
            (self._of_alike(near) * near).sum(axis=1),
            (pictures * image).sum(axis=1),
            self._ratio(source),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def company(self, source: RowNumbers) -> tuple[RowNumbers, Floats]:
        """Rows (N, K) with the captions nearest to each row's, and how alike they are, from 0 to 1."""
        return self._around(source), likeness(1 - self.near_text[1][source], self._apart)

    def exchange(self, rng: np.random.Generator, near: bool) -> tuple[RowNumbers, Wrong]:
        """Exchange the captions of some rows, at random or among similar pictures; the source, and which rows."""
        count, source = len(self.image), np.arange(len(self.image))
        some = rng.permutation(count)[: int(_SHARE * count) // (2 if near else 1)]
        if not near:
            source[some] = rng.permutation(some)
        else:
            mates, free = (
                self.near_image[0][some, rng.integers(0, self.near_image[0].shape[1], len(some))],
                set(range(count)),
            )
            for row, mate in zip(some.tolist(), mates.tolist(), strict=True):
                if row in free and mate in free:
                    source[row], source[mate] = mate, row
                    free -= {row, mate}
        same = (self._near_y * self._near_y[source]).sum(axis=1) > 1 - 1e-4
        return source, (source != np.arange(count)) & ~same

    def suggest(self, rows: RowNumbers, weights: Floats) -> dict[int, int]:
        """The row whose caption fits each picture best, by the signals that are linear in a caption."""
        expected = self._expected(np.arange(len(self.image)))[rows]
        scale = (expected @ self._y[self._some].T).std(axis=1, keepdims=True) + _TINY
        clip, ridge, alike = (max(-float(weights[n]), 0.0) for n in (0, 1, 3))
        fits = np.asarray(
            clip * self.image[rows] @ self.text.T
            + (ridge * expected / scale) @ self._y.T
            + alike * self._of_alike(self._near_y)[rows] @ self._near_y.T
        )
        fits[self._near_y[rows] @ self._near_y.T > 1 - 1e-4] = -np.inf
        return dict(zip(rows.tolist(), fits.argmax(axis=1).tolist(), strict=True))

    def count_alike(self, row: int, other: int) -> int:
        """How many of the pictures most similar to a row's have a caption like that of another row."""
        near = self._near_y[self.near_image[0][row]] @ self._near_y[other]
        return int((likeness(1 - near, self._apart) > 0.5).sum())

    def same_pictures(self) -> RowNumbers:
        """The number (N,) of each pair's picture."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        rows, places = np.nonzero(self.near_image[1] > IDENTICAL)
        edges = (np.ones(len(rows)), (rows, self.near_image[0][rows, places]))
        numbers: RowNumbers = connected_components(coo_array(edges, shape=(len(self.image),) * 2))[1]
        return numbers

    def _expected(self, source: RowNumbers) -> Floats:
        return _unit(_ridge(self._x, self._y[source], self._fold))

    def _of_alike(self, near: Floats) -> Floats:
        """The mean caption (N, D) of the pictures around each."""
        return np.asarray(np.einsum("nk,nkd->nd", self._weight, near[self.near_image[0]]), np.float32)

    def _around(self, source: RowNumbers) -> RowNumbers:
        place = np.empty_like(source)
        place[source] = np.arange(len(source))
        return place[self.near_text[0][source]]

    def _ratio(self, source: RowNumbers) -> Floats:
        """Log-likelihood ratio (N,) of each picture under the others of its caption; 0 without others."""
        company = self.company(source)
        n = company[1].sum(axis=1, keepdims=True)
        plda = measure_plda(self.image, np.arange(len(source)), company, np.ones(len(source), np.float32))
        x = plda.of(self.image)
        mean = np.einsum("nk,nkr->nr", company[1], x[company[0]]) / np.maximum(n, _TINY)
        return np.where(n[:, 0] > COMPANY, plda.ratio(x, mean, n), 0.0)


def _ridge(x: Floats, y: Floats, fold: RowNumbers) -> Floats:
    """Expect y (N, D) of x (N, D), both of mean 0, by the pairs of the other folds; the ridge is the mean variance."""
    expected = np.empty_like(y)
    for number in range(_FOLDS):
        rest = fold != number
        square = x[rest].T @ x[rest]
        square += np.trace(square) / len(square) * np.eye(len(square), dtype=square.dtype)
        expected[~rest] = x[~rest] @ np.linalg.solve(square, x[rest].T @ y[rest])
    return expected


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _TINY), np.float32)


def _softmax(similarity: Floats) -> Floats:
    weight = np.exp((similarity - similarity[:, :1]) / _WARM)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True), np.float32)


def _balanced(wrong: Wrong, share: float) -> Floats:
    """Weights by which both classes count alike."""
    return np.asarray(share * np.where(wrong, 0.5 / max(wrong.mean(), _TINY), 0.5 / max(1 - wrong.mean(), _TINY)))


def _fit_logistic(x: Floats, wrong: Wrong, weight: Floats) -> Floats:
    """Weights (F,) of features (M, F) by which wrong captions score high; a small ridge keeps them finite."""
    from scipy.optimize import minimize

    y, weight, columns = wrong.astype(np.float64), weight / weight.sum(), np.c_[np.ones(len(x)), x]

    def loss(b: Floats) -> tuple[float, Floats]:
        z = columns @ b
        slope = columns.T @ (weight * (1 / (1 + np.exp(-z)) - y))
        return float(weight @ (np.logaddexp(0, z) - y * z) + 0.01 * (b[1:] @ b[1:])), slope + 0.02 * np.r_[0.0, b[1:]]

    fitted: Floats = minimize(loss, np.zeros(columns.shape[1]), jac=True, method="L-BFGS-B").x
    return fitted[1:]
