"""``python -m benchmarks.nulls [DRAWS]``: the share of false gains for each kind of null difference."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from reco_plugin.evaluation.statistics import compare_pairs

Drawn = tuple[np.ndarray, np.ndarray | None]
Rng = np.random.Generator


def skewed(rng: Rng, queries: int, drops: float, fall: float, noise: float = 0.0) -> Drawn:
    """Many small gains and a few large losses with a mean of 0."""
    fell = rng.random(queries) < drops
    return np.where(fell, -fall, fall * drops / (1 - drops)) + noise * rng.normal(size=queries), None


def sparse(rng: Rng, queries: int, changed: float) -> Drawn:
    """Few queries change, in both directions."""
    sign = rng.choice([-1, 0, 1], queries, p=[changed / 2, 1 - changed, changed / 2])
    return sign * rng.uniform(0.1, 0.6, queries), None


def clustered(rng: Rng, groups: int, each: int, even: bool = True) -> Drawn:
    """Queries of a group share most of their change; the mean over groups is 0."""
    share = np.ones(groups) if even else 1 / np.arange(1, groups + 1)
    group = rng.choice(groups, groups * each, p=share / share.sum())
    return rng.normal(0, 0.2, groups)[group] + rng.normal(0, 0.1, len(group)), group


NULLS: dict[str, Callable[[Rng], Drawn]] = {
    "equal weights, 100 queries": lambda rng: (rng.normal(0, 0.2, 100), None),
    "equal weights, 1,000 queries": lambda rng: (rng.normal(0, 0.2, 1000), None),
    "skewed, few queries": lambda rng: skewed(rng, 100, 0.05, 0.4),
    "skewed, rare drops": lambda rng: skewed(rng, 200, 0.02, 0.5),
    "skewed, many queries": lambda rng: skewed(rng, 400, 0.05, 0.4),
    "skewed and noisy": lambda rng: skewed(rng, 100, 0.1, 0.4, 0.02),
    "skewed, exponential": lambda rng: (0.2 - rng.exponential(0.2, 150), None),
    "sparse": lambda rng: sparse(rng, 1000, 0.007),
    "sparse, 30 changed": lambda rng: sparse(rng, 1000, 0.03),
    "tied": lambda rng: (rng.choice([-0.37, 0, 0.37], 200, p=[0.1, 0.8, 0.1]), None),
    "2 groups": lambda rng: clustered(rng, 2, 100),
    "10 groups": lambda rng: clustered(rng, 10, 20),
    "50 groups": lambda rng: clustered(rng, 50, 10),
    "20 uneven groups": lambda rng: clustered(rng, 20, 20, even=False),
}
"""Kind -> differences of queries, and their groups. Search frequencies do not enter the test."""


def main() -> None:
    """Draw each null, and print the share that is called a gain."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for number, (name, make) in enumerate(NULLS.items()):
        found = [compare_pairs(*make(np.random.default_rng([draw, number, 7])), seed=draw) for draw in range(draws)]
        print(f"{name:30} {100 * sum(one.is_gain for one in found) / draws:.2f} %", flush=True)


if __name__ == "__main__":
    main()
