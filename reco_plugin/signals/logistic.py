"""Logistic regression of a few signals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_STEPS = 50  # of Newton's method, at most


def fit_logistic(
    signals: npt.NDArray[np.float32], yes: npt.NDArray[np.bool_] | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weights of S signals, and a constant (S + 1,), of a logistic regression of (M,) on (M, S), by Newton's method."""
    centre, scale = signals.mean(axis=0), signals.std(axis=0) + 1e-6
    x = np.column_stack([(signals - centre) / scale, np.ones(len(signals))]).astype(np.float64)
    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        chance = sigmoid(x @ w)
        gradient = x.T @ (chance - yes) + w
        curve = (x * (chance * (1.0 - chance))[:, None]).T @ x + np.eye(len(w))
        step = np.linalg.solve(curve, gradient)
        w = w - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-9))
        if np.abs(step).max() < 1e-8:
            break
    raw = w[:-1] / scale
    return np.append(raw, w[-1] - raw @ centre)


def chance_of(signals: npt.NDArray[np.float32], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (B,) by what :func:`fit_logistic` learned, of signals (B, S)."""
    return sigmoid(signals @ weights[:-1] + weights[-1])


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logistic function, of any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))))
