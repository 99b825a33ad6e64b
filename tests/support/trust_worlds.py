"""Pairs made up like those of a CLIP: the encoder knows something of each, captions repeat, some are wrong."""

from __future__ import annotations

import numpy as np

from reco_plugin.learning.corpus import Corpus, measure_corpus
from reco_plugin.types import Vectors

D = 48


def unit(x: np.ndarray) -> Vectors:
    """Rows of length 1."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


def world(classes: int, per: int, *, wrong: float = 0.0, seed: int = 0) -> tuple[Vectors, Vectors, np.ndarray]:
    """Images and captions (N, D) of some classes, and which captions are wrong (N,)."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(classes, D))
    shown = meaning + 0.8 * rng.normal(size=(classes, D))  # what the encoder does not know of a class
    label = np.repeat(np.arange(classes), per)
    gap = 5.0 * np.eye(2, D)
    image = unit(shown[label] + 0.6 * rng.normal(size=(len(label), D)) + gap[0])
    text = unit(meaning[label] + 0.02 * rng.normal(size=(len(label), D)) + gap[1])
    bad = rng.random(len(label)) < wrong
    rows = np.flatnonzero(bad)
    text[rows] = text[np.roll(rows, max(1, len(rows) // 3))]
    return image, text, bad


def measured(image: Vectors, text: Vectors) -> Corpus:
    """A corpus of pairs."""
    corpus = measure_corpus(image, text, k=10, rng=np.random.default_rng(0))
    assert corpus is not None
    return corpus
