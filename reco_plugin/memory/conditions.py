"""Our conditions on pairs in the words of either Qdrant library, which have the same names and other constructors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .checks import CheckedSearch
from .filters import AnyOf, Condition

F = TypeVar("F")

_WHOLE = 2**53
"""Whole numbers below are exact as floats, so that bounds can stand for equality, which finds 1 and 1.0 alike."""
_BRANCHES = 8
"""Numbers are sought in a tree of bounds: of 1,000, some 20 are compared with a pair's value, rather than all."""


@dataclass(frozen=True)
class FilterConstructors(Generic[F]):
    """Constructors of a library.

    Attributes:
        filter: takes ``must``, ``must_not`` and ``should``, lists of conditions or None.
        field: takes ``key`` and either ``match`` or ``range``.
        range: takes bounds by name.
        match_any: takes texts, or whole numbers.
        match_flag: takes a boolean.
        has_id: takes ids of points.
    """

    filter: Callable[..., F]
    field: Callable[..., Any]
    range: Callable[..., Any]
    match_any: Callable[[list[Any]], Any]
    match_flag: Callable[[bool], Any]
    has_id: Callable[[Collection[Any]], Any]

    def filters(
        self, wanted: CheckedSearch, always: Sequence[Any], point_id: Callable[[str], Any]
    ) -> Iterator[F | None]:
        """One filter per query; None where everything may be found.

        Args:
            wanted: conditions and exclusions.
            always: conditions that come on top.
            point_id: names the point of an id.
        """
        must = [*always, *(self._condition(condition) for condition in wanted.conditions)]
        made: dict[int, F | None] = {}  # queries that share their exclusions share a filter
        for ids in wanted.exclude:
            if id(ids) not in made:
                must_not = [self.has_id({point_id(name) for name in ids})] if ids else []
                made[id(ids)] = self._filter(must=must, must_not=must_not) if must or must_not else None
            yield made[id(ids)]

    def _condition(self, condition: Condition) -> Any:
        key = f'"{condition.key}"'  # quoted: a dot in it is no path
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
        """That a value is one of these numbers, which ascend."""
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
