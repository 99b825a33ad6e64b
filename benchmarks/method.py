"""The method on stored vectors, without an encoder."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from reco_plugin.defaults import DEFAULT_K
from reco_plugin.fusion.exact_scores import ExactScorer
from reco_plugin.fusion.refiner import Refiner, VectorMemory
from reco_plugin.learning.learn import learn
from reco_plugin.memory import open_memory
from reco_plugin.options import RefineDefaults, RefineOptions
from reco_plugin.types import Fingerprint, Modality, Records, Role, Vectors

_AT_ONCE = 128


def unit(x: Any) -> Vectors:
    """Normalize vectors (..., D) to float32."""
    wide = np.asarray(x, np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


def refiner(image: Vectors, text: Vectors, **defaults: Unpack[RefineDefaults]) -> Refiner:
    """Make a refiner that has learned from unit-norm pairs (N, D)."""
    store = open_memory(":memory:", Fingerprint("stored vectors", "0" * 64, image.shape[1]))
    store.upsert(Records([f"{n:07d}" for n in range(len(image))], image, text, [{}] * len(image)))
    return Refiner(VectorMemory(store, learn(store, defaults.get("k") or DEFAULT_K)), None, **defaults)


class Method:
    """Learn from pairs, refine vectors and score them."""

    def __init__(self, **options: Unpack[RefineOptions]) -> None:
        """Take the options of every refinement."""
        self._options = options

    def learn(self, image: Vectors, text: Vectors) -> Refiner:
        """Make a refiner from pairs (N, D)."""
        return refiner(image, text)

    def refine(self, state: Refiner, queries: Vectors, modality: Modality, role: Role) -> Vectors:
        """Refine vectors (B, D); candidates are refined as one set."""
        size = len(queries) if role == "candidate" else _AT_ONCE
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        options = RefineOptions() if role == "candidate" else self._options
        return np.concatenate([state.refine(x, modality=modality, role=role, **options).vectors for x in parts])

    def exact(self, state: Refiner, images: Vectors, texts: Vectors) -> Vectors:
        """Exact scores (B, C) with both sides refined."""
        return ExactScorer(state, texts).score(images).scores
