"""Filters on the payload, checked and in a neutral form that each backend translates."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..types import Filter
from ..values import WHERE_KEYS, WHERE_NUMBERS, WHERE_TEXTS, is_scalar, is_unicode, show

USER_ID = "_reco_id"
"""Payload key of the user's id."""
WITNESSES = "_reco_trust"
"""Payload key of a pair's witnesses, three numbers."""
RESERVED = (USER_ID, WITNESSES)
"""Keys that users' payloads cannot have, and do not see."""

_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


@dataclass(frozen=True)
class AnyOf:
    """Values of which one must match. True does not equal 1, but 1 equals 1.0."""

    texts: frozenset[str] = frozenset()
    flags: frozenset[bool] = frozenset()
    numbers: frozenset[int | float] = frozenset()

    def __contains__(self, value: object) -> bool:
        match value:
            case bool():
                return value in self.flags
            case str():
                return value in self.texts
            case int() | float():
                return value in self.numbers
        return False


@dataclass(frozen=True)
class Condition:
    """One condition on a top-level payload key; of a list in the payload, one matching element is enough."""

    key: str
    any_of: AnyOf | None  # None if there are bounds
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Operator -> number, all must hold; booleans and text never match."""


def parse_filter(where: Filter | None) -> tuple[Condition, ...]:
    """A filter in the neutral form that each backend translates.

    Raises:
        InputError: not a mapping, an invalid key or value, or more of them than :mod:`..values` allows.

    >>> parse_filter({"shop": "de", "year": {"gte": 2020}})[1]
    Condition(key='year', any_of=None, bounds={'gte': 2020.0})
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise InputError(f'filter: expected conditions as in {{"shop": "de"}}, found {show(where)}')
    if len(where) > WHERE_KEYS:
        raise InputError(f"filter: {len(where):,} keys, at most {WHERE_KEYS} can be asked at once: use fewer")
    listed = sum(len(value) for value in where.values() if _is_list(value))
    if listed > WHERE_TEXTS + WHERE_NUMBERS:  # before each value is checked
        raise InputError(f"filter: {listed:,} values, {_ALLOWED}")
    conditions = tuple(_condition(key, value) for key, value in where.items())
    values = [condition.any_of for condition in conditions if condition.any_of is not None]
    if (texts := sum(len(each.texts) for each in values)) > WHERE_TEXTS:
        raise InputError(f"filter: {texts:,} texts, {_ALLOWED}")
    if (numbers := sum(len(each.numbers) for each in values)) > WHERE_NUMBERS:
        raise InputError(f"filter: {numbers:,} numbers, {_ALLOWED}")
    return conditions


_ALLOWED = (
    f"at most {WHERE_TEXTS:,} texts and {WHERE_NUMBERS:,} numbers can be listed: ask in parts, give numbers as bounds "
    '({"gte": 1, "lt": 9}), or keep in the payload what they have in common'
)


def matches(conditions: Sequence[Condition], payload: dict[str, Any]) -> bool:
    """Whether a payload fulfils all conditions."""
    return all(
        any(_fits(condition, one) for one in (value if isinstance(value, list) else [value]))
        for condition in conditions
        for value in [payload.get(condition.key)]
    )


def _fits(condition: Condition, value: Any) -> bool:
    if condition.any_of is not None:
        return value in condition.any_of
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and all(_COMPARE[name](float(value), bound) for name, bound in condition.bounds.items())


def _condition(key: str, value: Any) -> Condition:
    if not isinstance(key, str) or '"' in key or "\\" in key or not is_unicode(key):
        raise InputError(
            f"filter: {show(key)} cannot be filtered by: expected a payload key without quote or backslash, in Unicode"
        )
    if key in RESERVED:
        raise InputError(f"filter: {key!r} is reserved; read pairs by id with scroll(ids=...)")
    if isinstance(value, Mapping):
        if not value or any(name not in _COMPARE for name in value):
            raise InputError(f"filter {key!r}: expected bounds of {', '.join(_COMPARE)}, found {show(dict(value))}")
        return Condition(key, None, {name: _bound(key, number) for name, number in value.items()})
    values = value if _is_list(value) else [value]
    if unfit := [one for one in values if not is_scalar(one)]:
        raise InputError(
            f"filter {key!r}: expected text in Unicode, finite numbers of 64 bits or booleans, found {show(unfit[0])}"
        )
    return Condition(
        key,
        AnyOf(
            frozenset(one for one in values if isinstance(one, str)),
            frozenset(one for one in values if isinstance(one, bool)),
            frozenset(one for one in values if isinstance(one, (int, float)) and not isinstance(one, bool)),
        ),
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _bound(key: str, number: Any) -> float:
    if isinstance(number, (int, float)) and not isinstance(number, bool):
        try:
            if math.isfinite(number):
                return float(number)
        except OverflowError:  # an integer beyond the range of floats
            pass
    raise InputError(f"filter {key!r}: a bound must be a finite number, found {show(number)}")
