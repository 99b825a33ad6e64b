"""What people say about answers, read: queries and answers become vectors, pairs are looked up."""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .encode import Encoder
from .errors import ConfigError, InputError
from .extras.feedback import MOST, Feedback, Opinion, unreadable
from .memory import Header, Memory
from .memory.header import SaidRecord
from .types import MODALITIES, ImageInput, Modality, Records, Vectors, other
from .values import check_choice, check_flag, check_vectors, counted, is_unicode, show

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
        opinions.append(Opinion(uuid.uuid4().hex, one.modality, one.pair, bool(one.right), one.by, at))
    nothing = Feedback.empty(dimension)
    if not opinions:
        return nothing
    return nothing.joined(Feedback(tuple(opinions), np.stack(queries), np.stack(answers)))


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
    """What is said of a memory now, oldest first, without what is damaged or of a newer version."""
    return heard(memory.look()).opinions


def heard(header: Header) -> Feedback:
    """What a header holds of what people said, read, without what is damaged or of a newer version.

    Of two on one query and answer, stored by two processes in the same moment, the later one counts.
    """
    latest = {_meant(one): name for name, one in header.said.items()}
    return _read_whole([header.said[name] for name in latest.values()], header.fingerprint.dimension)


def unread_in(header: Header) -> dict[str, str]:
    """Id -> why, of what people said and cannot be read: it is damaged, or of a newer version."""
    return unreadable(header.said.values(), header.fingerprint.dimension)


def say_unread(unread: Mapping[str, str]) -> str:
    """How many opinions cannot be read, and why the first of them; empty where all can.

    >>> say_unread({"line 3": "its feedback is damaged"})
    "1 opinion cannot be read, 'line 3': its feedback is damaged"
    """
    if not unread:
        return ""
    name, why = next(iter(unread.items()))
    return f"{counted(len(unread), 'opinion')} cannot be read, {show(name)}: {why}"


def _read_whole(records: Sequence[SaidRecord], dimension: int) -> Feedback:
    """Those that can be read."""
    unread = unreadable(records, dimension)
    return Feedback.from_records([one for one in records if str(one["id"]) not in unread], dimension)


class Hearing:
    """Reads what people say of one memory as it comes: what was read before is not read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: Mapping[str, SaidRecord] = {}
        self._names: list[str] = []
        self._meant = set[Any]()  # the queries and answers of what was read
        self._feedback: Feedback | None = None
        self.unread: Mapping[str, str] = {}
        """Id -> why, of what cannot be read."""

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
                with suppress(ConfigError):  # one of them cannot be read
                    grown = before.grown(fresh)
                    self._names = names
                    self._meant |= meant
                    return grown
        self._names, self._meant = [], set()
        feedback, self.unread = heard(header), unread_in(header)
        self._names, self._meant = names, {_meant(one) for one in header.said.values()}
        return feedback


def _meant(one: SaidRecord) -> tuple[Any, ...]:
    """The query and the answer that something was said of."""
    return one.get("modality"), one.get("query", one["id"]), one.get("answer"), one.get("format")


def withdraw(memory: Memory, ids: Sequence[str] | None) -> int:
    """Forget opinions by id, or all, also what cannot be read; returns how many there were."""
    said = memory.look().said
    gone = list(said) if ids is None else [name for name in dict.fromkeys(ids) if name in said]
    if gone:
        memory.change_said((), gone)
    return len(gone)


def bring_over(before: Header, memory: Memory) -> None:
    """Add to a memory what was said of the version before, and is not known there, but for what is damaged."""
    if not before.said:
        return
    if left := add_said(memory, before.said.values()).left:
        warnings.warn(f"left with the version before: {left}", stacklevel=2)


@dataclass(frozen=True)
class Brought:
    """What became of what people said, where a memory got that of another."""

    opinions: int = 0
    """How many the memory holds then."""
    left: str = ""
    """What was left out, and why; empty where nothing was."""


def add_said(memory: Memory, said: Iterable[SaidRecord]) -> Brought:
    """Add opinions of another memory, as it stores them, whose ids are not known; of two on the same, the later counts.

    What cannot be read is left out; where there are more than a memory keeps, all of them are.
    """
    header = memory.look()
    there, fresh = heard(header), [one for one in said if one["id"] not in header.said]
    if not fresh:
        return Brought(len(there))
    dimension = header.fingerprint.dimension
    both = there.merged(_read_whole(fresh, dimension))
    try:
        check_number(len(both))
    except InputError as error:  # what else came with them is worth having anyway
        return Brought(len(there), f"what people said, since {error}")
    kept = {one.id for one in both.opinions}
    added = [one for one in fresh if one["id"] in kept]
    gone = [name for name in header.said if name not in kept | set(unread_in(header))]
    if added or gone:
        memory.change_said(added, gone)
    return Brought(len(kept), say_unread(unreadable(fresh, dimension)))


def _pairs_of(said: Sequence[Said], memory: Memory) -> dict[str, Records]:
    """The pairs that are meant, by id; everything that is said is checked."""
    for one in said:
        check_choice("modality", one.modality, MODALITIES)
        if (one.pair is None) == (one.answer is None):
            raise InputError("say which answer is meant: the id of a pair, or the answer itself, and not both")
        check_flag("right", one.right)
        if one.pair is not None and not isinstance(one.pair, str):
            raise InputError(f"pair must be the id of one pair, got {show(one.pair)}")
        if not isinstance(one.by, str) or not is_unicode(one.by) or len(one.by) > _LONGEST:
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
