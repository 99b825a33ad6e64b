"""The gate: how far a query moves, log-linear in six features of what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from ..types import Caution, Vectors

CAUTIONS: tuple[Caution, ...] = get_args(Caution)
SIGNALS = 7
"""Of a query: knowledge A, agreement B, mean honesty, best similarity, its distance to the mean, length of the
evidence, its correlation with the query."""
FEATURES = 6
CONSTANTS = 3 * FEATURES + 2
LEAST = 0.3
"""A and B in standard deviations below which a difference means nothing; .1 to .5 give the same gains to .1."""
STRONGEST = 4.0
"""Largest logarithm of the strength."""
HONESTY_STEP = 1e-3
"""Added to honesty before its logarithm."""
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

    def constants(self, spread: float, unit: float) -> npt.NDArray[np.float32]:
        """(20,) for a row of the graph's input: phi, low, high, spread of similarity, unit of the scores."""
        return np.concatenate([self.phi, self.low, self.high, [spread, unit]]).astype(np.float32)


def features(signals: npt.NDArray[np.float32], spread: float | npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Features (B, 6) of signals (B, 7): one, three logarithms, and two similarities in spreads (of all, or (B,))."""
    known, agreed, honest = (signals[:, column].astype(np.float64) for column in range(3))
    columns = [
        np.ones(len(signals)),
        np.log(np.maximum(known, LEAST)),
        np.log(np.maximum(agreed, LEAST)),
        np.log(honest + HONESTY_STEP),
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
    """Move queries along their evidence; the same as the graph ``reco_image`` or ``reco_text``, in numpy.

    Args:
        query: (B, D) unit-norm.
        evidence: (B, D) whitened, from :func:`.signals.weigh`.
        signals: (B, 7).
        constants: (B, 20), each row from :meth:`Gate.constants`; a batch may mix memories.

    Returns:
        Refined vectors (B, D), unit-norm, and the strength (B, 1) with which the evidence was added.
    """
    phi, low, high, spread, unit = np.split(constants, (6, 12, 18, 19), axis=1)
    bounded = np.clip(features(signals, spread[:, 0]), low, high)
    logit = np.clip((bounded * phi).sum(axis=1, keepdims=True), -2.0 * STRONGEST, STRONGEST)
    strength = unit * np.exp(logit).astype(np.float32) / np.maximum(signals[:, 5:6], np.float32(SHORTEST))
    moved = query + strength * evidence
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-12)), strength
