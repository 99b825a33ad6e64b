"""Vectors of repeated inputs. A changed memory is another key, so an old vector is never served."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..request import RefineOptions
from .embedding import Item
from .rows import Row

Key: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class Seen:
    """How often the cache was asked, and could answer."""

    hits: int
    misses: int
    entries: int


class RowCache:
    """The rows that were used last, at most so many; safe to use from several threads."""

    def __init__(self, entries: int) -> None:
        self._most, self._rows, self._lock = entries, OrderedDict[Key, Row](), threading.Lock()
        self._hits = self._misses = 0

    @property
    def on(self) -> bool:
        """Whether anything is kept."""
        return self._most > 0

    @property
    def seen(self) -> Seen:
        """Counts since the start."""
        with self._lock:
            return Seen(self._hits, self._misses, len(self._rows))

    def get(self, key: Key) -> Row | None:
        """Look up a row."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self._misses += 1
            else:
                self._hits += 1
                self._rows.move_to_end(key)
            return row

    def put(self, key: Key, row: Row) -> None:
        """Keep a row, and drop the one that was not used for longest."""
        own = replace(row, vector=row.vector.copy(), frozen=row.frozen.copy())  # not a view that keeps its whole batch
        with self._lock:
            self._rows[key] = own
            self._rows.move_to_end(key)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)


def key_of(item: Item, *, refined: bool, options: RefineOptions, version: int) -> Key:
    """What a row depends on: the input; and, refined, the options and the version of the memory."""
    raw = item.content.encode("utf-8", "surrogatepass") if isinstance(item.content, str) else bytes(item.content)
    kind = type(item.content).__name__
    digest = hashlib.blake2b(raw, digest_size=16).digest()
    return (item.modality, kind, digest, *((repr(options), version) if refined else ()))
