"""Fit the gate on held-out pairs of the memory, without labels.

The loss is the paper's, made deaf to wrong captions: minus the logarithm of ``(1 - e) softmax + e / n`` of the own
value among those of all pairs of a block. Each pair asks with its siblings visible (weight 1 - p) and hidden (weight
p), where p is the assumed share of queries that the memory cannot answer. Without the hidden episode the gate trusts
everything; without e it grows bolder with noise.

Five coefficients are fitted, beside e and kappa, the sharpness of the softmax, which belong to the loss. How much of
them is real, blocks say that they were not fitted on: two gates, each of every other block, save g standard errors of
loss on the other's blocks, and the strength is multiplied by 1 - 1 / g^2 (James and Stein). So it is 0 from g = 1 down.

A quasi-Newton method with a written gradient: no torch, the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .corpus import Corpus
from .episodes import Episodes, Looked, asked_by
from .formula import spread_of
from .gate import FEATURES, FITTED_FEATURES, SHARPNESS, STRONGEST, Gate, features
from .reliability import sigmoid

Doubles = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
COEFFICIENTS = len(FITTED_FEATURES)
START: Doubles = np.array([-1.0, -1.0, 0.0, 0.0, 0.5, -2.0, np.log(4.0)])
"""Coefficients of the fitted features, logit of e, log kappa; they are drawn towards these. From -2 and zeros, memories
of several unknown domains end in another valley, where CLIP's knowledge lengthens the move."""
PULL, PULL_OF_LOSS = 2.0, 0.05
"""Of that draw: of the coefficients, per pair; of the two others, whatever the number of pairs. In a memory of several
domains, e and kappa may run away together, and the gate with them (``docs/measurements/gate.md``)."""
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
_NO_RIVAL = np.float32(-1e9)
_CACHED = 65_536  # numbers of a matrix at a time
_STILL: Doubles = np.array([-30.0, 0.0, 0.0, 0.0, 0.0])


def choose_sharpness(corpus: Corpus, modality: Modality, looked: Sequence[Looked]) -> float:
    """How sharply neighbours are weighed: what serves some pairs best, between and at :data:`SHARPNESSES`.

    Where things look much alike, the nearest pair alone counts: with 5 instead of 20, logos lose 7 points. A cubic
    through the losses says which serves best, since the best of the four would be left to chance.
    """
    lost, at, rng = [], START, np.random.default_rng(0)
    asked = [asked_by(corpus, modality, one, rng) for one in looked]
    drawn = [rng.random(len(one.rows)) for one in looked]
    for sharpness in SHARPNESSES:
        loss = Loss([one.episodes(sharpness) for one in asked], modality, 0.5, drawn, weighted=True)
        at = minimise(loss, at.copy(), _ITERATIONS // 2)  # from the gate before, which is near
        lost.append(loss(at)[0])
    fine = np.linspace(SHARPNESSES[0], SHARPNESSES[-1], 200)
    between = np.polyval(np.polyfit(SHARPNESSES, lost, 3), fine)
    return float(fine[np.argmin(between + PULL_OF_SHARPNESS * (fine - SHARPNESS) ** 2)])


def fit_gates(
    blocks: Sequence[Episodes],
    modality: Modality,
    unanswerable: Sequence[float],
    *,
    rng: np.random.Generator,
    weighted: bool = False,
) -> list[Gate]:
    """Fit the gates of one modality, one for each share of questions without an answer; none where nothing is gained.

    Args:
        blocks: at least two, of other pairs each.
        modality: of the queries.
        unanswerable: each p, in [0, 1]; the first gate says what is gained.
        rng: decides which candidates find their siblings, where texts compete.
        weighted: whether pairs count by their reliability: those that find themselves must.
    """
    drawn, at, gates = [rng.random(len(block)) for block in blocks], START, list[Gate]()
    gain = 0.0
    for share in unanswerable:
        loss = Loss(blocks, modality, share, drawn, weighted)
        at = minimise(loss, at.copy(), _ITERATIONS)  # from the gate before, which is near
        if not gates:
            halves = [Loss(blocks[i::2], modality, share, drawn[i::2], weighted) for i in (0, 1)]
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
    seen = [one for block in loss.features for one, weight in zip(block, weights, strict=True) if weight > _CLIPPED]
    low, high = np.quantile(np.concatenate(seen), (_CLIPPED, 1.0 - _CLIPPED), axis=0)
    phi = np.zeros(FEATURES)
    phi[list(FITTED_FEATURES)] = at[:COEFFICIENTS]
    phi[0] += np.log(kept)
    return Gate(phi, low, high, loss.sharpness, float(at[-1]), gain)


def _gain(halves: Sequence[Loss], at: Doubles) -> float:
    """What a gate of half the blocks saves on the others over not moving, with its own e and kappa, in standard errors.

    Args:
        halves: both halves of the blocks.
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
        weights.append(np.concatenate(unseen.counted))
    each, weight = np.concatenate(saved), np.concatenate(weights) / sum(float(one.sum()) for one in weights)
    mean = float(weight @ each)
    error = float(np.sqrt(np.sum(weight**2 * (each - mean) ** 2)))
    return mean / max(error, 1e-12)


class _Asked(NamedTuple):
    """What n queries found, in rows whose numbers compete: a query's scores; where texts ask, those for one image."""

    weight: float
    used: Doubles  # (n, 5) fitted features of each query
    correlation: Doubles  # (n,) of each query's evidence with its plain scores
    evidence: Matrix  # (n, n)
    plain: Matrix  # (n, n), far below all others where there is no rival
    base: npt.NDArray[np.float32]  # (n,) what a query adds to all its scores


class Loss:
    """The loss of some blocks, and its gradient (7,)."""

    def __init__(
        self,
        blocks: Sequence[Episodes],
        modality: Modality,
        unanswerable: float,
        drawn: Sequence[Doubles],
        weighted: bool,
    ) -> None:
        self._texts, self.sharpness = modality == "text", blocks[0].sharpness
        self.features = [[features(one.signals, b.spread) for one in (b.visible, b.hidden)] for b in blocks]
        self.counted = [b.reliability.astype(np.float64) if weighted else np.ones(len(b)) for b in blocks]
        self._total = sum(float(counted.sum()) for counted in self.counted)
        self._asked = [
            self._of_episodes(block, found, unanswerable, one)
            for block, found, one in zip(blocks, self.features, drawn, strict=True)
        ]

    def _of_episodes(
        self, block: Episodes, found: Sequence[Doubles], unanswerable: float, drawn: Doubles
    ) -> list[_Asked]:
        """Siblings visible, and hidden; beside texts, which compete, a third time: some show them and others do not."""
        both, total = list[_Asked](), 2.0 if self._texts else 1.0
        for episode, of, weight in zip(
            (block.visible, block.hidden), found, (1.0 - unanswerable, unanswerable), strict=True
        ):
            plain, evidence = np.where(episode.out, _NO_RIVAL, episode.plain), episode.evidence
            if self._texts:
                plain, evidence = np.ascontiguousarray(plain.T), np.ascontiguousarray(evidence.T)
            correlation = episode.signals[:, 6].astype(np.float64)
            used = of[:, FITTED_FEATURES]
            both.append(_Asked(weight / total, used, correlation, evidence, plain, episode.base[:, 0]))
        if self._texts:
            shown, (seen, unseen) = drawn < 1.0 - unanswerable, both
            used = np.where(shown[:, None], seen.used, unseen.used)
            correlation = np.where(shown, seen.correlation, unseen.correlation)
            evidence = np.where(shown, seen.evidence, unseen.evidence)
            plain = np.where(shown, seen.plain, unseen.plain)
            both.append(_Asked(1.0 / total, used, correlation, evidence, plain, seen.base))
        return [one for one in both if one.weight > 0.0]

    def __call__(self, at: Doubles) -> tuple[float, Doubles]:
        """Loss and gradient, with the pull towards the start."""
        value, gradient = 0.0, np.zeros(len(START))
        for number in range(len(self._asked)):
            each, slope = self._of_block(number, at)
            value += float(self.counted[number] @ each) / self._total
            gradient += slope
        off = at - START
        scale = np.repeat([PULL / self._total, PULL_OF_LOSS], [COEFFICIENTS, 2])
        return value + float(scale @ off**2), gradient + 2.0 * scale * off

    def of_pairs(self, at: Doubles) -> Doubles:
        """The loss of each pair, block after block."""
        return np.concatenate([self._of_block(number, at)[0] for number in range(len(self._asked))])

    def _of_block(self, number: int, at: Doubles) -> tuple[Doubles, Doubles]:
        """Loss (n,) of each pair, and the gradient (7,)."""
        each, gradient = np.zeros(len(self.counted[number])), np.zeros(len(START))
        for asked in self._asked[number]:
            lost, slope = self._compare(asked, asked.weight * self.counted[number] / self._total, at)
            each += asked.weight * lost
            gradient += slope
        return each, gradient

    def _compare(self, asked: _Asked, counted: Doubles, at: Doubles) -> tuple[Doubles, Doubles]:
        """Loss (n,) of each pair, and the gradient (7,) of their sum, each counted; by rows that a core's cache holds.

        Matrices are float32, sums float64.
        """
        kappa, wrong = np.exp(at[-1]), float(sigmoid(at[-2:-1])[0])
        strength = np.exp(np.clip(asked.used @ at[:COEFFICIENTS], -2.0 * STRONGEST, STRONGEST))
        spread, n = spread_of(strength, asked.correlation), len(strength)
        step, scale = strength.astype(np.float32), (kappa / spread).astype(np.float32)
        shift, ones = np.float32(kappa) * asked.base, np.ones(n, np.float32)
        own, pull = np.empty(n), np.empty(n, np.float32)
        by_evidence, by_plain, by_base = np.zeros((3, n))
        for start in range(0, n, size := max(1, _CACHED // n)):
            rows = slice(start, start + size)
            evidence, plain = asked.evidence[rows], asked.plain[rows]
            p = evidence * (step if self._texts else step[rows, None])
            p += plain
            p *= scale if self._texts else scale[rows, None]
            if self._texts:  # else a query's base changes not its order
                p += shift
            p -= p.max(axis=1, keepdims=True)
            np.exp(p, out=p)
            total = p @ ones
            mine = own[rows] = (p.diagonal(start) / total).astype(np.float64)
            pull[rows] = -counted[rows] * (1.0 - wrong) * mine / ((1.0 - wrong) * mine + wrong / n)
            away = -pull[rows] / total
            if self._texts:
                by_base += away @ p
                by_evidence += away @ (evidence * p)
                p *= plain
                by_plain += away @ p
            else:
                by_evidence[rows] = away * np.matmul(p[:, None], evidence[..., None])[:, 0, 0]
                by_plain[rows] = away * np.matmul(p[:, None], plain[..., None])[:, 0, 0]
        likely = (1.0 - wrong) * own + wrong / n
        by_wrong = -float(counted @ ((1.0 / n - own) / likely)) * wrong * (1.0 - wrong)
        by_evidence += pull * asked.evidence.diagonal()
        by_plain += pull * asked.plain.diagonal()
        by_moved = (by_plain + strength * by_evidence) / spread
        by_strength = by_evidence / spread - by_moved * (strength + asked.correlation) / spread**2
        by_strength[strength >= np.exp(STRONGEST)] = 0.0  # there, it is held
        by_kappa = kappa * (by_moved.sum() + float((by_base + pull) @ asked.base) * self._texts)
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
