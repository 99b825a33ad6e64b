"""The gate: how far a query moves, log-linear in what was found: s = exp(phi . features)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Caution, Modality, Vectors
from .formula import add

FITTED: tuple[Caution, Caution] = ("balanced", "bold")
"""The cautions for which a gate is fitted; others lie between them, or use a share of the first."""
SIGNALS = 8
"""Of a query: CLIP's score of the evidence, the exponential of its mean score of the found pairs themselves, their mean
reliability, best similarity, its distance to the mean, length of the evidence, its correlation with the query, and the
share of the strength that is used."""
FEATURES = 6
FITTED_FEATURES = (0, 1, 2, 4, 5)
"""Those that are fitted; the graph has a place for reliability, too, which weighs the neighbours already."""
CONSTANTS = 3 * FEATURES + 2
SHARPNESS = float(np.log(5.0))
"""Logarithm of how sharply neighbours are weighed, per spread of similarity, where a memory is too small to choose."""
LEAST = 0.3
"""Least of what a logarithm is taken of."""
STRONGEST = 4.0
"""Largest logarithm of the strength."""
RELIABILITY_STEP = 1e-3
"""Added to reliability before its logarithm."""
SHORTEST = 1e-5
"""Length of the evidence at least: below what :func:`.signals.weigh` gives, so that none is divided by zero."""


@dataclass(frozen=True)
class Gate:
    """Coefficients for the queries of one modality.

    Attributes:
        phi: (6,) of the features.
        low, high: (6,) range of each feature in the fit; beyond it, a query is treated as on its edge.
        sharpness: logarithm of tau, which weighs neighbours by exp(tau * (s - s1) / spread).
        temperature: logarithm of kappa, the sharpness of the scores in the fit; :func:`.scores.keep_mass` uses it.
        gain: what the gate saves in loss on held-out pairs, in standard errors.
    """

    phi: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    sharpness: float
    temperature: float
    gain: float = 0.0

    def strength(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Length (B,) of the move, in standard deviations of the query's own scores, from features (B, 6)."""
        logit = np.clip(features, self.low, self.high) @ self.phi
        return np.exp(np.clip(logit, -2.0 * STRONGEST, STRONGEST)).astype(np.float32)

    def between(self, other: Gate, share: float) -> Gate:
        """The gate that lies ``share`` of the way to another."""
        here, there = 1.0 - share, share
        return Gate(
            here * self.phi + there * other.phi,
            here * self.low + there * other.low,
            here * self.high + there * other.high,
            here * self.sharpness + there * other.sharpness,
            here * self.temperature + there * other.temperature,
            min(self.gain, other.gain),
        )

    def equals(self, other: Gate) -> bool:
        """Whether it moves queries as another one does."""
        return np.array_equal(self.constants(1.0, 1.0), other.constants(1.0, 1.0)) and (
            self.sharpness == other.sharpness
        )

    def constants(self, spread: float, unit: float) -> npt.NDArray[np.float32]:
        """(20,) for a row of :func:`step`'s input: phi, low, high, spread of similarity, unit of the scores."""
        return np.concatenate([self.phi, self.low, self.high, [spread, unit]]).astype(np.float32)


PRIOR: Mapping[Modality, Gate] = {
    "image": Gate(
        np.array([-1.21, -1.18, -0.78, 0.0, 0.64, 1.12]),
        np.array([1.0, -0.93, 2.65, -0.05, -3.79, 0.15]),
        np.array([1.0, 1.54, 4.45, 0.0, -1.02, 1.5]),
        SHARPNESS,
        1.19,
    ),
    "text": Gate(
        np.array([-1.0, -0.25, -0.19, 0.0, 2.0, 0.22]),
        np.array([1.0, -1.2, 1.65, -0.08, -2.47, 0.04]),
        np.array([1.0, 1.84, 4.28, 0.0, 0.0, 2.52]),
        SHARPNESS,
        1.22,
    ),
}
"""The gates that a small memory's own are drawn to: safe, not bold.

Median of five fits on ImageNet, halves of it and its dogs (CLIP ViT-B/32); a text's move falls faster with distance,
since most queries are for what a small memory does not hold (``docs/tried.md``).
"""
FALL = 5.0
"""Power by which the strength falls to 0 as the share of queries without an answer grows from that of the balanced gate
to 1. With 3, prompts that a memory of other entities seems to know lose 12 points more
(``docs/tried.md``)."""
TYPICAL = 3.0
"""Power of typicality, see :class:`Applied`. With 2, image queries of domains that CLIP does not know gain 3 points
more, and queries of other domains lose twice as much (``docs/tried.md``)."""
LEVELS = np.linspace(0.0, 0.5, 11)
"""Quantiles of similarity that are kept, up to the median."""


@dataclass(frozen=True)
class Applied:
    """A gate as one request uses it.

    A query of another domain finds neighbours, too, and where the encoder does not know the memory's domain, the gate
    is open. So a query that is less similar to what it finds than half of the memory's pairs are to pairs of other
    captions moves less: by the cube of its rank among them, relative to one half.

    Attributes:
        gate: the gate.
        scale: share of its strength; below 1 where more queries than usual are assumed to have no answer.
        typical: (11,) quantiles of the similarity of a pair to the nearest one of another caption; None: not asked.
        unknown_only: whether only pairs count that CLIP does not know by itself, see :func:`.reliability.unknown`.
    """

    gate: Gate
    scale: float = 1.0
    typical: npt.NDArray[np.float64] | None = None
    unknown_only: bool = False

    def share(self, similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The share (B,) of the strength for the similarity (B,) of the nearest neighbour."""
        if self.typical is None:
            return np.full(len(similarity), self.scale, np.float32)
        rank = np.interp(similarity, self.typical, LEVELS, left=0.0, right=LEVELS[-1]) / LEVELS[-1]
        return np.asarray(self.scale * rank**TYPICAL, np.float32)


def features(signals: npt.NDArray[np.float32], spread: float | npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Features (B, 6) of signals (B, 8): one, three logarithms, and two similarities in spreads (of all, or (B,))."""
    known, own, honest = (signals[:, column].astype(np.float64) for column in range(3))
    columns = [
        np.ones(len(signals)),
        np.log(np.maximum(known, LEAST)),
        np.log(np.maximum(own, LEAST)),
        np.log(honest + RELIABILITY_STEP),
        (signals[:, 3].astype(np.float64) - 1.0) / spread,
        signals[:, 4].astype(np.float64) / spread,
    ]
    return np.stack(columns, axis=1)


def step(
    query: Vectors,
    evidence: Vectors,
    signals: npt.NDArray[np.float32],
    constants: npt.NDArray[np.float32],
) -> tuple[Vectors, npt.NDArray[np.float32]]:
    """Move queries along their evidence.

    Args:
        query: (B, D) unit-norm.
        evidence: (B, D) whitened, from :func:`.signals.weigh`.
        signals: (B, 8).
        constants: (B, 20), each row from :meth:`Gate.constants`; a batch may mix memories.

    Returns:
        Refined vectors (B, D), unit-norm, and the strength (B, 1) with which the evidence was added.
    """
    phi, low, high, spread, unit = np.split(constants, (6, 12, 18, 19), axis=1)
    bounded = np.clip(features(signals, spread[:, 0]), low, high)
    logit = np.clip((bounded * phi).sum(axis=1, keepdims=True), -2.0 * STRONGEST, STRONGEST)
    length: npt.NDArray[np.float32] = np.maximum(signals[:, 5:6], np.float32(SHORTEST))  # numpy's types lose it
    strength = unit * signals[:, 7:8] * np.exp(logit).astype(np.float32) / length
    moved = add(query, evidence, strength)
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-12)), strength
