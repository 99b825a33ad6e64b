"""Our conditions on pairs as Qdrant's filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qdrant_client import models

from .checks import Search
from .filters import WHOLE, Condition, Scalar
from .layout import Layout


def filters(wanted: Search, layout: Layout) -> Iterator[models.Filter | None]:
    """One filter per query; None where everything may be found."""
    must: list[Any] = [*layout.complete(), *(_condition(condition) for condition in wanted.conditions)]
    for ids in wanted.exclude:
        must_not: list[Any] = [has_id([layout.point_id(name) for name in ids])] if ids else []
        yield models.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def pairs_only(layout: Layout) -> models.Filter | None:
    """What a point must fulfil to be a pair; None where all are."""
    complete: list[Any] = [*layout.complete()]
    return models.Filter(must=complete) if complete else None


def has_id(points: Sequence[Any]) -> models.HasIdCondition:
    """The condition that a point is one of these."""
    return models.HasIdCondition(has_id=list(points))


def _condition(condition: Condition) -> models.Filter | models.FieldCondition | models.HasIdCondition:
    key = f'"{condition.key}"'  # quoted: a dot in it is no path
    if condition.any_of is None:
        return models.FieldCondition(key=key, range=models.Range(**condition.bounds))
    if not condition.any_of:
        return has_id([])
    return models.Filter(should=[_equal(key, value) for value in condition.any_of])


def _equal(key: str, value: Scalar) -> models.FieldCondition:
    if isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) >= WHOLE):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
