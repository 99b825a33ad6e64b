"""Feedback: what people said is not what they asked for, kept as pairs with a negative sign.

An opinion joins the vector of a query and that of an answer, of the other modality. Near the query, it speaks against
all pairs with that answer; the pairs that the search found, and opinions that they are right, speak for it. So an
opinion is one voice among those around a query: a false one does little where the memory's own pairs are nearer, and
the same query again is decided by it (``docs/feedback.md``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..defaults import SAME_IMAGE
from ..errors import ConfigError
from ..types import MODALITIES, Modality, Neighbours, Vectors

FORMAT = 1
MOST = 4_000
"""Opinions that a memory keeps: 12 MB of its header at 512 dimensions."""
SHARPNESS = 8.0
"""How fast a voice falls with distance, per spread of similarity: exp(8 (s - s1) / spread). With 3, new things lose
twice as much of their gain (``docs/measurements/rejections.md``)."""
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
class Opinion:
    """What somebody said about one answer to one query.

    Attributes:
        id: of the opinion.
        modality: of the query.
        pair: id of the pair that was the answer; None where only its vector was given.
        right: whether it is right; else it is not what was asked for.
        by: who said so, in the caller's words; empty if not told.
        at: when, UTC, ISO 8601.
    """

    id: str
    modality: Modality
    pair: str | None
    right: bool
    by: str
    at: str


@dataclass(frozen=True)
class Feedback:
    """N opinions, oldest first, with the vectors of their queries and answers, (N, D) each."""

    opinions: tuple[Opinion, ...]
    queries: Vectors
    answers: Vectors

    def __len__(self) -> int:
        return len(self.opinions)

    @classmethod
    def empty(cls, dimension: int) -> Feedback:
        """No opinions, for vectors of D numbers."""
        nothing = np.zeros((0, dimension), np.float32)
        return cls((), nothing, nothing)

    def joined(self, newer: Feedback) -> Feedback:
        """These opinions and newer ones; of two on the same query and answer the newer one counts, right or not.

        >>> one = Feedback((Opinion("a", "text", None, False, "", ""),), np.eye(1, 2), np.eye(1, 2))
        >>> two = Feedback((Opinion("b", "text", None, True, "", ""),), np.eye(1, 2), np.eye(1, 2))
        >>> [opinion.id for opinion in one.joined(two).opinions]
        ['b']
        """
        opinions = (*self.opinions, *newer.opinions)
        queries = np.concatenate([self.queries, newer.queries])
        answers = np.concatenate([self.answers, newer.answers])
        both = Feedback(opinions, queries, answers)
        start = len(self)
        same = (newer.queries @ queries.T >= SAME_QUERY) & (newer.answers @ answers.T >= SAME_QUERY)
        kind = np.array([MODALITIES.index(one.modality) for one in opinions])
        same &= kind[start:, None] == kind[None]
        same &= np.arange(len(opinions))[None] < np.arange(start, len(opinions))[:, None]  # only older ones
        return both.only(~same.any(axis=0))

    def merged(self, others: Feedback) -> Feedback:
        """These opinions and those of another list whose ids are not known here; of two on the same, the later counts.

        >>> one = Feedback((Opinion("a", "text", None, False, "", "2026-02"),), np.eye(1, 2), np.eye(1, 2))
        >>> two = Feedback((Opinion("b", "text", None, True, "", "2026-01"),), np.eye(1, 2), np.eye(1, 2))
        >>> [opinion.id for opinion in one.merged(two).opinions]
        ['a']
        """
        known = {one.id for one in self.opinions}
        fresh = others.only([one.id not in known for one in others.opinions])
        opinions = (*self.opinions, *fresh.opinions)
        order = sorted(range(len(opinions)), key=lambda row: opinions[row].at)
        queries = np.concatenate([self.queries, fresh.queries])[order]
        answers = np.concatenate([self.answers, fresh.answers])[order]
        return self.only([False] * len(self)).joined(Feedback(tuple(opinions[row] for row in order), queries, answers))

    def without(self, ids: Iterable[str]) -> Feedback:
        """These opinions but for some."""
        gone = set(ids)
        return self.only([opinion.id not in gone for opinion in self.opinions])

    def only(self, kept: Sequence[bool] | npt.NDArray[np.bool_]) -> Feedback:
        """Those of a mask (N,)."""
        rows = np.flatnonzero(kept)
        return Feedback(tuple(self.opinions[row] for row in rows), self.queries[rows], self.answers[rows])

    def keep(
        self, modality: Modality, queries: Vectors, found: Neighbours, spread: float, same_caption: float
    ) -> npt.NDArray[np.float32] | None:
        """How much of each pair that was found stays, (B, K) from 0 to 1; None where nothing was said of this side.

        Args:
            modality: of the queries.
            queries: (B, D) unit-norm.
            found: K neighbours of each, and their vectors of the other modality.
            spread: standard deviation of similarity within the modality.
            same_caption: cosine from which two captions mean the same. Pictures are the same from that of a copy on.
        """
        heard = self._sides[modality]
        if heard is None:
            return None
        same = same_caption if modality == "image" else SAME_IMAGE
        width = max(len(heard.queries), min(len(heard.queries), HEARD) * queries.shape[1])
        size = max(1, _NUMBERS // width)
        kept = [
            _keep(heard, queries[rows], found.similarity[rows], found.vectors[rows], found.found[rows], spread, same)
            for rows in (slice(start, start + size) for start in range(0, max(len(queries), 1), size))
        ]
        return np.concatenate(kept)

    @cached_property
    def _sides(self) -> Mapping[Modality, _Heard | None]:
        kinds = np.array([opinion.modality for opinion in self.opinions], dtype=object)
        right = np.array([opinion.right for opinion in self.opinions], np.bool_)
        return {m: _heard(self.queries, self.answers, right, np.asarray(kinds == m)) for m in MODALITIES}

    def to_json(self) -> dict[str, Any]:
        """For the memory's header: who said what, and the vectors as base64 of float16."""
        if not self.opinions:
            return {}
        blob = np.stack([self.queries, self.answers]).astype("<f2").tobytes()
        return {
            "format": FORMAT,
            "opinions": [dict(vars(opinion)) for opinion in self.opinions],  # asdict is thirty times as slow
            "vectors": base64.b64encode(blob).decode(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], dimension: int) -> Feedback:
        """Read :meth:`to_json` back, for vectors of D numbers.

        Raises:
            ConfigError: another format, or damaged.
        """
        if not stored:
            return cls.empty(dimension)
        way = "see `reco memory feedback --help` to drop it"
        try:
            if stored["format"] != FORMAT:
                raise ConfigError(
                    f"its feedback has format {stored['format']}, and this version reads {FORMAT}: upgrade reco-plugin"
                )
            opinions = tuple(Opinion(**one) for one in stored["opinions"])
            raw = np.frombuffer(base64.b64decode(stored["vectors"], validate=True), "<f2").astype(np.float32)
            both = raw.reshape(2, len(opinions), dimension)
            if not np.isfinite(both).all():
                raise ValueError("a vector holds NaN or infinity")
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"its feedback is damaged ({error!r}): {way}") from error
        norms = np.maximum(np.linalg.norm(both, axis=2, keepdims=True), np.float32(1e-6))
        queries, answers = both / norms
        return cls(opinions, queries, answers)


@dataclass(frozen=True)
class _Heard:
    """The opinions on queries of one modality: vectors (R, D) each, and (R,) whether they say right."""

    queries: Vectors
    answers: Vectors
    right: npt.NDArray[np.bool_]


def _heard(
    queries: Vectors, answers: Vectors, right: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]
) -> _Heard | None:
    return _Heard(queries[of], answers[of], right[of]) if of.any() else None


def _keep(
    heard: _Heard,
    queries: Vectors,
    similarity: npt.NDArray[np.float32],
    vectors: Vectors,
    there: npt.NDArray[np.bool_],
    spread: float,
    same: float,
) -> npt.NDArray[np.float32]:
    """See :meth:`Feedback.keep`, of a block: (B, K) of queries (B, D), by similarity, vectors (B, K, D) and found."""
    best = similarity[:, :1]
    near = queries @ heard.queries.T  # (B, R)
    if near.shape[1] > HEARD:
        rows = np.argpartition(-near, HEARD - 1, axis=1)[:, :HEARD]
    else:
        rows = np.tile(np.arange(near.shape[1]), (len(near), 1))
    nearest = np.take_along_axis(near, rows, axis=1)  # (B, H)
    voice = np.float32(LOUDNESS) * _voice(nearest - best, spread)
    loud = np.where(nearest >= SAME_QUERY, np.float32(np.exp(LOUDEST)), voice)
    meant = np.matmul(vectors, heard.answers[rows].transpose(0, 2, 1)) >= same  # (B, K, H)
    right = heard.right[rows]
    around = np.where(right, np.float32(0.0), np.float32(AROUND) * voice)
    against = _total(meant, np.where(right, np.float32(0.0), loud)) + _total(~meant, around)
    own = _voice(similarity - best, spread) * there
    alike = np.matmul(vectors, vectors.transpose(0, 2, 1)) >= same  # (B, K, K)
    backed = _total(alike, own) + _total(meant, np.where(right, loud, np.float32(0.0)))
    return _share(backed, against)


def _voice(nearer: npt.NDArray[np.float32], spread: float) -> npt.NDArray[np.float32]:
    """How loud is what is nearer to the query, by so much, than the nearest pair; any shape."""
    loud: npt.NDArray[np.float32] = np.exp(np.minimum(SHARPNESS * nearer / spread, LOUDEST)).astype(np.float32)
    return loud


def _total(of: npt.NDArray[np.bool_], loud: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What voices so loud (B, H) say together of each pair (B, K), where they are of it (B, K, H)."""
    total: npt.NDArray[np.float32] = np.matmul(of, loud[:, :, None])[..., 0]
    return total


def _share(backed: npt.NDArray[np.float32], against: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Share of the voices for, any shape; 1 where none is against."""
    ratio = against.astype(np.float64) / np.maximum(backed.astype(np.float64), 1e-12)
    return (1.0 / (1.0 + ratio**POWER)).astype(np.float32)
