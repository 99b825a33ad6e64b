"""Shared by both Qdrant libraries: pairs as points, conditions as filters, hits as neighbours, errors as ours."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MemoryFull, MemoryLocked, MemoryReadOnly, MemoryStoreError, RecoError
from ..types import MODALITIES, Modality, Neighbours, Payload, Records, Search, Vectors
from ..values import are_same, show
from .checks import CheckedSearch
from .filters import RESERVED, USER_ID, WITNESSES, AnyOf, Condition
from .header import RESTORE
from .words import EQUAL, Worded

F = TypeVar("F")
WORDS = "words"
"""Name of the sparse vector of a caption's words."""
_NAMESPACE = uuid.UUID("b4f0a5c6-1d0e-5c61-9d3a-7e2f6c0b8a11")

_WHOLE = 2**53
"""Integers below are exact as floats, so bounds can express equality, which finds both 1 and 1.0."""
_BRANCHES = 8
"""Numbers are searched in a tree of bounds: of 1,000, about 20 are compared with a pair's value instead of all."""
_NO_WITNESSES, _NUMBERS = (np.nan,) * 3, {int, float, bool}
_LOCKED = "WouldBlock"
"""In Edge's message when another process holds the folder."""
_FULL = "os error 28"
"""No space left on device, in Rust's message."""
_FORBIDDEN = re.compile(r"os error (?:2|13|30)\b")
"""No such file, permission denied, read-only file system."""
LOG_NAME = "wal"
"""The folder of a shard's log, which Edge locks."""
_SPARED = {LOG_NAME, "edge_config.json"}
"""Parts of a shard without which its pairs can be read."""
_DAMAGED = re.compile(r"io error|out of bounds|has no vector", re.IGNORECASE)
_COPY = "copy the pairs that can be read: reco memory copy {} NEW --damaged"


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


READ_BEFORE = (USER_ID, WITNESSES)
"""Payload keys of the points that :func:`compare_stored` gets."""


def compare_stored(records: Records, there: Iterable[Point]) -> dict[str, Sequence[float]]:
    """Compare pairs (N, D) to be written with the stored points of their ids.

    Returns:
        Id -> witnesses, of those that are stored with the same vectors.

    Raises:
        InputError: one id is the UUID that is derived from another, so that one pair would overwrite another.
    """
    rows: dict[str, int] = {}
    for row, name in enumerate(records.ids):
        if (other := rows.setdefault(point_id(name), row)) != row:
            raise _one_point(name, records.ids[other])
    kept: dict[str, Sequence[float]] = {}
    for point in there:
        row = rows[str(point.id)]
        name = records.ids[row]
        if (owner := _user_id(point)) != name:
            raise _one_point(name, owner)
        if (witnesses := _witnesses(point)) is not _NO_WITNESSES and all(
            are_same(np.asarray(point.vector[m], np.float32), records.side(m)[row]) for m in MODALITIES
        ):
            kept[name] = witnesses
    return kept


def _one_point(name: str, other: str) -> InputError:
    return InputError(
        f"the ids {show(name)} and {show(other)} are one point in Qdrant, which names points by UUIDs, and one "
        "of them is the UUID that is made of the other: nothing was stored, give one of these pairs another id"
    )


def stored_payload(user_id: str, payload: Payload, witnesses: Sequence[float] | None = None) -> dict[str, Any]:
    """The payload of a point: the pair's payload, the user's id, and its witnesses if they are known."""
    return {**payload, USER_ID: user_id} | ({} if witnesses is None else {WITNESSES: witnesses})


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
    except struct.error as error:
        raise ValueError(f"a stored vector is none of {dimension} numbers: {error}") from error
    except KeyError as error:
        raise _no_vector(error) from None
    return sides


def _no_vector(error: KeyError) -> ValueError:
    return ValueError(f"a stored pair has no vector {error}")


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
                pack(
                    into, (row * k + column) * step, *hit.vector[search.read]
                )  # as NumPy would, in a quarter of the time
                if out.witnesses is not None and WITNESSES in payload:
                    stored = payload[WITNESSES]  # looked at without a call of ours for each
                    if isinstance(stored, list) and len(stored) == 3 and _NUMBERS.issuperset(map(type, stored)):
                        out.witnesses[row, column] = stored
                if out.payloads is not None:
                    out.payloads[row].append(_payload(hit))
            out.found[row, : len(hits)] = True
    except KeyError as error:
        raise _no_vector(error) from None
    return out


def to_worded(hits: Sequence[ScoredPoint]) -> list[Worded]:
    """The captions with the best score, of those that one query found by their words."""
    best = [hit for hit in hits if hit.score >= hits[0].score * EQUAL]  # others are not looked at
    read = ((hit.score, hit.vector) for hit in best)  # once: Edge makes the lists each time
    return [Worded(score, frozenset(at[WORDS].indices), np.asarray(at["text"], np.float32)) for score, at in read]


def to_witnesses(points: Iterable[Point], wanted: Sequence[object]) -> npt.NDArray[np.float32]:
    """The witnesses (N, 3) of the points with these N ids, in that order; NaN where there are none."""
    there = {str(point.id): _witnesses(point) for point in points}
    return np.asarray([there.get(str(point), _NO_WITNESSES) for point in wanted], np.float32).reshape(-1, 3)


def _witnesses(point: Point) -> Sequence[float]:
    stored = (point.payload or {}).get(WITNESSES)
    if isinstance(stored, list) and len(stored) == 3 and _NUMBERS.issuperset(map(type, stored)):
        return stored
    return _NO_WITNESSES


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


@dataclass(frozen=True)
class FilterConstructors(Generic[F]):
    """Constructors of a library's filters."""

    filter: Callable[..., F]  # takes ``must``, ``must_not`` and ``should``, lists of conditions or None
    field: Callable[..., Any]  # takes ``key`` and either ``match`` or ``range``
    range: Callable[..., Any]  # takes bounds by name
    match_any: Callable[[list[Any]], Any]  # takes texts, or whole numbers
    match_flag: Callable[[bool], Any]  # takes a boolean
    has_id: Callable[[Collection[Any]], Any]  # takes ids of points

    def filters(self, wanted: CheckedSearch) -> Iterator[F | None]:
        """One filter per query: the conditions and the exclusions; None without any."""
        must = [self._condition(condition) for condition in wanted.conditions]
        made: dict[int, F | None] = {}  # queries that share their exclusions share a filter
        for ids in wanted.exclude:
            if id(ids) not in made:
                must_not = [self.has_id({point_id(name) for name in ids})] if ids else []
                made[id(ids)] = self._filter(must=must, must_not=must_not) if must or must_not else None
            yield made[id(ids)]

    def _condition(self, condition: Condition) -> Any:
        key = f'"{condition.key}"'  # quoted, so that a dot in it is not a path
        if condition.any_of is None:
            return self._range(key, **condition.bounds)
        should = list(self._equal(key, condition.any_of))
        return self._filter(should=should) if should else self.has_id(())

    def _equal(self, key: str, any_of: AnyOf) -> Iterator[Any]:
        exact = [number for number in any_of.numbers if isinstance(number, int) and abs(number) >= _WHOLE]
        for listed in (sorted(any_of.texts), sorted(exact)):
            if listed:
                yield self.field(key=key, match=self.match_any(listed))
        for flag in any_of.flags:
            yield self.field(key=key, match=self.match_flag(flag))
        if numbers := sorted(map(float, any_of.numbers.difference(exact))):
            yield self._tree(key, numbers)

    def _tree(self, key: str, numbers: Sequence[float]) -> Any:
        """The condition that a value is one of these ascending numbers."""
        if len(numbers) == 1:
            return self._range(key, gte=numbers[0], lte=numbers[0])
        size = -(-len(numbers) // _BRANCHES)
        parts = (numbers[start : start + size] for start in range(0, len(numbers), size))
        inside = self._filter(should=[self._tree(key, part) for part in parts])
        return self._filter(must=[self._range(key, gte=numbers[0], lte=numbers[-1]), inside])

    def _range(self, key: str, **bounds: float) -> Any:
        return self.field(key=key, range=self.range(**bounds))

    def _filter(self, **parts: list[Any]) -> F:
        return self.filter(**{name: part or None for name, part in parts.items()})


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
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        if _LOCKED in str(error):
            raise locked_error(location) from error
        if _FULL in str(error):
            raise MemoryFull(
                f"cannot {doing} the memory at {location!r}: its disk is full. Make room there, and do the same again; "
                "what was written stays"
            ) from error
        if doing in ("write", "delete", "flush") and _FORBIDDEN.search(str(error)):
            raise MemoryReadOnly(f"cannot {doing} the memory at {location!r}: {_cause(location, error)}") from error
        raise MemoryStoreError(f"cannot {doing} the memory at {location!r}: {_cause(location, error)}") from error


def _is_panic(error: BaseException) -> bool:
    """Whether code in Rust gave up, as on a file without content; its error is no Exception, and cannot be imported."""
    return type(error).__name__ == "PanicException"


def _cause(location: str, error: BaseException) -> str:
    """The file and what to do; the engine's own message if it names no file and may be of something else."""
    text = " ".join(str(error).split())
    files = re.findall(re.escape(location + os.sep) + r"[^\s:,'\")`]+", text)
    longest = max(files, key=len, default=location)
    if number := re.search(r"\(os error (\d+)\)", text):
        return f"{longest}: {os.strerror(int(number[1]))}"
    if "Can't read WAL" in text:
        return f"its log is damaged: {_COPY.format(location)}"
    if not _SPARED.isdisjoint(Path(longest.removeprefix(location)).parts):
        return f"{longest} is damaged or cut off: {_COPY.format(location)}"
    if files or _is_panic(error) or _DAMAGED.search(text):
        return f"{longest if files else 'a file of it'} is damaged or cut off: {RESTORE}"
    return text


def pages(read: Callable[[Any], tuple[list[Any], Any]]) -> Iterator[list[Any]]:
    """All pages of a scroll; ``read`` takes an offset, None at first, and returns a page and the next offset."""
    start = None
    while True:
        points, start = read(start)
        if points:
            yield points
        if start is None:
            return


def to_ids(points: Iterable[Point]) -> list[str]:
    """The users' ids of points."""
    return [_user_id(point) for point in points]


def to_payload(point: Point) -> tuple[str, Payload]:
    """The user's id and payload of a point."""
    stored = point.payload or {}  # once: Edge makes it each time
    name = stored.get(USER_ID)
    payload = {key: value for key, value in stored.items() if key not in RESERVED}
    return str(point.id if name is None else name), payload


def ids_behind(points: Sequence[Point], start: object, limit: int) -> list[str]:
    """The users' ids of points that were read from ``start`` on, without that one."""
    behind = points[1:] if points and str(points[0].id) == str(start) else points
    return [_user_id(point) for point in behind[:limit]]


def _user_id(point: Point) -> str:
    name = (point.payload or {}).get(USER_ID)
    return str(point.id if name is None else name)  # to look at an id of Edge's makes a UUID


def _payload(point: Point) -> dict[str, Any]:
    return {key: value for key, value in (point.payload or {}).items() if key not in RESERVED}
