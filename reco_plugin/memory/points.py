"""Pairs as points of Qdrant, hits as neighbours, and errors of its engines as ours; the same for both its libraries."""

from __future__ import annotations

import hashlib
import re
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import MemoryFull, MemoryLocked, MemoryReadOnly, MemoryStoreError, RecoError
from ..types import MODALITIES, Modality, Neighbours, Payload, Records, Search, Vectors
from .filters import RESERVED, USER_ID, WITNESSES
from .header import RESTORE
from .words import EQUAL, Worded

WORDS = "words"
"""Name of the sparse vector of a caption's words."""
_NAMESPACE = uuid.UUID("b4f0a5c6-1d0e-5c61-9d3a-7e2f6c0b8a11")
_NUMBERS = {int, float, bool}
_LOCKED = "WouldBlock"
"""In Edge's message when another process holds the folder."""
_FULL = "os error 28"
"""No space left on device, in Rust's message."""
_FORBIDDEN = re.compile(r"os error (?:2|13|30)\b")
"""No such file, permission denied, read-only file system."""


class Point(Protocol):
    """A stored pair as both Qdrant libraries return it."""

    @property
    def id(self) -> object:
        """Point id."""

    @property
    def payload(self) -> dict[str, Any] | None:
        """The pair's payload, with the user's id in it."""

    @property
    def vector(self) -> Any:
        """Modality -> list of floats, of the requested modalities."""


class ScoredPoint(Point, Protocol):
    """A hit."""

    @property
    def score(self) -> float:
        """Cosine."""


def point_id(user_id: str) -> str:
    """The UUID of a pair's point: the user's id if it is one, else derived from it.

    >>> point_id("6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11")
    '6e0b7f0c-9d55-4b8e-8a4c-0f6b9a6c2a11'
    >>> point_id("cat.jpg")
    '16323acf-a333-5530-a593-1a13323f122a'
    """
    try:
        if len(user_id) == 36 and str(uuid.UUID(user_id)) == user_id:
            return user_id
    except ValueError:
        pass
    # as uuid.uuid5 says, in a third of its time: each pair that is read or written is named so
    said = hashlib.sha1(_NAMESPACE.bytes + user_id.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(said[16], 16) & 3]
    return f"{said[:8]}-{said[8:12]}-5{said[13:16]}-{variant}{said[17:20]}-{said[20:32]}"


def user_id(point: Point) -> str:
    """The user's id of a point."""
    name = (point.payload or {}).get(USER_ID)
    return str(point.id if name is None else name)  # to look at an id of Edge's makes a UUID


def to_payload(point: Point) -> tuple[str, Payload]:
    """The user's id and payload of a point."""
    stored = point.payload or {}  # once: Edge makes it each time
    name = stored.get(USER_ID)
    payload = {key: value for key, value in stored.items() if key not in RESERVED}
    return str(point.id if name is None else name), payload


def to_records(points: Sequence[Point], dimension: int) -> Records:
    """N points with both vectors and their payload as records, vectors (N, D)."""
    told = [to_payload(point) for point in points]
    sides = to_sides(points, dimension)
    return Records([name for name, _ in told], sides["image"], sides["text"], [payload for _, payload in told])


def to_sides(points: Sequence[Point], dimension: int) -> dict[Modality, Vectors]:
    """Both vectors (N, D) of N points.

    Each point's lists of floats are packed, and freed, before the next are made: half of the time that arrays of lists
    of lists take.

    Raises:
        ValueError: a vector has another dimension, or there is none.
    """
    sides: dict[Modality, Vectors] = {m: np.empty((len(points), dimension), np.float32) for m in MODALITIES}
    pack, step = struct.Struct(f"{dimension}f").pack_into, 4 * dimension
    into = [(m, side.data) for m, side in sides.items()]
    try:
        for place, point in enumerate(points):
            stored = point.vector  # once: Edge makes both lists each time
            for name, side in into:
                pack(side, place * step, *stored[name])
    except (struct.error, KeyError) as error:
        raise _unfit_vector(error, dimension) from error
    return sides


def _unfit_vector(error: Exception, dimension: int) -> ValueError:
    return ValueError(f"a stored pair has no vector of {dimension} numbers: {error}")


def wanted_payload(search: Search) -> bool | list[str]:
    """What a search reads of each payload."""
    keys = [*([USER_ID] if search.ids else []), *([WITNESSES] if search.witnesses else [])]
    return search.payloads or keys or False


def to_neighbours(found: Sequence[Sequence[ScoredPoint]], dimension: int, search: Search, *, k: int) -> Neighbours:
    """Hits of B queries as padded neighbours, vectors (B, K, D).

    Raises:
        ValueError: a hit has no such vector.
    """
    out = empty_neighbours(len(found), k, dimension, search)
    pack, step, into = struct.Struct(f"{dimension}f").pack_into, 4 * dimension, out.vectors.data  # as in `to_sides`
    try:
        for row, hits in enumerate(found):  # one loop for all columns: a search is the most frequent call of all
            ids = out.ids[row]
            for column, hit in enumerate(hits):
                payload = hit.payload or {}
                name = payload.get(USER_ID)
                ids.append(str(hit.id if name is None else name))  # to look at an id of Edge's makes a UUID
                out.similarity[row, column] = hit.score
                pack(into, (row * k + column) * step, *hit.vector[search.read])
                if out.witnesses is not None and (stored := _witnesses(payload)) is not None:
                    out.witnesses[row, column] = stored
                if out.payloads is not None:
                    out.payloads[row].append({key: value for key, value in payload.items() if key not in RESERVED})
            out.found[row, : len(hits)] = True
    except (struct.error, KeyError) as error:
        raise _unfit_vector(error, dimension) from error
    return out


def to_worded(hits: Sequence[ScoredPoint]) -> list[Worded]:
    """The captions with the best score, of those that one query found by their words."""
    best = [hit for hit in hits if hit.score >= hits[0].score * EQUAL]  # others are not looked at
    read = ((hit.score, hit.vector) for hit in best)  # once: Edge makes the lists each time
    return [Worded(score, frozenset(at[WORDS].indices), np.asarray(at["text"], np.float32)) for score, at in read]


def to_witnesses(points: Iterable[Point], wanted: Sequence[str]) -> npt.NDArray[np.float32]:
    """The witnesses (N, 3) of the points with these N ids, in that order; NaN where there are none."""
    there = {str(point.id): _witnesses(point.payload or {}) for point in points}
    return np.asarray([there.get(name) or (np.nan,) * 3 for name in wanted], np.float32).reshape(-1, 3)


def _witnesses(payload: dict[str, Any]) -> list[float] | None:
    stored = payload.get(WITNESSES)
    whole = isinstance(stored, list) and len(stored) == 3 and _NUMBERS.issuperset(map(type, stored))
    return stored if whole else None


def empty_neighbours(batch: int, k: int, dimension: int, search: Search) -> Neighbours:
    """No neighbours: similarity (B, K) and vectors (B, K, D), all padding, and what else the search asks for."""
    return Neighbours(
        list(map(list[str], [()] * batch)),
        np.zeros((batch, k), np.float32),
        np.zeros((batch, k, dimension), np.float32),
        np.zeros((batch, k), np.bool_),
        list(map(list[Payload], [()] * batch)) if search.payloads else None,
        np.full((batch, k, 3), np.nan, np.float32) if search.witnesses else None,
    )


def pages(read: Callable[[Any], tuple[list[Any], Any]]) -> Iterator[list[Any]]:
    """All pages of a scroll; ``read`` takes an offset, None at first, and returns a page and the next offset."""
    start = None
    while True:
        points, start = read(start)
        if points:
            yield points
        if start is None:
            return


def locked_error(location: str) -> MemoryLocked:
    """The error for a folder that is open elsewhere."""
    return MemoryLocked(
        f"the memory at {location!r} is open in another process, or in another open Reco of this one; such a folder "
        "is open once at a time. Close the other, or run a Qdrant server and give its URL: --memory grpc://localhost:6334."
    )


@contextmanager
def translate_errors(location: str, doing: str) -> Iterator[None]:
    """Raise errors of an operation ("search") of the libraries' engines, most without a class of their own, as ours."""
    try:
        yield
    except RecoError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of Rust, cannot be imported
            raise
        text, failed = " ".join(str(error).split()), f"cannot {doing} the memory at {location!r}"
        if _LOCKED in text:
            raise locked_error(location) from error
        if _FULL in text:
            raise MemoryFull(
                f"{failed}: its disk is full. Make room there, and do the same again; what was written stays"
            ) from error
        if doing in ("write", "delete", "flush") and _FORBIDDEN.search(text):
            raise MemoryReadOnly(f"{failed}: {text}") from error
        raise MemoryStoreError(
            f"{failed}: {text}. If a file of it is damaged or cut off: copy what can be read (reco memory copy "
            f"{location} NEW --damaged), or {RESTORE}"
        ) from error
