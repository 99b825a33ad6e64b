"""How a query moves: ``z = (z_clip + s z_memory) / sqrt(1 + s^2 + 2 s rho)``.

z_clip are its plain scores, in the mean standard deviation that queries' scores have over the memory's values, z_memory
those of its evidence, in their own; rho is their correlation, s the strength. Scores are linear in vectors, so the same
sum moves a vector, too. It is written for numpy and for torch, so that the fit, the step, its graph, exact scores and
the self-check share it.
"""

from __future__ import annotations

from typing import Any


def add(plain: Any, memory: Any, strength: Any) -> Any:
    """Scores, or vectors, with what the memory adds: the numerator."""
    return plain + strength * memory


def spread_of(strength: Any, correlation: Any) -> Any:
    """Standard deviation of the sum, for a query whose scores deviate as those of queries do: the denominator."""
    return (1.0 + strength * strength + 2.0 * strength * correlation).clip(1e-6) ** 0.5


def move(plain: Any, memory: Any, strength: Any, correlation: Any) -> Any:
    """Scores after the move, with the spread of plain ones."""
    return add(plain, memory, strength) / spread_of(strength, correlation)
