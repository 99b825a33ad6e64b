"""What people say about answers, read: queries and answers become vectors, pairs are looked up."""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .calibration.feedback import MOST, Feedback, Opinion
from .encode import Encoder
from .errors import ConfigError, InputError
from .memory import Header, Memory
from .memory.said import SaidRecord
from .types import MODALITIES, ImageInput, Modality, Records, Vectors, other
from .values import check_choice, check_vectors, is_unicode, show

_LONGEST = 200
"""Characters of the name of who said something."""


@dataclass(frozen=True)
class Said:
    """What somebody says about one answer to one query.

    Attributes:
        query: a text, an image, or a vector (D,).
        modality: what the query is.
        pair: id of the pair that was the answer.
        answer: the answer itself where it is no pair: of the other modality, raw or a vector (D,).
        right: whether it is right; else it is not what was asked for.
        by: who says so.
    """

    query: str | ImageInput | Vectors
    modality: Modality
    pair: str | None = None
    answer: str | ImageInput | Vectors | None = None
    right: bool = False
    by: str = ""


def read_said(said: Sequence[Said], encoder: Encoder, memory: Memory) -> Feedback:
    """Opinions of now, with their vectors; of several on one query and answer the last.

    Raises:
        InputError: one is not complete, its pair is gone, or an item cannot be encoded.
        MemoryStoreError: the memory cannot be read.
    """
    pairs, dimension = _pairs_of(said, memory), encoder.dimension
    queries, answers, opinions = list[Vectors](), list[Vectors](), list[Opinion]()
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for one in said:
        side = other(one.modality)
        queries.append(_to_vector(one.query, one.modality, encoder, "query"))
        if one.pair is not None:
            answers.append(pairs[one.pair].side(side)[0])
        elif one.answer is not None:
            answers.append(_to_vector(one.answer, side, encoder, "answer"))
        opinions.append(Opinion(uuid.uuid4().hex, one.modality, one.pair, one.right, one.by, at))
    nothing = Feedback.empty(dimension)
    if not opinions:
        return nothing
    return nothing.joined(Feedback(tuple(opinions), np.stack(queries), np.stack(answers)))


def within_limit(feedback: Feedback) -> Feedback:
    """The feedback, if a memory keeps as much.

    Raises:
        InputError: it does not.
    """
    check_number(len(feedback))
    return feedback


def check_number(opinions: int) -> None:
    """Refuse more opinions than a memory keeps.

    Raises:
        InputError: these are more.
    """
    if opinions > MOST:
        raise InputError(
            f"a memory keeps {MOST:,} opinions, and these would be {opinions:,}: withdraw old ones, or add pairs "
            "of the things that are confused"
        )


def opinions_of(memory: Memory) -> tuple[Opinion, ...]:
    """What is said of a memory now, oldest first.

    Raises:
        ConfigError: it is damaged, or of a newer version.
    """
    return heard(memory.look()).opinions


def heard(header: Header) -> Feedback:
    """What a header holds of what people said, read.

    Of two on one query and answer, stored by two processes in the same moment, the later one counts.

    Raises:
        ConfigError: it is damaged, or of a newer version.
    """
    latest = {_meant(one): name for name, one in header.said.items()}
    return Feedback.from_records([header.said[name] for name in latest.values()], header.fingerprint.dimension)


class Hearing:
    """Reads what people say of one memory as it comes: what was read before is not read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: Mapping[str, SaidRecord] = {}
        self._names: list[str] = []
        self._meant = set[Any]()  # the queries and answers of what was read
        self._feedback: Feedback | None = None

    def read(self, header: Header) -> Feedback:
        """See :func:`heard`."""
        with self._lock:
            if self._feedback is None or header.said is not self._said:
                self._feedback = self._read(header, self._feedback)
                self._said = header.said
            return self._feedback

    def _read(self, header: Header, before: Feedback | None) -> Feedback:
        names = list(header.said)
        if before is not None and names[: len(self._names)] == self._names and len(before) == len(self._names):
            fresh = [header.said[name] for name in names[len(self._names) :]]
            meant = {_meant(one) for one in fresh}
            if len(meant) == len(fresh) and not meant & self._meant:
                grown = before.grown(fresh)
                self._names = names
                self._meant |= meant
                return grown
        self._names, self._meant = [], set()
        feedback = heard(header)
        self._names, self._meant = names, {_meant(one) for one in header.said.values()}
        return feedback


def _meant(one: SaidRecord) -> tuple[Any, ...]:
    """The query and the answer that something was said of."""
    return one.get("modality"), one.get("query"), one.get("answer"), one.get("format")


def withdraw(memory: Memory, ids: Sequence[str] | None) -> int:
    """Forget opinions by id, or all, also what cannot be read; returns how many there were."""
    said = memory.look().said
    gone = list(said) if ids is None else [name for name in dict.fromkeys(ids) if name in said]
    if gone:
        memory.change_said((), gone)
    return len(gone)


def bring_over(before: Header, memory: Memory) -> None:
    """Add to a memory what was said of the version before, and is not known there; nothing where it is damaged."""
    if not before.said:
        return
    try:
        add_said(memory, list(before.said.values()))
    except (ConfigError, InputError) as error:
        warnings.warn(f"what was said of the version before is left there: {error}", stacklevel=2)


def add_said(memory: Memory, said: Sequence[SaidRecord]) -> int:
    """Add opinions of another memory, as it stores them, whose ids are not known; returns how many there are then.

    Raises:
        ConfigError: what is stored here or there is damaged, or of a newer version.
        InputError: there are more than a memory keeps.
    """
    header = memory.look()
    there, told = heard(header), Feedback.from_records(said, header.fingerprint.dimension)
    kept = {one.id for one in within_limit(there.merged(told)).opinions}
    added = [one for one in said if one["id"] in kept and one["id"] not in header.said]
    gone = [name for name in header.said if name not in kept]
    if added or gone:
        memory.change_said(added, gone)
    return len(kept)


def _pairs_of(said: Sequence[Said], memory: Memory) -> dict[str, Records]:
    """The pairs that are meant, by id; everything that is said is checked."""
    for one in said:
        check_choice("modality", one.modality, MODALITIES)
        if (one.pair is None) == (one.answer is None):
            raise InputError("say which answer is meant: the id of a pair, or the answer itself, and not both")
        if not is_unicode(one.by) or len(one.by) > _LONGEST:
            raise InputError(f"by must be a text of at most {_LONGEST} characters, got {show(one.by)}")
    wanted = list(dict.fromkeys(one.pair for one in said if one.pair is not None))
    found = {batch.ids[row]: batch.take([row]) for batch in memory.scroll(ids=wanted) for row in range(len(batch))}
    gone = [name for name in wanted if name not in found]
    if gone:
        raise InputError(
            f"the memory at {memory.location!r} holds no pair {show(gone[0])}: it may be gone. Nothing was stored; "
            "give what was shown as the answer instead"
        )
    return found


def _to_vector(item: str | ImageInput | Vectors, modality: Modality, encoder: Encoder, what: str) -> Vectors:
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
