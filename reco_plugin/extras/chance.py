"""A probability by a weighted sum of signals: logistic regression, as presence and confidence learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..calibration.reliability import logistic, sigmoid

Chances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chance:
    """Weights (S + 1,) of S signals; the last is a constant."""

    weights: Chances

    def of(self, signals: npt.NDArray[np.float32]) -> Chances:
        """Probabilities (B,) of signals (B, S)."""
        return sigmoid(signals @ self.weights[:-1] + self.weights[-1])

    @classmethod
    def fit(cls, signals: npt.NDArray[np.float32], yes: npt.NDArray[np.bool_]) -> Chance:
        """Learn from signals (M, S) and what is true of them (M,); a signal that never changes counts for nothing."""
        mean, scale = signals.mean(axis=0, dtype=np.float64), signals.std(axis=0, dtype=np.float64)
        scale = np.where(scale > 1e-9, scale, np.inf)
        x = np.column_stack([(signals - mean) / scale, np.ones(len(signals))])
        ridge = np.append(np.ones(len(mean)), 1e-3)  # hardly any on the constant
        fitted = logistic(x, yes, np.ones(len(x)), ridge)
        weights = fitted[:-1] / scale
        return cls(np.append(weights, fitted[-1] - weights @ mean))

    @classmethod
    def read(cls, stored: Sequence[float], signals: int) -> Chance:
        """From JSON.

        Raises:
            ValueError: it is not of so many signals, or holds no finite numbers.
        """
        weights = np.asarray(stored, np.float64)
        if weights.shape != (signals + 1,) or not np.isfinite(weights).all():
            raise ValueError(f"weights of shape {weights.shape}")
        return cls(weights)
