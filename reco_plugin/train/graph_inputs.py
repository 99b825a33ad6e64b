"""Made-up inputs of the graphs that refine, by which graphs are compared and timed; without torch."""

from __future__ import annotations

import numpy as np

from ..calibration.gate import PRIOR, SIGNALS
from ..sessions.base import Arrays
from ..types import MODALITIES


def step_inputs(dimension: int, batch: int = 64, seed: int = 0) -> Arrays:
    """Make inputs of the closed form's step for gates of both modalities; every eighth row has found nothing."""
    rng = np.random.default_rng(seed)
    query, evidence = rng.normal(size=(2, batch, dimension))
    least = [0.0, 1.0, 0.0, 0.7, 0.0, 0.3, -0.5, 0.0]  # within the gates' ranges, and beyond both ends
    signals = rng.uniform(least, [6.0, 5.0, 1.0, 1.0, 0.3, 1.5, 0.9, 1.0], size=(batch, SIGNALS))
    signals[:, 1] = np.exp(signals[:, 1])  # as the neighbours' own scores come
    evidence[::8], signals[::8] = 0.0, 0.0
    rows = [PRIOR[side].constants(0.06, 0.05) for side in MODALITIES]
    return {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "evidence": evidence.astype(np.float32),
        "signals": signals.astype(np.float32),
        "constants": np.stack([rows[row % 2] for row in range(batch)]),
    }


def fusion_inputs(dimension: int, batch: int = 64, k: int = 6) -> Arrays:
    """Make fusion inputs as from a search: near neighbours, some absent, some without trust, one row without any."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(batch, dimension))
    near = query[:, None] + rng.normal(size=(batch, k, dimension))
    trust = rng.choice([0.0, 0.3, 1.0], size=(batch, k))
    trust[0] = 0.0
    return {
        "query": (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32),
        "neighbours": (near / np.linalg.norm(near, axis=-1, keepdims=True)).astype(np.float32),
        "similarity": rng.uniform(0.2, 1.0, size=(batch, k)).astype(np.float32),
        "trust": trust.astype(np.float32),
    }
