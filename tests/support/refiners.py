"""A refiner of pairs of vectors, without a model folder: an exact memory in RAM, calibrated on all of its pairs."""

from __future__ import annotations

from reco_plugin.defaults import DEFAULT_K
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.learning.learn import learn
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records


def refiner_for_vectors(pairs: Records, k: int = DEFAULT_K) -> Refiner:
    store = open_memory(":memory:", Fingerprint("vectors of a test", "0" * 64, pairs.image.shape[1]))
    store.upsert(pairs)
    return Refiner(VectorMemory(store, learn(store, k)), None, k=k)
