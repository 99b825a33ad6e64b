"""Fit the gate on held-out pairs of the memory, without labels.

The loss is the paper's, made deaf to wrong captions: minus the logarithm of ``(1 - e) softmax + e / n`` of the own
value among those of a block. Each pair asks with its siblings visible and hidden, since half of all queries are assumed
to have no answer in the memory. Without the hidden episode the gate trusts everything; without e it grows bolder with
noise. Texts that ask compete for each image.

Four coefficients are fitted, beside kappa, the sharpness of the softmax, which belongs to the loss, by a
quasi-Newton method with a written gradient: the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..machine.blas import Floats
from .episodes import AskedPairs, Asking, FoundPairs
from .evidence import FEATURES, STRONGEST, Doubles, Gate, spread_of
from .state import HALF

START: Doubles = np.array([-2.0, 0.0, 2.0, 0.0, np.log(4.0)])
"""Coefficients of the features, and log kappa: the fit begins here, and is pulled here. Moves are short here: where
pairs say little, since there are few of them or their captions are wrong, a gate stays nearly shut."""
SHARPNESSES: tuple[float, ...] = tuple(np.log([4.0, 9.0, 20.0]).tolist())
"""Of how neighbours are weighed; where things look much alike, the nearest pair alone counts."""
_PULL = 2.0  # towards the start, divided by the number of pairs
_TRIED = 4  # blocks that the sharpness is chosen on
_ITERATIONS, _FEWER = 30, 10
_SETTLED = 2e-5  # loss that one of two iterations must save, else they were the last
_OUT = np.float32(-1e9)
PairBlocks = Sequence[npt.NDArray[np.intp]]
"""Places among the pairs that ask, block by block."""


def fit_gate(
    asking: Asking,
    blocks: PairBlocks,
    wrong: float,
    progress: Callable[[int], object] = int,
) -> Gate:
    """Fit the gate of one modality, at the sharpness that serves the first blocks best.

    Args:
        asking: n pairs.
        blocks: of places among them, each once.
        wrong: e, in [0, 1].
        progress: called with 0 before each step; what it raises ends the fit.
    """

    def fitted(sharpness: float, some: PairBlocks, iterations: int) -> tuple[float, Doubles]:
        loss = Loss(asking.ask(sharpness), some, wrong)

        def watched(at: Doubles) -> tuple[float, Doubles]:
            progress(0)
            return loss(at)

        at = minimise(watched, START.copy(), iterations)
        return loss(at)[0], at

    sharpness = min(SHARPNESSES, key=lambda one: fitted(one, blocks[:_TRIED], _FEWER)[0])
    at = fitted(sharpness, blocks, _ITERATIONS)[1]
    return Gate(at[:FEATURES], sharpness, float(at[-1]))


@dataclass(frozen=True)
class _Episode:
    """What the pairs of one block ask of one another: rows compete, queries or the images for which texts compete."""

    features: Doubles  # (m, 4)
    correlation: Doubles  # (m,)
    evidence: Floats  # (m, m) scores
    out: npt.NDArray[np.bool_]  # (m, m) what is no rival


class Loss:
    """The mean loss of pairs that ask, and its gradient (5,)."""

    def __init__(self, asked: AskedPairs, blocks: PairBlocks, wrong: float) -> None:
        """Put together what the coefficients do not change; arguments as in :func:`fit_gate`."""
        self._texts, self._blocks, self._pairs = asked.modality == "text", blocks, sum(map(len, blocks))
        self._pull, self._wrong = _PULL / self._pairs, wrong
        self._base = asked.base.astype(np.float64)
        self._plain, self._episodes = list[Floats](), list[list[_Episode]]()
        for block in blocks:
            plain = asked.plain(block)
            self._plain.append(plain.T if self._texts else plain)
            self._episodes.append([self._of_found(asked, found, block) for found in asked.both])

    def _of_found(self, asked: AskedPairs, found: FoundPairs, block: npt.NDArray[np.intp]) -> _Episode:
        evidence, out = found.scores(block), asked.out(found, block)
        if self._texts:
            evidence, out = evidence.T, out.T
        return _Episode(found.features[block], found.correlation[block], evidence, out)

    def __call__(self, at: Doubles) -> tuple[float, Doubles]:
        """Loss and gradient, with the pull towards the start."""
        off = at - START
        value, gradient = self._pull * float(off @ off), 2.0 * self._pull * off
        for block, plain, episodes in zip(self._blocks, self._plain, self._episodes, strict=True):
            for one in episodes:
                lost, slope = self._compare(one, plain, block, at)
                value += HALF * float(lost.sum()) / self._pairs
                gradient += HALF * slope
        return value, gradient

    def _compare(
        self, one: _Episode, plain: Floats, block: npt.NDArray[np.intp], at: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Loss (m,) of each row, and the gradient (5,) of their weighted sum; matrices are float32, sums float64."""
        kappa, n = np.exp(at[-1]), len(block)
        strength = np.exp(np.clip(one.features @ at[:FEATURES], -2.0 * STRONGEST, STRONGEST))
        spread, base = spread_of(strength, one.correlation), self._base[block]

        def across(x: Doubles) -> Floats:
            return np.asarray(x[None, :] if self._texts else x[:, None], np.float32)

        moved = plain + one.evidence * across(strength)
        p = moved * across(kappa / spread)
        if self._texts:  # else a query's base does not change its order
            p += across(kappa * base)
        p[one.out] = _OUT
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        right = p.diagonal().astype(np.float64)
        likely = (1.0 - self._wrong) * right + self._wrong / n
        pull = (1.0 - self._wrong) * right / likely / self._pairs
        p *= pull.astype(np.float32)[:, None]  # the slope of the loss by each logit, the own one apart
        p[np.arange(n), np.arange(n)] -= pull.astype(np.float32)
        along = 0 if self._texts else 1  # sums belong to the one that asks
        by_evidence = np.einsum("mw,mw->w" if self._texts else "mw,mw->m", p, one.evidence).astype(np.float64)
        by_moved = np.einsum("mw,mw->w" if self._texts else "mw,mw->m", p, moved).astype(np.float64) / spread
        by_strength = by_evidence / spread - by_moved * (strength + one.correlation) / spread**2
        by_strength[strength >= np.exp(STRONGEST)] = 0.0  # there, it is held
        by_kappa = kappa * float(by_moved.sum() + (p.sum(axis=along) @ base if self._texts else 0.0))
        return -np.log(likely), np.append(kappa * (by_strength * strength) @ one.features, by_kappa)


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
        settled = settled + 1 if value - new < _SETTLED else 0
        x, value, gradient = x + moved, new, slope
        if (curvature := float(moved @ change)) > 1e-10:
            if first:
                inverse = eye * curvature / float(change @ change)
            left = eye - np.outer(moved, change) / curvature
            inverse, first = left @ inverse @ left.T + np.outer(moved, moved) / curvature, False
        if settled > 1 or np.abs(gradient).max() < 1e-5:
            break
    return x
