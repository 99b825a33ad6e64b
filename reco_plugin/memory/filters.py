"""Filters on the payload: checked, applied to a payload in RAM, and translated to Qdrant's conditions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import InputError
from ..types import Filter
from ..values import WHERE_KEYS, WHERE_NUMBERS, WHERE_TEXTS, is_unicode, show

USER_ID = "_reco_id"
"""Payload key of the user's id."""
COSINE = "_reco_cosine"
"""Payload key of the cosine of a pair's image and text."""
RESERVED = (USER_ID, COSINE)
"""Keys that users' payloads cannot have, and do not see."""

F = TypeVar("F")
_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_WHOLE = 2**53
"""Numbers are compared as floats, which hold whole numbers exactly up to here."""


@dataclass(frozen=True)
class Condition:
    """A condition on a top-level payload key; the value, or one element of a list, must be one of these."""

    key: str
    texts: tuple[str, ...] = ()
    flags: tuple[bool, ...] = ()  # True does not equal 1
    ranges: tuple[Mapping[str, float], ...] = ()  # operator -> number, all of one must hold; 1 equals 1.0

    def fits(self, payload: Mapping[str, Any]) -> bool:
        """Whether a payload fulfils it."""
        value = payload.get(self.key)
        return any(map(self._holds, value if isinstance(value, list) else [value]))

    def _holds(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value in self.flags
        if isinstance(value, (int, float)):
            return any(all(_COMPARE[name](float(value), bound) for name, bound in each.items()) for each in self.ranges)
        return isinstance(value, str) and value in self.texts


def parse_filter(where: Filter | None) -> tuple[Condition, ...]:
    """The conditions of a filter, all of which must hold.

    Raises:
        InputError: not a mapping, an invalid key or value, or more of them than :mod:`..values` allows.

    >>> parse_filter({"year": {"gte": 2020}})
    (Condition(key='year', texts=(), flags=(), ranges=({'gte': 2020.0},)),)
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise InputError(f'filter: expected conditions as in {{"shop": "de"}}, found {show(where)}')
    if len(where) > WHERE_KEYS:
        raise InputError(f"filter: {len(where):,} keys, at most {WHERE_KEYS} can be asked at once: use fewer")
    return tuple(_condition(key, value) for key, value in where.items())


def check_numbers(conditions: Sequence[Condition], payloads: Iterable[Mapping[str, Any]]) -> None:
    """Refuse numbers as conditions on a key that has only texts in these payloads, where a search found nothing.

    Raises:
        InputError: naming the key.
    """
    keys = [one.key for one in conditions if one.ranges and not one.texts and not one.flags]
    values = {key: list[Any]() for key in keys}
    for payload in payloads if keys else ():
        for key in keys:
            if key in payload:
                values[key].append(payload[key])
    for key, found in values.items():
        if found and all(isinstance(value, str) for value in found):
            raise InputError(
                f"filter {key!r}: it asks for numbers, but {key} is a text in this memory, such as {show(found[0])}. "
                "Every value of a csv or tsv file is a text: build the memory from jsonl or Parquet, which keep numbers"
            )


def _condition(key: str, value: Any) -> Condition:
    if not isinstance(key, str) or '"' in key or "\\" in key or not is_unicode(key) or key in RESERVED:
        raise InputError(f"filter: {show(key)} is no key to filter by: expected a payload key without quote, backslash")
    if isinstance(value, Mapping):
        if not value or any(name not in _COMPARE for name in value):
            raise InputError(f"filter {key!r}: expected bounds of {', '.join(_COMPARE)}, found {show(dict(value))}")
        return Condition(key, ranges=({name: _number(key, bound, "bounds that are") for name, bound in value.items()},))
    values = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
    texts = tuple(one for one in values if isinstance(one, str) and is_unicode(one))
    flags = tuple(one for one in values if isinstance(one, bool))
    others = [one for one in values if not isinstance(one, bool) and not (isinstance(one, str) and is_unicode(one))]
    if len(texts) > WHERE_TEXTS or len(others) > WHERE_NUMBERS:
        raise InputError(
            f"filter {key!r}: {len(values):,} values, at most {WHERE_TEXTS:,} texts and {WHERE_NUMBERS:,} numbers can "
            'be listed: ask in parts, or give numbers as bounds ({"gte": 1, "lt": 9})'
        )
    numbers = [_number(key, one) for one in others]
    return Condition(key, texts, flags, tuple({"gte": number, "lte": number} for number in numbers))


def _number(key: str, value: Any, expected: str = "text in Unicode, booleans, or") -> float:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _WHOLE
    if not whole and not (isinstance(value, float) and math.isfinite(value)):
        raise InputError(
            f"filter {key!r}: expected {expected} finite numbers, whole ones up to 2**53 (keep larger ones as text), "
            f"found {show(value)}"
        )
    return float(value)


def quoted(key: str) -> str:
    """A payload key as Qdrant's path: a dot in it is not a path."""
    return f'"{key}"'


@dataclass(frozen=True)
class Library(Generic[F]):
    """The constructors of one of Qdrant's two libraries."""

    filter: Callable[..., F]  # takes ``must``, ``must_not`` and ``should``, lists of conditions or None
    field: Callable[..., Any]  # takes ``key`` and either ``match`` or ``range``
    range: Callable[..., Any]  # takes bounds by name
    match_any: Callable[[list[str]], Any]
    match_flag: Callable[[bool], Any]
    has_id: Callable[[Collection[str]], Any]  # takes ids of points
    sparse: Callable[[list[int], list[float]], Any]  # takes indices and values
    point: Callable[[str, dict[str, Any], dict[str, Any]], Any]  # takes id, vectors and payload
    request: Callable[..., Any]  # takes a vector, the name of what it is compared with, and the rest by name

    def filters(self, conditions: Sequence[Condition], hidden: Sequence[Collection[str]]) -> list[F | None]:
        """One filter per query: the conditions, and the points that it must not find; None without any."""
        must = [self._condition(condition) for condition in conditions]
        made: dict[int, F | None] = {}  # queries that share what is hidden share a filter
        for points in hidden:
            if id(points) not in made:
                must_not = [self.has_id(points)] if points else None
                made[id(points)] = self.filter(must=must or None, must_not=must_not) if must or must_not else None
        return [made[id(points)] for points in hidden]

    def _condition(self, condition: Condition) -> Any:
        should = list(self._any_of(quoted(condition.key), condition))
        return self.filter(should=should) if should else self.has_id(())

    def _any_of(self, key: str, condition: Condition) -> Iterator[Any]:
        if condition.texts:
            yield self.field(key=key, match=self.match_any(sorted(condition.texts)))
        for flag in condition.flags:
            yield self.field(key=key, match=self.match_flag(flag))
        for bounds in condition.ranges:
            yield self.field(key=key, range=self.range(**bounds))
