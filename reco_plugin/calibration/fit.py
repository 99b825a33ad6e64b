"""Fit the gate on held-out pairs of the memory, without labels.

The loss is the paper's, made deaf to wrong captions: minus the logarithm of ``(1 - e) softmax + e / n`` of the own
value among those of a block, in the mean over the blocks that a pair meets (:mod:`.rivals`). Each pair asks with its
siblings visible (weight 1 - p) and hidden (weight p), where p is the assumed share of queries that the memory cannot
answer. Without the hidden episode the gate trusts everything; without e it grows bolder with noise.

Five coefficients are fitted, beside e and kappa, the sharpness of the softmax, which belong to the loss. How much of
them is real, pairs say that they were not fitted on: two gates, each of the pairs of every other block, save g standard
errors of loss on the others, and the strength is multiplied by 1 - 1 / g^2 (James and Stein). So it is 0 from g = 1
down.

A quasi-Newton method with a written gradient: no torch, the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .episodes import AskedTwice, Asking
from .formula import spread_of
from .gate import FEATURES, FITTED_FEATURES, SHARPNESS, STRONGEST, Gate, features
from .reliability import sigmoid
from .rivals import MEETINGS, Rivals, meet

Doubles = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
COEFFICIENTS = len(FITTED_FEATURES)
START: Doubles = np.array([-1.0, -1.0, 0.0, 0.0, 0.5, -2.0, np.log(4.0)])
"""Coefficients of the fitted features, logit of e, log kappa; they are drawn towards these. From -2 and zeros, memories
of several unknown domains end in another valley, where CLIP's knowledge lengthens the move."""
PULL = 2.0
"""Of that draw, divided by the number of pairs."""
KEPT = 1e-3
"""Share of the strength below which a side stays plain."""
SETTLED = 2e-5
"""Loss that one of two iterations must save, else they were the last: gates differ by less between orders of the
pairs. One alone may be short and others after it long."""
SHARPNESSES: tuple[float, ...] = tuple(np.log([3.0, 5.0, 9.0, 20.0]).tolist())
PULL_OF_SHARPNESS = 0.03
"""Of the logarithm of sharpness to that of 5, in loss: emoji's pairs would take 9, by which their images lose two
points."""
_ITERATIONS, _FEWER = 30, 5  # from the start, and from a gate that is near
_CLIPPED = 0.02  # of each feature, at both ends
_CACHED = 65_536  # numbers of a matrix at a time
_STILL: Doubles = np.array([-30.0, 0.0, 0.0, 0.0, 0.0])
PairBlocks = Sequence[npt.NDArray[np.intp]]
"""Places among the pairs that ask, block by block."""


def choose_sharpness(asking: Asking, blocks: PairBlocks, rng: np.random.Generator) -> float:
    """How sharply neighbours are weighed: what serves some pairs best, between and at :data:`SHARPNESSES`.

    Where things look much alike, the nearest pair alone counts: with 5 instead of 20, logos lose 7 points. A polynomial
    through the losses says which serves best, since the best of the four would be left to chance.
    """
    lost, at, drawn = [], START, rng.random(len(asking.looked.rows))
    for sharpness in SHARPNESSES:
        questions = asking.questions(sharpness)
        rivals = meet(questions, blocks, len(blocks), np.random.default_rng(0))  # its own, and the same each time
        loss = Loss(questions, rivals, 0.5, drawn, weighted=True)
        at = minimise(loss, at.copy(), _ITERATIONS // 2)  # from the gate before, which is near
        lost.append(loss(at)[0])
    fine = np.linspace(SHARPNESSES[0], SHARPNESSES[-1], 200)
    between = np.polyval(np.polyfit(SHARPNESSES, lost, len(SHARPNESSES) - 1), fine)
    return float(fine[np.argmin(between + PULL_OF_SHARPNESS * (fine - SHARPNESS) ** 2)])


def fit_gates(
    questions: AskedTwice,
    blocks: PairBlocks,
    unanswerable: Sequence[float],
    *,
    rng: np.random.Generator,
    weighted: bool = False,
) -> list[Gate]:
    """Fit the gates of one modality, one for each share of questions without an answer; none where nothing is gained.

    Args:
        questions: of n pairs.
        blocks: at least two, of places among them, each once.
        unanswerable: each p, in [0, 1]; the first gate says what is gained.
        rng: decides which candidates find their siblings, where texts compete, and which rivals count.
        weighted: whether pairs count by their reliability: those that find themselves must.
    """
    drawn, at, gates, gain = rng.random(len(questions)), START, list[Gate](), 0.0
    rivals = meet(questions, blocks, MEETINGS, rng)
    every_other = np.isin(rivals.rows, np.concatenate(blocks[::2]))
    for share in unanswerable:
        loss = Loss(questions, rivals, share, drawn, weighted)
        at = minimise(loss, at.copy(), _ITERATIONS)  # from the gate before, which is near
        if not gates:
            halves = [Loss(questions, rivals.where(one), share, drawn, weighted) for one in (every_other, ~every_other)]
            gain = _gain(halves, at)
        if (kept := real_share(gain)) < KEPT:
            return []
        gates.append(_gate(loss, at, share, kept, gain))
    return gates


def real_share(gain: float) -> float:
    """Share of a strength that is no chance, by what it saves in standard errors (James and Stein): without a step.

    >>> [round(real_share(gain), 2) for gain in (-3.0, 1.0, 1.1, 1.5, 2.0, 4.0)]
    [0.0, 0.0, 0.17, 0.56, 0.75, 0.94]
    """
    return 1.0 - 1.0 / max(gain, 1.0) ** 2


def _gate(loss: Loss, at: Doubles, unanswerable: float, kept: float, gain: float) -> Gate:
    weights = (1.0 - unanswerable, unanswerable)
    seen = [one for one, weight in zip(loss.features, weights, strict=True) if weight > _CLIPPED]
    low, high = np.quantile(np.concatenate(seen), (_CLIPPED, 1.0 - _CLIPPED), axis=0)
    phi = np.zeros(FEATURES)
    phi[list(FITTED_FEATURES)] = at[:COEFFICIENTS]
    phi[0] += np.log(kept)
    return Gate(phi, low, high, loss.sharpness, float(at[-1]), gain)


def _gain(halves: Sequence[Loss], at: Doubles) -> float:
    """What a gate of half the pairs saves on the others over not moving, with its own e and kappa, in standard errors.

    Args:
        halves: both halves of the pairs.
        at: the gate of all, to start from.
    """
    saved, weights = [], []
    for own, unseen in zip(halves, reversed(halves), strict=True):

        def plain(tail: Doubles, loss: Loss = own) -> tuple[float, Doubles]:
            value, gradient = loss(np.append(_STILL, tail))
            return value, gradient[COEFFICIENTS:]

        fitted = minimise(own, at.copy(), _FEWER)
        tail = minimise(plain, fitted[COEFFICIENTS:].copy(), _FEWER)
        saved.append(unseen.of_pairs(np.append(_STILL, tail)) - unseen.of_pairs(fitted))
        weights.append(unseen.counted)
    each, weight = np.concatenate(saved), np.concatenate(weights) / sum(float(one.sum()) for one in weights)
    mean = float(weight @ each)
    error = float(np.sqrt(np.sum(weight**2 * (each - mean) ** 2)))
    return mean / max(error, 1e-12)


class _Asked(NamedTuple):
    """What n questions found, in M rows of W rivals whose numbers compete."""

    weight: float
    used: Doubles  # (n, 5) fitted features of each query
    correlation: Doubles  # (n,) of each query's evidence with its plain scores
    own: Doubles  # (n,) score of each query's evidence for its own answer
    evidence: Matrix  # (M, W)
    times: Matrix  # (M, W) logarithm of how often a rival counts


class Loss:
    """The loss of pairs that ask, and its gradient (7,).

    Attributes:
        features: (n, 6) of those that count, siblings visible and hidden.
        counted: (n,) of those, how much each counts.
        sharpness: logarithm of how sharply neighbours were weighed.
    """

    def __init__(
        self, questions: AskedTwice, rivals: Rivals, unanswerable: float, drawn: Doubles, weighted: bool
    ) -> None:
        """Put together what the coefficients do not change.

        Args:
            questions: of n pairs.
            rivals: of those that count, M rows.
            unanswerable: p.
            drawn: (n,) uniform: decides which texts show their siblings.
            weighted: whether pairs count by their reliability.
        """
        self._texts, self._rivals, self.sharpness = questions.modality == "text", rivals, questions.sharpness
        meets = np.bincount(rivals.rows, minlength=len(questions))
        self._meets, self._counts = np.maximum(meets, 1), np.flatnonzero(meets)
        each = questions.reliability.astype(np.float64) if weighted else np.ones(len(questions))
        self.counted = each[self._counts]
        self._of_row = each[rivals.rows] / meets[rivals.rows] / float(self.counted.sum())
        found = [features(one.signals, questions.spread) for one in questions.both]
        self.features = [one[self._counts] for one in found]
        self._base = questions.base.astype(np.float64)
        self._plain = np.einsum("nd,nd->n", questions.query, questions.held).astype(np.float64)  # of the own answer
        self._asked = self._of_questions(questions, found, unanswerable, drawn)

    def _of_questions(
        self, questions: AskedTwice, found: Sequence[Doubles], unanswerable: float, drawn: Doubles
    ) -> list[_Asked]:
        """Siblings visible, and hidden; beside texts, which compete, a third time: some show them and others do not."""
        total, rivals = 2.0 if self._texts else 1.0, self._rivals
        both = [
            _Asked(
                weight / total,
                of[:, FITTED_FEATURES],
                one.signals[:, 6].astype(np.float64),
                one.own.astype(np.float64),
                rivals.evidence[number],
                rivals.weight[number],
            )
            for number, (one, of, weight) in enumerate(
                zip(questions.both, found, (1.0 - unanswerable, unanswerable), strict=True)
            )
        ]
        if self._texts:
            shown, (seen, unseen) = drawn < 1.0 - unanswerable, both
            of_rival = shown[rivals.places]
            mixed = _Asked(
                1.0 / total,
                np.where(shown[:, None], seen.used, unseen.used),
                np.where(shown, seen.correlation, unseen.correlation),
                np.where(shown, seen.own, unseen.own),
                np.where(of_rival, seen.evidence, unseen.evidence),
                np.where(of_rival, seen.times, unseen.times),
            )
            both.append(mixed)
        return [one for one in both if one.weight > 0.0]

    def __call__(self, at: Doubles) -> tuple[float, Doubles]:
        """Loss and gradient, with the pull towards the start."""
        value, gradient = 0.0, np.zeros(len(START))
        for asked in self._asked:
            lost, slope = self._compare(asked, asked.weight * self._of_row, at)
            value += asked.weight * float(self._of_row @ lost)
            gradient += slope
        off, pull = at - START, PULL / float(self.counted.sum())
        return value + pull * float(off @ off), gradient + 2.0 * pull * off

    def of_pairs(self, at: Doubles) -> Doubles:
        """The loss of each pair that counts."""
        each = np.zeros(len(self._of_row))
        for asked in self._asked:
            each += asked.weight * self._compare(asked, self._of_row, at)[0]
        return (self._sum(self._rivals.rows, each) / self._meets)[self._counts]

    def _sum(self, places: npt.NDArray[np.intp], each: npt.NDArray[np.floating]) -> Doubles:
        """Sums (n,) over the pairs at these places."""
        return np.asarray(np.bincount(places.ravel(), each.ravel(), minlength=len(self._meets)), np.float64)

    def _compare(self, asked: _Asked, counted: Doubles, at: Doubles) -> tuple[Doubles, Doubles]:
        """Loss (M,) of each row, and the gradient (7,) of their sum, each counted; by rows that a core's cache holds.

        Matrices are float32, sums float64.
        """
        kappa, wrong = np.exp(at[-1]), float(sigmoid(at[-2:-1])[0])
        strength = np.exp(np.clip(asked.used @ at[:COEFFICIENTS], -2.0 * STRONGEST, STRONGEST))
        spread = spread_of(strength, asked.correlation)
        step, scale = strength.astype(np.float32), (kappa / spread).astype(np.float32)
        shift = (kappa * self._base * self._texts).astype(np.float32)  # else a query's base changes not its order
        answer = ((self._plain + strength * asked.own) * scale + shift).astype(np.float32)
        rows, places, among = self._rivals.rows, self._rivals.places, self._rivals.among
        mine, by_evidence, by_plain, by_base = np.empty(len(rows)), *np.zeros((3, len(strength)))
        for start in range(0, len(rows), size := max(1, _CACHED // places.shape[1])):
            some = slice(start, start + size)
            evidence, plain, asks = asked.evidence[some], self._rivals.plain[some], rows[some]
            moves = places[some] if self._texts else asks[:, None]
            p = evidence * step[moves]
            p += plain
            p *= scale[moves]
            p += shift[moves]
            p += asked.times[some]
            highest = np.maximum(p.max(axis=1), own := answer[asks])
            p -= highest[:, None]
            np.exp(p, out=p)
            own = np.exp(own - highest)
            total = p.sum(axis=1) + own
            right = mine[some] = (own / total).astype(np.float64)
            pull = counted[some] * (1.0 - wrong) * right / ((1.0 - wrong) * right + wrong / among[some])
            p *= (pull / total).astype(np.float32)[:, None]
            if self._texts:
                by_base += self._sum(moves, p)
                by_plain += self._sum(moves, p * plain)
                by_evidence += self._sum(moves, p * evidence)
            else:
                by_plain += self._sum(asks, np.einsum("mw,mw->m", p, plain))
                by_evidence += self._sum(asks, np.einsum("mw,mw->m", p, evidence))
            lifted = self._sum(asks, pull * (1.0 - right))
            by_base -= lifted
            by_plain -= lifted * self._plain
            by_evidence -= lifted * asked.own
        likely = (1.0 - wrong) * mine + wrong / among
        by_wrong = -float(counted @ ((1.0 / among - mine) / likely)) * wrong * (1.0 - wrong)
        by_moved = (by_plain + strength * by_evidence) / spread
        by_strength = by_evidence / spread - by_moved * (strength + asked.correlation) / spread**2
        by_strength[strength >= np.exp(STRONGEST)] = 0.0  # there, it is held
        by_kappa = kappa * (by_moved.sum() + float(by_base @ self._base) * self._texts)
        return -np.log(likely), np.concatenate([kappa * (by_strength * strength) @ asked.used, [by_wrong, by_kappa]])


def minimise(fun: Callable[[Doubles], tuple[float, Doubles]], x: Doubles, iterations: int) -> Doubles:
    """Minimise a smooth function of a few parameters by BFGS with backtracking.

    Args:
        fun: value and gradient.
        x: where to start, (P,).
        iterations: at most.
    """
    value, gradient = fun(x)
    scale, eye = min(1.0, 1.0 / max(float(np.linalg.norm(gradient)), 1e-9)), np.eye(len(x))
    inverse, first, settled = eye * scale, True, 0
    for _ in range(iterations):
        direction = -inverse @ gradient
        if gradient @ direction >= 0.0:
            inverse, direction = eye.copy(), -gradient
        length = min(1.0, 2.0 / max(float(np.abs(direction).max()), 1e-12))
        for _ in range(12):
            new, slope = fun(x + length * direction)
            if np.isfinite(new) and new <= value + 1e-4 * length * (gradient @ direction):
                break
            length *= 0.4
        else:
            break
        moved, change = length * direction, slope - gradient
        settled = settled + 1 if value - new < SETTLED else 0
        x, value, gradient = x + moved, new, slope
        if (curvature := float(moved @ change)) > 1e-10:
            if first:
                inverse = eye * curvature / float(change @ change)
            left = eye - np.outer(moved, change) / curvature
            inverse, first = left @ inverse @ left.T + np.outer(moved, moved) / curvature, False
        if settled > 1 or np.abs(gradient).max() < 1e-5:
            break
    return x
