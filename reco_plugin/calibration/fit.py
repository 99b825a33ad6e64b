"""Fit the gate on held-out pairs of the memory, without labels.

The loss is the paper's, made deaf to wrong captions: minus the logarithm of ``(1 - e) softmax + e / n`` of the own
value among those of all pairs that ask, with e fitted too. Each pair asks with its siblings visible (weight 1 - p) and
hidden (weight p), where p is the assumed share of queries that the memory cannot answer. Without the hidden episode the
gate trusts everything; without e it grows bolder with noise.

A quasi-Newton method on nine parameters, with a written gradient: no torch, the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .episodes import Episode, Episodes
from .gate import FEATURES, LEAST, STRONGEST, Gate, features
from .reliability import sigmoid
from .signals import share

Doubles = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
START: Doubles = np.array([-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.log(3.0), 1.0, -2.0])
"""phi, log tau, log kappa, logit of e; phi and tau are drawn towards these."""
_SHRINKAGE = 2.0  # of that pull, per pair
_ITERATIONS = 40
_CLIPPED = 0.02  # of each feature, at both ends


@dataclass(frozen=True)
class Moved:
    """What the gate makes of an episode, and the derivatives by log tau (phi enters the strength alone)."""

    features: Doubles  # (n, 6)
    strength: Doubles  # (n,)
    inside: npt.NDArray[np.bool_]  # (n,) whether the strength is not clipped
    correlation: Doubles  # (n,)
    length: Doubles  # (n,) of query plus evidence, in standard deviations
    shares: Doubles  # (n, K) over the length of the evidence
    d_strength: Doubles
    d_shares: Doubles
    d_correlation: Doubles


def fit_gates(
    episodes: Episodes,
    modality: Modality,
    unanswerable: Sequence[float],
    *,
    rng: np.random.Generator,
    weighted: bool = False,
) -> list[Gate]:
    """Fit the gates of one modality, one for each share of questions without an answer.

    Args:
        episodes: of its pairs.
        modality: of the queries.
        unanswerable: each p, in [0, 1]; the first gate says what it gains.
        rng: decides which candidates find their siblings, where texts compete.
        weighted: whether pairs count by their reliability: those that find themselves must.
    """
    drawn, fitted, gates = rng.random(len(episodes)), START.copy(), list[Gate]()
    for share_ in unanswerable:
        loss = _Loss(episodes, modality, share_, drawn < 1.0 - share_, weighted)
        fitted = minimise(loss, fitted, _ITERATIONS)  # from the gate before, which is near
        seen = [
            move(episode, fitted, episodes).features
            for episode, weight in zip(loss.episodes, (1.0 - share_, share_), strict=True)
            if weight > _CLIPPED
        ]
        low, high = np.quantile(np.concatenate(seen), (_CLIPPED, 1.0 - _CLIPPED), axis=0)
        gain = gates[0].gain if gates else loss.gain(fitted)
        gates.append(Gate(fitted[:FEATURES], low, high, float(fitted[6]), float(fitted[7]), gain))
    return gates


class _Loss:
    """The loss and its gradient (9,)."""

    def __init__(
        self,
        episodes: Episodes,
        modality: Modality,
        unanswerable: float,
        shown: npt.NDArray[np.bool_],
        weighted: bool,
    ) -> None:
        self.episodes = (episodes.visible, episodes.hidden)
        self._of, self._texts = episodes, modality == "text"
        # Texts compete as candidates: the third term shows some their siblings and not others.
        self._terms: list[tuple[float, int | npt.NDArray[np.bool_]]] = [(1.0 - unanswerable, 0), (unanswerable, 1)]
        if self._texts:
            self._terms.append((1.0, shown))
        counted = episodes.reliability.astype(np.float64) if weighted else np.ones(len(episodes))
        self._row = counted / counted.sum()  # (n,)

    def __call__(self, at: Doubles) -> tuple[float, Doubles]:
        """Loss and gradient, with the pull towards the start."""
        value, gradient, _ = self._evaluate(at)
        pull = at - START
        pull[7:] = 0.0
        scale = _SHRINKAGE / len(self._of)
        return value + scale * float(pull @ pull), gradient + 2.0 * scale * pull

    def gain(self, fitted: Doubles) -> float:
        """What the gate saves over not moving at all, with temperature and e of its own, in standard errors."""

        def still(tail: Doubles) -> Doubles:
            return np.concatenate([[-30.0], np.zeros(FEATURES - 1), [fitted[6]], tail])

        def plain(tail: Doubles) -> tuple[float, Doubles]:
            value, gradient, _ = self._evaluate(still(tail))
            return value, gradient[7:]

        tail = minimise(plain, fitted[7:].copy(), _ITERATIONS // 2)
        saved = self._evaluate(still(tail))[2] - self._evaluate(fitted)[2]
        mean = float(self._row @ saved)
        error = float(np.sqrt(np.sum(self._row**2 * (saved - mean) ** 2)))
        return mean / max(error, 1e-12)

    def _evaluate(self, at: Doubles) -> tuple[float, Doubles, Doubles]:
        """Loss, gradient (9,), and the loss of each pair (n,); matrices (n, n) are float32, sums float64."""
        kappa = np.float32(np.exp(at[7]))
        moved = [move(episode, at, self._of) for episode in self.episodes]
        evidence, d_evidence, cores, logits = [], [], [], []
        for episode, m in zip(self.episodes, moved, strict=True):
            x = np.matmul(m.shares[:, None].astype(np.float32), episode.scores)[:, 0]
            strength, length = (part.astype(np.float32)[:, None] for part in (m.strength, m.length))
            core = (episode.frozen + strength * x) / length
            logit = kappa * (core + episode.base)
            logit[episode.out] = -1e9
            evidence.append(x)
            d_evidence.append(np.matmul(m.d_shares[:, None].astype(np.float32), episode.scores)[:, 0])
            cores.append(core)
            logits.append(logit)
        value, d_lost, each, back = self._compare(logits, float(sigmoid(at[8:9])[0]))
        gradient = np.zeros(9)
        gradient[8] = d_lost
        for i, episode in enumerate(self.episodes):
            back[i][episode.out] = 0.0
            gradient[:8] += _backward(back[i], episode, moved[i], cores[i], evidence[i], d_evidence[i], kappa)
        return value, gradient, each

    def _compare(self, logits: list[Matrix], lost: float) -> tuple[float, float, Doubles, list[Matrix]]:
        """Loss, its derivative by the logit of e, the loss of each pair (n,), and by the logits, two (n, n)."""
        n, diagonal = len(self._of), np.arange(len(self._of))
        value, d_lost, each = 0.0, 0.0, np.zeros(n)
        back = [np.zeros_like(logits[0]), np.zeros_like(logits[1])]
        total = sum(weight for weight, _ in self._terms)
        for weight, shown in self._terms:
            z = logits[shown] if isinstance(shown, int) else np.where(shown[:, None], logits[0], logits[1])
            z = z.T if self._texts else z
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            own = p[diagonal, diagonal].astype(np.float64)
            likely = (1.0 - lost) * own + lost / n
            rows = weight / total * self._row
            value -= float(rows @ np.log(likely))
            each -= weight / total * np.log(likely)
            d_lost -= float(rows @ ((1.0 / n - own) / likely)) * lost * (1.0 - lost)
            pull = (-rows * (1.0 - lost) * own / likely).astype(np.float32)
            p *= -pull[:, None]
            p[diagonal, diagonal] += pull
            d = p.T if self._texts else p
            if isinstance(shown, int):
                back[shown] += d
            else:
                back[0] += d * shown[:, None]
                back[1] += d * ~shown[:, None]
        return value, d_lost, each, back


def _backward(
    d: Matrix, episode: Episode, m: Moved, core: Matrix, evidence: Matrix, d_evidence: Matrix, kappa: np.float32
) -> Doubles:
    """Gradient (8,) of phi, log tau and log kappa from that of the logits, d (n, n)."""
    gradient = np.zeros(8)
    by_core, by_evidence, by_weights = (
        np.einsum("ij,ij->i", d, x).astype(np.float64) for x in (core, evidence, d_evidence)
    )
    strength, length = m.strength, m.length
    by_strength = kappa * (by_evidence / length - by_core * (strength + m.correlation) / length**2)
    gradient[:6] = (by_strength * strength * m.inside) @ m.features
    gradient[6] = (
        (by_strength * m.d_strength).sum()
        + kappa * (strength / length * by_weights).sum()
        - (kappa * by_core * strength * m.d_correlation / length**2).sum()
    )
    gradient[7] = kappa * (by_core.sum() + float(d.sum(axis=1, dtype=np.float64) @ episode.base[:, 0]))
    return gradient


def move(episode: Episode, at: Doubles, of: Episodes, bounds: tuple[Doubles, Doubles] | None = None) -> Moved:
    """Apply a gate to an episode: phi and log tau (7 or more numbers), and the range of its features."""
    phi, sharpness, own = at[:FEATURES], float(at[6]), of.length
    w, honest = share(episode.similarity, episode.reliability, episode.found, sharpness, of.spread)
    z = np.exp(sharpness) * (episode.similarity - episode.similarity[:, :1]).astype(np.float64) / of.spread
    dw = w * (z - (w * z).sum(axis=1, keepdims=True))
    near = np.exp(np.minimum(z, 0.0)) * episode.found
    near /= np.maximum(near.sum(axis=1, keepdims=True), 1e-6)
    d_honest = (near * (z - (near * z).sum(axis=1, keepdims=True)) * episode.reliability).sum(axis=1)
    gw, d_gw = _times(episode.gram, w), _times(episode.gram, dw)
    full, d_full = (w * gw).sum(axis=1, keepdims=True), 2.0 * (dw * gw).sum(axis=1, keepdims=True)
    rest = full - 2.0 * w * gw + w * w * own
    d_rest = np.where(rest > 1e-6, d_full - 2.0 * (dw * gw + w * d_gw) + 2.0 * w * dw * own, 0.0)
    rest = np.maximum(rest, 1e-6)
    toward, d_toward = gw - w * own, d_gw - dw * own
    each = toward / np.sqrt(rest)
    d_each = d_toward / np.sqrt(rest) - 0.5 * toward * d_rest / rest**1.5
    known, agreed, most = (w * episode.plain).sum(axis=1), (w * each).sum(axis=1), own**0.5
    d_known = np.where(known > LEAST, (dw * episode.plain).sum(axis=1), 0.0)
    d_agreed = np.where((agreed > LEAST) & (agreed < most), (dw * each + w * d_each).sum(axis=1), 0.0)
    agreed = np.minimum(agreed, most)
    nw = _times(episode.spread, w)
    length = np.sqrt(np.maximum((w * nw).sum(axis=1), 1e-9))
    d_length = (dw * nw).sum(axis=1) / length
    correlation = (w * episode.toward).sum(axis=1) / length
    d_correlation = (dw * episode.toward).sum(axis=1) / length - correlation * d_length / length
    best = episode.similarity[:, 0]
    around = (episode.similarity * episode.found).sum(axis=1) / np.maximum(episode.found.sum(axis=1), 1)
    found = features(np.stack([known, agreed, honest, best, best - around], axis=1), of.spread)
    slope = phi[1] * d_known / np.maximum(known, LEAST) + phi[2] * d_agreed / np.maximum(agreed, LEAST)
    slope = slope + phi[3] * d_honest / (honest + 1e-3)
    logit = (found if bounds is None else np.clip(found, *bounds)) @ phi
    strength = np.exp(np.clip(logit, -2.0 * STRONGEST, STRONGEST))
    inside = (logit > -2.0 * STRONGEST) & (logit < STRONGEST)
    shares, d_shares = w / length[:, None], dw / length[:, None]
    return Moved(
        features=found,
        strength=strength,
        inside=inside,
        correlation=correlation,
        length=np.sqrt(np.maximum(1.0 + strength**2 + 2.0 * strength * correlation, 1e-6)),
        shares=shares,
        d_strength=strength * inside * slope,
        d_shares=d_shares - shares * (d_length / length)[:, None],
        d_correlation=d_correlation,
    )


def _times(matrices: npt.NDArray[np.float32], x: Doubles) -> Doubles:
    """Products (n, K) of matrices (n, K, K) with rows (n, K)."""
    return np.asarray(np.matmul(matrices, x[:, :, None])[:, :, 0])


def minimise(fun: Callable[[Doubles], tuple[float, Doubles]], x: Doubles, iterations: int) -> Doubles:
    """Minimise a smooth function of a few parameters by BFGS with backtracking.

    Args:
        fun: value and gradient.
        x: where to start, (P,).
        iterations: at most.
    """
    value, gradient = fun(x)
    scale, eye = min(1.0, 1.0 / max(float(np.linalg.norm(gradient)), 1e-9)), np.eye(len(x))
    inverse, first = eye * scale, True
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
        settled = value - new < 1e-6 and np.abs(slope).max() < 1e-3
        x, value, gradient = x + moved, new, slope
        if (curvature := float(moved @ change)) > 1e-10:
            if first:
                inverse = eye * curvature / float(change @ change)
            left = eye - np.outer(moved, change) / curvature
            inverse, first = left @ inverse @ left.T + np.outer(moved, moved) / curvature, False
        if settled or np.abs(gradient).max() < 1e-5:
            break
    return x
