"""Judgments of answers, and how a memory stores them: a record for each opinion, with its vectors."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from ..encoders.local import Encoder
from ..errors import ConfigError, InputError
from ..memory import Header, Memory
from ..memory.header import SaidRecord
from ..types import MODALITIES, ImageInput, Modality, Records, Vectors, other
from ..values import check_choice, check_flag, check_vectors, is_unicode, show
from .feedback import SAME_QUERY, Feedback, Voices

MOST = 4_000
"""Opinions that a memory keeps: 12 MB beside its header at 512 dimensions."""
_LONGEST = 200  # characters of the name of who says something


@dataclass(frozen=True)
class Judgment:
    """A judgment of one answer to one query, to be stored.

    Attributes:
        query: a text, an image, or a vector (D,).
        modality: what the query is.
        pair: id of the pair that was the answer.
        answer: the answer itself where it is no pair: of the other modality, raw or a vector (D,).
        right: whether it is right; else it is not what was asked for.
        by: whose judgment it is.
    """

    query: str | ImageInput | Vectors
    modality: Modality
    pair: str | None = None
    answer: str | ImageInput | Vectors | None = None
    right: bool = False
    by: str = ""


@dataclass(frozen=True)
class Opinion:
    """A stored judgment of one answer to one query.

    Attributes:
        id: of the opinion.
        modality: of the query.
        pair: id of the pair that was the answer; None where only its vector was given.
        right: whether it is right; else it is not what was asked for.
        by: whose judgment it is, in the caller's words; empty by default.
        at: when, UTC, ISO 8601.
    """

    id: str
    modality: Modality
    pair: str | None
    right: bool
    by: str
    at: str


@dataclass(frozen=True)
class Opinions:
    """N opinions, oldest first, with the vectors of their queries and answers, (N, D) each."""

    words: tuple[Opinion, ...]
    queries: Vectors
    answers: Vectors

    def __len__(self) -> int:
        return len(self.words)

    def replaced(self, fresh: Collection[str] = ()) -> set[str]:
        """Ids of those on the same query and answer as a later one, where one of the two is among ``fresh`` ids.

        >>> x, words = np.eye(1, 2), [Opinion(name, "text", None, name == "b", "", "") for name in "ab"]
        >>> Opinions(tuple(words), np.vstack([x, x]), np.vstack([x, x])).replaced(["b"])
        {'a'}
        """
        kind = np.array([MODALITIES.index(one.modality) for one in self.words], np.intp)
        rows = np.flatnonzero([one.id in fresh for one in self.words])
        same = (self.queries[rows] @ self.queries.T >= SAME_QUERY) & (self.answers[rows] @ self.answers.T >= SAME_QUERY)
        one, another = np.nonzero(same & (kind[rows][:, None] == kind))
        pairs = zip(rows[one].tolist(), another.tolist(), strict=True)
        return {self.words[min(pair)].id for pair in pairs if pair[0] != pair[1]}

    def voices(self) -> Feedback:
        """What they do."""
        kinds = np.array([one.modality for one in self.words], object)
        right = np.array([one.right for one in self.words], np.bool_)
        sides = {m: np.flatnonzero(kinds == m) for m in MODALITIES}
        return Feedback(
            {m: Voices(self.queries[of], self.answers[of], right[of]) for m, of in sides.items() if len(of)}
        )

    def to_records(self) -> list[SaidRecord]:
        """As a memory stores them: words, order, and the vectors as base64 of float16."""
        begun = time.time_ns()
        query, answer = (
            [base64.b64encode(row.tobytes()).decode() for row in side.astype("<f2")]
            for side in (self.queries, self.answers)
        )
        return [
            {**vars(one), "n": begun + row, "query": query[row], "answer": answer[row]}
            for row, one in enumerate(self.words)
        ]

    @classmethod
    def read(cls, records: Collection[SaidRecord], dimension: int) -> Opinions:
        """Read :meth:`to_records` back, for vectors of D numbers.

        Raises:
            ConfigError: one is damaged.
        """
        vectors = np.empty((2, len(records), dimension), np.float32)
        words = list[Opinion]()
        for row, one in enumerate(records):
            try:
                words.append(Opinion(*(one[name] for name in ("id", "modality", "pair", "right", "by", "at"))))
                for side, name in enumerate(("query", "answer")):
                    vectors[side, row] = np.frombuffer(base64.b64decode(one[name], validate=True), "<f2")
                if not np.isfinite(vectors[:, row]).all():
                    raise ValueError("a vector holds NaN or infinity")
            except (KeyError, TypeError, ValueError) as error:
                what = f"the opinion {one.get('id')!r} is damaged ({error!r})"
                raise ConfigError(f"{what}: reco memory feedback --withdraw {one.get('id')}") from error
        vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), np.float32(1e-6))
        return cls(tuple(words), vectors[0], vectors[1])


def opinions_of(header: Header) -> Opinions:
    """What a header holds, oldest first.

    Raises:
        ConfigError: one is damaged.
    """
    return Opinions.read(header.said.values(), header.fingerprint.dimension)


def add_opinions(memory: Memory, records: Iterable[SaidRecord]) -> None:
    """Store opinions that are not known; of two on one query and answer, the later one stays.

    Raises:
        InputError: there would be more than a memory keeps.
        ConfigError: one is damaged.
        MemoryStoreError: they cannot be written.
    """
    header = memory.look()
    fresh = {str(one["id"]): one for one in records if one["id"] not in header.said}
    if not fresh:
        return
    both = header.with_said(fresh.values()).said
    gone = Opinions.read(both.values(), header.fingerprint.dimension).replaced(fresh)
    if (left := len(both) - len(gone)) > MOST:
        raise InputError(
            f"a memory keeps {MOST:,} opinions, and these would be {left:,}: withdraw old ones, or add pairs of the "
            "things that are confused"
        )
    memory.change_said([one for name, one in fresh.items() if name not in gone], gone.intersection(header.said))


def withdraw(memory: Memory, ids: Iterable[str]) -> int:
    """Forget opinions by id; returns how many there were."""
    gone = set(ids).intersection(memory.look().said)
    if gone:
        memory.change_said((), gone)
    return len(gone)


def read_judgments(judgments: Sequence[Judgment], encoder: Encoder, memory: Memory) -> Opinions:
    """Judgments as opinions of now, with their vectors; of several on one query and answer the last.

    Raises:
        InputError: one is not complete, its pair is gone, or an item cannot be encoded.
        MemoryStoreError: the memory cannot be read.
    """
    pairs, dimension = _pairs_of(judgments, memory), encoder.dimension
    vectors, words = np.empty((2, len(judgments), dimension), np.float32), list[Opinion]()
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for row, one in enumerate(judgments):
        side = other(one.modality)
        vectors[0, row] = _to_vector(one.query, one.modality, encoder, "query")
        if one.pair is not None:
            vectors[1, row] = pairs[one.pair].side(side)[0]
        elif one.answer is not None:
            vectors[1, row] = _to_vector(one.answer, side, encoder, "answer")
        words.append(Opinion(uuid.uuid4().hex, one.modality, one.pair, bool(one.right), one.by, at))
    every = Opinions(tuple(words), vectors[0], vectors[1])
    gone = every.replaced({one.id for one in words})
    kept = [row for row, one in enumerate(words) if one.id not in gone]
    return Opinions(tuple(words[row] for row in kept), vectors[0, kept], vectors[1, kept])


def _pairs_of(judgments: Sequence[Judgment], memory: Memory) -> Mapping[str, Records]:
    """The pairs that are meant, by id; all judgments are checked."""
    for one in judgments:
        check_choice("modality", one.modality, MODALITIES)
        if (one.pair is None) == (one.answer is None):
            raise InputError("say which answer is meant: the id of a pair, or the answer itself, and not both")
        check_flag("right", one.right)
        if one.pair is not None and not isinstance(one.pair, str):
            raise InputError(f"pair must be the id of one pair, got {show(one.pair)}")
        if not isinstance(one.by, str) or not is_unicode(one.by) or len(one.by) > _LONGEST:
            raise InputError(f"by must be a text of at most {_LONGEST} characters, got {show(one.by)}")
    wanted = list(dict.fromkeys(one.pair for one in judgments if one.pair is not None))
    found = {batch.ids[row]: batch.take([row]) for batch in memory.scroll(ids=wanted) for row in range(len(batch))}
    gone = [name for name in wanted if name not in found]
    if gone:
        raise InputError(
            f"the memory at {memory.location!r} holds no pair {show(gone[0])}: it may be gone. Nothing was stored; "
            "give what was shown as the answer instead"
        )
    return found


def _to_vector(
    item: str | ImageInput | Vectors, modality: Modality, encoder: Encoder, what: str
) -> npt.NDArray[np.float32]:
    """The vector (D,) of one item, raw or a vector already."""
    if isinstance(item, np.ndarray):
        vectors = check_vectors(item[None], encoder.dimension, what)
    elif modality == "image":
        vectors = encoder.images([item])
    elif isinstance(item, str):
        vectors = encoder.texts([item])
    else:
        raise InputError(f"the {what} must be a text, got {type(item).__name__}: for an image say modality='image'")
    vector: Vectors = vectors[0]
    return vector
