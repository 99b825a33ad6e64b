"""Feedback: what people said is not what they asked for, kept as pairs with a negative sign.

An opinion joins the vector of a query and that of an answer, of the other modality. Near the query, it speaks against
all pairs with that answer; the pairs that the search found, and opinions that they are right, speak for it. So an
opinion is one voice among those around a query: a false one does little where the memory's own pairs are nearer, and
the same query again is decided by it (``docs/feedback.md``).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..defaults import SAME_IMAGE
from ..errors import ConfigError
from ..memory.header import SAID_FORMAT as FORMAT
from ..memory.header import SAID_WORDS as WORDS
from ..memory.header import SaidRecord
from ..types import MODALITIES, Modality, Neighbours, Vectors

MOST = 4_000
"""Opinions that a memory keeps: 12 MB beside its header at 512 dimensions."""
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
_DROP = "see `reco memory feedback --help` to drop it"


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
    _room: _Room | None = field(default=None, repr=False, compare=False)

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

    def refused(self, modality: Modality, queries: Vectors) -> npt.NDArray[np.bool_] | None:
        """Of which queries (B, D) somebody said that an answer is wrong; None where nothing was said of this side."""
        heard = self._sides[modality]
        return None if heard is None else np.any(queries @ heard.queries[~heard.right].T >= SAME_QUERY, axis=1)

    @cached_property
    def _sides(self) -> Mapping[Modality, _Heard | None]:
        kinds = np.array([opinion.modality for opinion in self.opinions], dtype=object)
        right = np.array([opinion.right for opinion in self.opinions], np.bool_)
        return {m: _heard(self.queries, self.answers, right, np.asarray(kinds == m)) for m in MODALITIES}

    def overruled(self, newer: Feedback) -> list[str]:
        """Ids of those here on a query and an answer of a newer one, which counts in their place.

        >>> one = Feedback((Opinion("a", "text", None, False, "", ""),), np.eye(1, 2), np.eye(1, 2))
        >>> one.overruled(Feedback((Opinion("b", "text", None, True, "", ""),), np.eye(1, 2), np.eye(1, 2)))
        ['a']
        """
        said = list[str]()
        near = np.argwhere(self.queries @ newer.queries.T >= SAME_QUERY)
        for row, later in near.tolist():
            same = self.opinions[row].modality == newer.opinions[later].modality
            if same and self.answers[row] @ newer.answers[later] >= SAME_QUERY:
                said.append(self.opinions[row].id)
        return list(dict.fromkeys(said))

    def to_records(self) -> list[SaidRecord]:
        """As a memory stores them: who said what and in which order, and the vectors as base64 of float16."""
        begun = time.time_ns()
        sides = (self.queries.astype("<f2"), self.answers.astype("<f2"))
        query, answer = ([base64.b64encode(row.tobytes()).decode() for row in side] for side in sides)
        return [
            {"format": FORMAT, **vars(one), "n": begun + row, "query": query[row], "answer": answer[row]}
            for row, one in enumerate(self.opinions)
        ]

    @classmethod
    def from_records(cls, records: Collection[SaidRecord], dimension: int) -> Feedback:
        """Read :meth:`to_records` back, oldest first, for vectors of D numbers.

        Raises:
            ConfigError: another format, or damaged.
        """
        return cls.empty(dimension).grown(records)

    def grown(self, records: Collection[SaidRecord]) -> Feedback:
        """These opinions and the records behind them; what is here is not copied each time.

        Raises:
            ConfigError: another format, or damaged.
        """
        if not records:
            return self
        opinions, both = _read_records(records, self.queries.shape[1])
        room = self._room
        if room is None or room.used != len(self) or room.size < len(self) + len(opinions):
            room = _Room.made(self.queries, self.answers, len(opinions))
        room.add(both)
        rows = slice(0, room.used)
        return Feedback((*self.opinions, *opinions), room.numbers[0, rows], room.numbers[1, rows], room)


def unreadable(records: Collection[SaidRecord], dimension: int) -> dict[str, str]:
    """Id -> why, of the records that cannot be read: they are damaged, or of another format."""
    with suppress(ConfigError):  # of many at once, mostly
        _read_records(records, dimension)
        return {}
    left = dict[str, str]()
    for one in records:
        try:
            _read_records([one], dimension)
        except ConfigError as error:
            left[str(one["id"])] = str(error)
    return left


@dataclass
class _Room:
    """Vectors (2, size, D) of queries and answers, the first ``used`` of which are filled and stay as they are."""

    numbers: Vectors
    used: int

    @classmethod
    def made(cls, queries: Vectors, answers: Vectors, more: int) -> _Room:
        """Room for those (N, D), for so many more, and for half as many again."""
        rows, dimension = queries.shape
        numbers = np.empty((2, (rows + more) * 3 // 2 + 1, dimension), np.float32)
        numbers[0, :rows], numbers[1, :rows] = queries, answers
        return cls(numbers, rows)

    @property
    def size(self) -> int:
        """How many it has room for."""
        return int(self.numbers.shape[1])

    def add(self, both: Vectors) -> None:
        """Fill the next ones, (2, N, D)."""
        end = self.used + both.shape[1]
        self.numbers[:, self.used : end] = both
        self.used = end


def _read_records(records: Collection[SaidRecord], dimension: int) -> tuple[list[Opinion], Vectors]:
    """Opinions, and their queries and answers (2, N, D), unit-norm."""
    try:
        for one in records:
            if one["format"] != FORMAT:
                raise ConfigError(_of_another_format(one))
        opinions = [Opinion(**{name: one[name] for name in WORDS}) for one in records]
        raw = b"".join(base64.b64decode(one[side], validate=True) for side in ("query", "answer") for one in records)
        both = np.frombuffer(raw, "<f2").astype(np.float32).reshape(2, len(opinions), dimension)
        if not np.isfinite(both).all():
            raise ValueError("a vector holds NaN or infinity")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"its feedback is damaged ({error!r}): {_DROP}") from error
    norms = np.maximum(np.linalg.norm(both, axis=2, keepdims=True), np.float32(1e-6))
    return opinions, (both / norms).astype(np.float32)


def _of_another_format(one: SaidRecord) -> str:
    found = one["format"]
    if isinstance(found, int) and found > FORMAT:
        return f"its feedback has format {found}, and this version reads {FORMAT}: upgrade reco-plugin"
    return f"its feedback is damaged ({one.get('why', f'format {found}')}): {_DROP}"


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
