"""Feedback: an answer that people reject counts as a pair with a negative sign.

An opinion joins the vector of a query and that of an answer, of the other modality. Near the query, it speaks against
all pairs with that answer; the pairs that the search found, and opinions that they are right, speak for it. So an
opinion is one voice among those around a query: a false one does little where the memory's own pairs are nearer, and
the same query again is decided by it (``docs/feedback.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..defaults import SAME_IMAGE
from ..types import Modality, Neighbours, Vectors
from ..vectors import Floats

SHARPNESS = 8.0
"""How fast a voice falls with distance, per spread of similarity: exp(8 (s - s1) / spread). With 3, new things lose
twice as much of their gain (``docs/measurements.md``)."""
LOUDNESS = 0.8
"""Of an opinion, beside that of a pair."""
AROUND = 0.05
"""How much an opinion says against other answers than its own, which several before were wrong beside."""
POWER = 2.0
"""What the voices for and against are taken to before they are compared: few voices against many count for little."""
HEARD = 64
"""Opinions that are looked at for a query: the nearest."""
_NUMBERS = 2**23
"""In the block of answers (B, H, D), or of similarities (B, R), that is made at once: 32 MiB."""
LOUDEST = 30.0
"""Largest logarithm of a voice."""
SAME_QUERY = 0.999
"""Cosine from which two queries, and two answers, are taken for the same ones."""


@dataclass(frozen=True)
class Voices:
    """The opinions on queries of one modality: vectors (R, D) of each, and (R,) whether they say right."""

    queries: Vectors
    answers: Vectors
    right: npt.NDArray[np.bool_]


class Feedback:
    """What opinions do to a query's evidence; see :class:`~reco_plugin.learning.extra.HoldsBack`."""

    def __init__(self, sides: Mapping[Modality, Voices]) -> None:
        self._sides = sides

    def keep(
        self, modality: Modality, queries: Vectors, found: Neighbours, spread: float, same_caption: float
    ) -> Floats | None:
        """How much of each pair that was found stays, (B, K) from 0 to 1; None without opinions on this side.

        Args:
            modality: of the queries.
            queries: (B, D) unit-norm.
            found: K neighbours of each, and their vectors of the other modality.
            spread: standard deviation of similarity within the modality.
            same_caption: cosine from which two captions mean the same. Pictures are the same from that of a copy on.
        """
        voices = self._sides.get(modality)
        if voices is None:
            return None
        same = same_caption if modality == "image" else SAME_IMAGE
        opinions = len(voices.queries)
        size = max(1, _NUMBERS // max(opinions, min(opinions, HEARD) * queries.shape[1]))
        kept = [
            _keep(voices, queries[rows], found.similarity[rows], found.vectors[rows], found.found[rows], spread, same)
            for rows in (slice(start, start + size) for start in range(0, max(len(queries), 1), size))
        ]
        return np.concatenate(kept)

    def refused(self, modality: Modality, queries: Vectors) -> npt.NDArray[np.bool_] | None:
        """Which queries (B, D) somebody rejected an answer for; None without opinions on this side."""
        voices = self._sides.get(modality)
        if voices is None:
            return None
        return np.asarray((queries @ voices.queries[~voices.right].T >= SAME_QUERY).any(axis=1))


def _keep(
    voices: Voices,
    queries: Vectors,
    similarity: Floats,
    vectors: Vectors,
    there: npt.NDArray[np.bool_],
    spread: float,
    same: float,
) -> Floats:
    """See :meth:`Feedback.keep`, of a block: (B, K) of queries (B, D), by similarity, vectors (B, K, D) and found."""
    best, nothing = similarity[:, :1], np.float32(0.0)
    near = queries @ voices.queries.T  # (B, R)
    rows = np.argsort(-near, axis=1)[:, :HEARD]
    nearest = np.take_along_axis(near, rows, axis=1)  # (B, H)
    voice = np.float32(LOUDNESS) * _voice(nearest - best, spread)
    loud = np.where(nearest >= SAME_QUERY, np.float32(np.exp(LOUDEST)), voice)
    meant = np.matmul(vectors, voices.answers[rows].transpose(0, 2, 1)) >= same  # (B, K, H)
    right = voices.right[rows]
    around = np.where(right, nothing, np.float32(AROUND) * voice)
    against = _total(meant, np.where(right, nothing, loud)) + _total(~meant, around)
    own = _voice(similarity - best, spread) * there
    alike = np.matmul(vectors, vectors.transpose(0, 2, 1)) >= same  # (B, K, K)
    backed = _total(alike, own) + _total(meant, np.where(right, loud, nothing))
    ratio = against.astype(np.float64) / np.maximum(backed.astype(np.float64), 1e-12)
    return (1.0 / (1.0 + ratio**POWER)).astype(np.float32)


def _voice(nearer: Floats, spread: float) -> Floats:
    """How loud is what is nearer to the query, by so much, than the nearest pair; any shape."""
    return np.asarray(np.exp(np.minimum(SHARPNESS * nearer / spread, LOUDEST)), np.float32)


def _total(of: npt.NDArray[np.bool_], loud: Floats) -> Floats:
    """What voices so loud (B, H) say together of each pair (B, K), where they are of it (B, K, H)."""
    return np.asarray(np.matmul(of, loud[:, :, None])[..., 0], np.float32)
