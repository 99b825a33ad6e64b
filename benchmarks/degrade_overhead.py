"""What guards and deadline add to a refinement: CPU time, guarded against bare, as ratios.

::

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.degrade_overhead
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.counters import Counters
from reco_plugin.degrade import Degrading
from reco_plugin.fuse import Fuser, open_fusers
from reco_plugin.memory import open_memory
from reco_plugin.refine import Refiner, Trusted, VectorMemory
from reco_plugin.retrieve import Retrieval
from reco_plugin.types import FuserName, Records, Vectors

PAIRS, ROUNDS = 1000, 5
CALLS = {1: 400, 32: 100, 512: 10}  # batch -> calls per round


def main() -> None:
    """Print one row per batch size."""
    settings = load_settings(threads=1)
    artifact = Artifact.load(settings.model)
    rng, dimension = np.random.default_rng(0), artifact.manifest.dimension
    store = open_memory(":memory:", artifact.manifest.fingerprint, kind="exact")
    image, text = (unit(rng, PAIRS, dimension) for _ in range(2))
    store.upsert(Records([str(row) for row in range(PAIRS)], image, text, [{}] * PAIRS))
    fusers, how = open_fusers(artifact, settings), Retrieval(artifact.manifest.policy.k)

    def refiner(pairs: Trusted, fusers: Mapping[FuserName, Fuser]) -> Refiner:
        # Not the closed form, which crosses no guard but the memory's.
        return Refiner(pairs, fusers, how, gate=False, fuser="paper")

    bare = refiner(VectorMemory(store, None), fusers)
    guarded = Degrading(VectorMemory(store, None), fusers, refiner, settings, Counters())
    served = settings.model_copy(update={"memory": "http://in-truth-in-ram"})  # asked in a thread, within a deadline
    threaded = Degrading(VectorMemory(store, None), fusers, refiner, served, Counters())
    print("| batch | refiner alone, µs | guarded | guarded, in a thread | texts encoded and refined, guarded |")
    print("|---|---|---|---|---|")
    with Reco.open(memory=":memory:", threads=1) as reco:
        for batch, calls in CALLS.items():
            queries, texts = unit(rng, batch, dimension), [f"a red circle number {row}" for row in range(batch)]
            alone, *others, encoding = fastest_medians(
                calls,
                partial(bare.refine, queries, modality="text"),
                partial(guarded.refine, queries, modality="text"),
                partial(threaded.refine, queries, modality="text"),
                partial(reco.encoder.texts, texts),
            )
            ratios = [*(other / alone for other in others), (encoding + others[0]) / (encoding + alone)]
            print(f"| {batch} | {alone * 1e6:,.0f} | " + " | ".join(f"× {ratio:.2f}" for ratio in ratios) + " |")


def fastest_medians(calls: int, *actions: Callable[[], object]) -> list[float]:
    """Seconds of CPU per call of each action: the least of the rounds' medians, the actions taking turns."""
    rounds = [[median_s(calls, action) for action in actions] for _ in range(ROUNDS)]
    return [min(column) for column in zip(*rounds, strict=True)]


def median_s(calls: int, action: Callable[[], object]) -> float:
    """Median seconds of CPU per call."""
    times = []
    for _ in range(calls):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return statistics.median(times)


def unit(rng: np.random.Generator, rows: int, dimension: int) -> Vectors:
    """Random directions."""
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    norms: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / norms


if __name__ == "__main__":
    main()
