"""What a caller may see and change of a memory: the pairs whose payload has the fields of the caller's scope.

The scope belongs to the context of a call, as a service sets it for a key with ``where``. The pairs of a Reco then have
a :class:`ScopedMemory` before the store, so whoever uses the store in that context stays inside the scope.

Two scopes may use the same id for two pairs. What is added in a scope is stored under its id behind the scope's own
prefix, which the scope does not see. A pair that was added outside any scope keeps its plain id.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeAlias

from ..defaults import SCROLL_BATCH
from ..errors import InputError
from ..types import Filter, Neighbours, Payload, Records, Search
from ..values import show
from .base import Memory
from .checks import check_ids, check_positive
from .filters import parse_filter
from .header import Header, SaidRecord

Scope: TypeAlias = tuple[tuple[str, str], ...]
"""Fields of a payload and their values, sorted by field; empty: the whole memory."""
_SCOPE: ContextVar[Scope] = ContextVar("scope", default=())
_MARK = "scope"
"""Key of the scope in a record of feedback."""


@contextmanager
def in_scope(scope: Scope = ()) -> Iterator[None]:
    """Limit the block to the pairs of a scope; without one, it sees the whole memory."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def current_scope() -> Scope:
    """The scope of this context."""
    return _SCOPE.get()


class ScopedMemory:
    """The pairs of one scope; see :class:`~reco_plugin.memory.base.Memory` for the methods.

    A pair whose field lists several values is in the scope of each, and only who sees the whole memory changes it.
    """

    def __init__(self, store: Memory, scope: Scope) -> None:
        self.kind, self.location = store.kind, store.location
        self.learned: dict[str, Any] | None = None
        """What was learned of its own pairs, in place of what was learned of all."""
        self._store, self._scope, self._fields = store, scope, dict(scope)
        self._conditions = parse_filter(self._fields)
        self._prefix = json.dumps(self._fields, ensure_ascii=False, separators=(",", ":"))  # no prefix begins another

    @property
    def header(self) -> Header:
        """The encoder, what was learned, and the scope's own feedback."""
        return self._shown(self._store.header)

    def look(self) -> Header:
        """The same, read anew."""
        return self._shown(self._store.look())

    def set_calibration(self, calibration: dict[str, Any]) -> None:
        """Keep, in RAM, what was learned of the scope's own pairs."""
        self.learned = calibration or None

    def change_said(self, added: Sequence[SaidRecord], gone: Collection[str]) -> None:
        """Store feedback of this scope, and forget some of it."""
        own = self.look().said
        marked = [{**one, _MARK: self._fields} for one in added]
        self._store.change_said(marked, [name for name in gone if name in own])

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs in the scope."""
        return self._store.count(self._fields)

    def search(self, search: Search) -> Neighbours:
        """Search the pairs of the scope."""
        hidden = search.exclude and [[*ids, *map(self._place, ids)] for ids in map(list, search.exclude)]
        found = self._store.search(replace(search, exclude=hidden, within=self._fields, checked=False))
        ids = [self._names(row) for row in found.ids]
        return replace(found, ids=ids, word_ids=[tuple(self._names(row)) for row in found.word_ids])

    def upsert(self, records: Records) -> None:
        """Add pairs with the fields of the scope, or replace those of the scope.

        Raises:
            InputError: a pair states another value of a field.
        """
        for name, payload in zip(records.ids, records.payloads, strict=True):
            for field, value in self._scope:
                if payload.get(field, value) != value:
                    raise InputError(
                        f"the payload of {show(name)}: {field} is {show(payload[field])}, and this key writes only "
                        f"{field} = {show(value)}: leave {field} out, or use the key of that {field}"
                    )
        names = check_ids(records.ids, "records.ids")
        found = self._found(names, write=True)
        ids = [found.get(name, self._place(name)) for name in names]
        self._store.upsert(replace(records, ids=ids, payloads=[{**one, **self._fields} for one in records.payloads]))

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs of the scope; returns how many existed."""
        found = self._found(check_ids(ids, "delete"), write=True)
        return self._store.delete(list(found.values())) if found else 0

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """Pairs of the scope in batches (N, D)."""
        check_positive(batch_size, "batch_size")
        parts = self._pages() if ids is None else [list(self._found(check_ids(ids, "scroll")).values())]
        for batch in (batch for part in parts if part for batch in self._store.scroll(batch_size, part)):
            yield replace(batch, ids=self._names(batch.ids))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of pairs of the scope."""
        parts = self._pages() if ids is None else [list(self._found(check_ids(ids, "ids")).values())]
        for name, payload in (pair for part in parts if part for pair in self._store.payloads(part)):
            yield self._name(name), payload

    def ids_after(self, last: str | None, limit: int, within: Filter | None = None) -> list[str]:
        """The next ids of the scope; ``last`` is one that this returned."""
        start = last if last is None else self._found([last]).get(last, self._place(last))
        return self._names(self._store.ids_after(start, limit, self._fields))

    def flush(self) -> None:
        """Make everything written so far durable."""
        self._store.flush()

    def close(self) -> None:
        """Close nothing: others use the store."""

    def _shown(self, header: Header) -> Header:
        said = {name: one for name, one in header.said.items() if one.get(_MARK) == self._fields}
        return replace(header, said=said, calibration=self.learned or header.calibration)

    def _pages(self) -> Iterator[list[str]]:
        """Stored ids of the scope, page by page."""
        last = None
        while page := self._store.ids_after(last, SCROLL_BATCH, self._fields):
            yield page
            last = page[-1]

    def _found(self, names: Sequence[str], *, write: bool = False) -> dict[str, str]:
        """Ids that exist in the scope, and those under which they are stored; the scope's own pair comes first.

        Args:
            names: ids as the scope knows them.
            write: only pairs that the scope may change.

        Raises:
            InputError: a pair that may not be changed has an id of this scope.
        """
        places = {name: name for name in names} | {self._place(name): name for name in names}
        found = dict[str, str]()
        there = dict(self._store.payloads(list(places))) if places else {}
        for place, name in places.items():
            if (payload := there.get(place)) is None:
                continue
            owned = all(payload.get(field) == value for field, value in self._scope)
            if owned or (not write and all(one.fits(payload) for one in self._conditions)):
                found[name] = place
            elif write and place != name:
                raise InputError(f"only a key of the whole memory changes the pair {show(name)}: use another id")
        return {name: found[name] for name in names if name in found}

    def _place(self, name: str) -> str:
        return self._prefix + name

    def _name(self, place: str) -> str:
        return place.removeprefix(self._prefix)

    def _names(self, places: Iterable[str]) -> list[str]:
        return [self._name(place) for place in places]


def scope_of(fields: Mapping[str, str]) -> Scope:
    """The scope of these fields.

    Raises:
        InputError: a field that no filter can name.
    """
    parse_filter(fields)
    return tuple(sorted(fields.items()))
