"""Pairs of vectors that lie as CLIP's do, as many as you like, any part of them at once.

Constants are fitted to OpenAI's ViT-B/32: a cone for each modality (the modality gap), most variance in few directions,
families of clusters of unequal tightness, a caption that knows a little of its image. Cluster sizes follow a power law.
Row i is the same whatever else is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from reco_plugin.types import MODALITIES, Modality, Records, Vectors

BLOCK = 1000
"""Rows that are drawn together."""
_CONE: dict[Modality, float] = {"image": 0.70, "text": 0.78}  # length of a modality's mean
_ACROSS = 0.19  # mean cosine of an image and a text
_AGREE = 0.36  # cosine of a pair's image and text, each without its mean
_FAMILIES, _CLUSTERS = 60, 1000  # at least; more clusters where there are more pairs
_PAIRS_PER_CLUSTER = 100
_SHARES = (0.20, 0.20, 0.60)  # of the variance: between families, between clusters of one, within a cluster
_UNEQUAL = 0.45  # spread of the logarithm of a cluster's width
_POWER = 1.0  # the r-th largest cluster has r**-_POWER of the largest one's pairs
_Rng = np.random.Generator
_Latent = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Synthetic:
    """A catalogue of vectors.

    Attributes:
        pairs: N, which also decides how many clusters there are.
        dimension: D, at least 8.
        seed: another one, another catalogue.
    """

    pairs: int
    dimension: int = 512
    seed: int = 0

    def records(self, start: int, stop: int) -> Iterator[Records]:
        """Rows of it, in blocks of at most 1000; an id is ``pair-000000017``, a payload tells row and cluster."""
        for first in range(start - start % BLOCK, stop, BLOCK):
            rows = range(max(first, start), min(first + BLOCK, stop))
            keep = slice(rows.start - first, rows.stop - first)
            rng = self._rng(2, first // BLOCK)
            cluster = rng.choice(len(self._weights), BLOCK, p=self._weights)
            sides = {m: side[keep] for m, side in self._draw(cluster, rng).items()}
            payloads = [
                {"row": row, "cluster": int(c), "caption": f"a caption of about sixty-four characters, entry {row:12d}"}
                for row, c in zip(rows, cluster[keep], strict=True)
            ]
            yield Records([f"pair-{row:09d}" for row in rows], sides["image"], sides["text"], payloads)

    def queries(self, count: int) -> Records:
        """Pairs from the same clusters that the catalogue does not hold."""
        first = -(-self.pairs // BLOCK) * BLOCK
        return Records.join(list(self.records(first, first + count)), self.dimension)

    def _rng(self, *purpose: int) -> _Rng:
        return np.random.default_rng([self.seed, self.dimension, *purpose])

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        size = np.arange(1, max(_CLUSTERS, self.pairs // _PAIRS_PER_CLUSTER) + 1) ** -_POWER
        return np.asarray(size / size.sum(), np.float64)

    @cached_property
    def _basis(self) -> _Latent:
        """Orthogonal directions (D, D), the r-th as long as the root of its share of the variance."""
        rank = np.arange(1, self.dimension + 1)
        share = (rank + 1.0) ** -0.6 * np.exp(-rank / 190)
        turn, _ = np.linalg.qr(self._rng(0).normal(size=(self.dimension, self.dimension)))
        return np.asarray(np.sqrt(share / share.sum())[:, None] * turn, np.float32)

    @cached_property
    def _cones(self) -> dict[Modality, _Latent]:
        one, other = np.linalg.qr(self._rng(1).normal(size=(self.dimension, 2)))[0].T
        cosine = _ACROSS / (_CONE["image"] * _CONE["text"])
        directions = {"image": one, "text": cosine * one + np.sqrt(1 - cosine**2) * other}
        return {m: np.asarray(_CONE[m] * directions[m], np.float32) for m in MODALITIES}

    @cached_property
    def _centres(self) -> dict[Modality, _Latent]:
        """Centres (C, D) of the clusters, before the directions get their lengths."""
        rng, count = self._rng(4), len(self._weights)
        family = rng.choice(_FAMILIES, count, p=_zipf(_FAMILIES))
        between, within = np.sqrt(_SHARES[:2])
        normal = {m: between * _normal(rng, _FAMILIES, self.dimension)[family] for m in MODALITIES}
        return {m: part + within * _normal(rng, count, self.dimension) for m, part in normal.items()}

    @cached_property
    def _widths(self) -> npt.NDArray[np.float32]:
        spread = self._rng(5).normal(scale=_UNEQUAL, size=len(self._weights))
        return np.asarray(np.sqrt(_SHARES[2]) * np.exp(spread - _UNEQUAL**2), np.float32)

    def _draw(self, cluster: npt.NDArray[np.int64], rng: _Rng) -> dict[Modality, Vectors]:
        own = {
            m: self._centres[m][cluster] + self._widths[cluster, None] * _normal(rng, len(cluster), self.dimension)
            for m in MODALITIES
        }
        latent = {"image": own["image"], "text": _AGREE * own["image"] + np.sqrt(1 - _AGREE**2) * own["text"]}
        return {m: self._placed(np.asarray(latent[m], np.float32), m) for m in MODALITIES}

    def _placed(self, latent: _Latent, modality: Modality) -> Vectors:
        spread = np.float32(np.sqrt(1 - _CONE[modality] ** 2))
        vectors = self._cones[modality] + spread * (latent @ self._basis)  # (N, D)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _normal(rng: _Rng, rows: int, columns: int) -> _Latent:
    return rng.standard_normal((rows, columns), np.float32)


def _zipf(count: int) -> npt.NDArray[np.float64]:
    share = 1 / np.arange(1, count + 1)
    return np.asarray(share / share.sum(), np.float64)
