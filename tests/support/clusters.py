"""Pairs made up like those of a CLIP: groups that share a caption, and a gap between the modalities."""

from __future__ import annotations

import numpy as np

DIM, GROUPS, PER_GROUP = 64, 120, 3


def unit(x):
    """Rows of length 1, float32."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def search(query, keys, k=10):
    """Rows of the k nearest keys of each query, and their cosines."""
    similarity = query @ keys.T
    nearest = np.argsort(-similarity, axis=1)[:, :k]
    return nearest, np.take_along_axis(similarity, nearest, axis=1)


class Clusters:
    """Groups of pairs that share a caption; images and captions lie apart, as behind CLIP's modality gap."""

    def __init__(self, groups=GROUPS, seed=0):
        rng = np.random.default_rng(seed)
        meaning = rng.normal(size=(groups, DIM))
        gap = 6.0 * np.eye(2, DIM)  # one direction for each modality
        self.group = np.repeat(np.arange(groups), PER_GROUP)
        self.caption = unit(meaning + gap[1])
        self._image = lambda: unit(meaning[self.group] + 0.7 * rng.normal(size=(len(self.group), DIM)) + gap[0])
        self.image, self.query = self._image(), self._image()
        self.text = self.caption[self.group]
