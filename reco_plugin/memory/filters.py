"""Conditions on the payload, checked and in a neutral form that each backend translates."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from ..errors import InputError
from ..types import Filter

WHOLE = 2**53
"""Whole numbers below are exact as floats, so that stores without equality of numbers can use bounds."""
Scalar: TypeAlias = str | bool | int | float

_COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


@dataclass(frozen=True)
class Condition:
    """One condition on a top-level payload key; of a list in the payload, one element that fits is enough.

    Attributes:
        key: payload key.
        any_of: values one of which must be equal; None when bounds are given. True does not equal 1, but 1 equals 1.0.
        bounds: operator -> number, all of which must hold; booleans and text are in no bounds.
    """

    key: str
    any_of: tuple[Scalar, ...] | None
    bounds: Mapping[str, float]


def parse_filter(where: Filter | None) -> tuple[Condition, ...]:
    """A filter in the neutral form that each backend translates.

    >>> parse_filter({"shop": "de", "year": {"gte": 2020}})[1]
    Condition(key='year', any_of=None, bounds={'gte': 2020.0})
    """
    return tuple(_condition(key, value) for key, value in (where or {}).items())


def matches(conditions: Sequence[Condition], payload: dict[str, Any]) -> bool:
    """Whether a payload fulfils all conditions."""
    return all(
        any(_fits(condition, one) for one in (value if isinstance(value, list) else [value]))
        for condition in conditions
        for value in [payload.get(condition.key)]
    )


def _fits(condition: Condition, value: Any) -> bool:
    if condition.any_of is not None:
        return any(_equal(value, one) for one in condition.any_of)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and all(_COMPARE[name](float(value), bound) for name, bound in condition.bounds.items())


def _equal(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _condition(key: str, value: Any) -> Condition:
    if not isinstance(key, str) or '"' in key or "\\" in key:
        raise InputError(f"filter: {key!r} cannot be filtered by: expected a payload key without quote or backslash")
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in _COMPARE]
        if unknown or not value:
            raise InputError(f"filter {key!r}: expected bounds of {', '.join(_COMPARE)}, found {dict(value)!r}")
        return Condition(key, None, {name: _bound(key, number) for name, number in value.items()})
    values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    for one in values:
        if not isinstance(one, get_args(Scalar)) or (isinstance(one, float) and not math.isfinite(one)):
            raise InputError(f"filter {key!r}: expected text, numbers or booleans, found {one!r}")
    return Condition(key, tuple(values), {})


def _bound(key: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or math.isnan(number):
        raise InputError(f"filter {key!r}: a bound must be a number, found {number!r}")
    return float(number)
