"""Rows of an answer, and the cache of rows for repeated inputs."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..request import RefineOptions
from ..types import Coverage, Degraded, Modality, Used
from ..why import Why
from .embedding import Embedded, Item
from .failures import Failure

RowKey: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class AnswerRow:
    """The answer to one item; without more than the vectors, to one that failed."""

    vector: npt.NDArray[np.float32]  # (D,) unit-norm
    frozen: npt.NDArray[np.float32]  # (D,) before refinement
    moved: float = 0.0  # cosine distance of the two
    refined: bool = False  # refinement was on, and the memory had pairs
    truncated: bool = False  # the text was cut
    tokens: int = 0  # of a text
    used: tuple[Used, ...] = ()  # pairs that the refinement used; empty without an explanation
    covered: bool | None = None  # whether the memory knows this text candidate
    why: Why | None = None  # why it moved as far as it did


def to_embedded(
    rows: Sequence[AnswerRow | Failure],
    dimension: int,
    *,
    degraded: Degraded | None,
    explained: bool,
    seconds: Mapping[str, float],
    coverage: Mapping[Modality, Coverage],
) -> Embedded:
    """B rows as columns, vectors (B, D); zeros where an item failed."""
    zeros = np.zeros(dimension, np.float32)
    filled = [row if isinstance(row, AnswerRow) else AnswerRow(zeros, zeros) for row in rows]
    return Embedded(
        vectors=np.stack([row.vector for row in filled]),
        frozen=np.stack([row.frozen for row in filled]),
        failures=tuple(row if isinstance(row, Failure) else None for row in rows),
        truncated=tuple(row.truncated for row in filled),
        tokens=tuple(row.tokens for row in filled),
        refined=tuple(row.refined for row in filled),
        moved=np.array([row.moved for row in filled], np.float32),
        degraded=degraded,
        used=tuple(row.used for row in filled) if explained else None,
        seconds=seconds,
        covered=tuple(row.covered for row in filled),
        why=tuple(row.why for row in filled) if explained else None,
        coverage=coverage,
    )


@dataclass
class CacheCounts:
    """Hits and misses since the start, and the size of the cache now."""

    hits: int = 0
    misses: int = 0
    entries: int = 0


class AnswerCache:
    """An LRU cache of rows; safe to use from several threads."""

    def __init__(self, entries: int) -> None:
        self._most, self._rows, self._lock = entries, OrderedDict[RowKey, AnswerRow](), threading.Lock()
        self.seen = CacheCounts()

    @property
    def on(self) -> bool:
        """Whether it keeps any rows."""
        return self._most > 0

    def get(self, key: RowKey) -> AnswerRow | None:
        """Look up a row."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self.seen.misses += 1
            else:
                self.seen.hits += 1
                self._rows.move_to_end(key)
            return row

    def put(self, key: RowKey, row: AnswerRow) -> None:
        """Keep a row, and drop the least recently used one."""
        own = replace(row, vector=row.vector.copy(), frozen=row.frozen.copy())  # a view would keep the whole batch
        with self._lock:
            self._rows[key] = own
            self._rows.move_to_end(key)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
            self.seen.entries = len(self._rows)


def key_of(item: Item, *, refined: bool, options: RefineOptions, version: int) -> RowKey:
    """The key of a row: the input, and for a refined row the options and the version of the memory."""
    raw = item.content.encode("utf-8", "surrogatepass") if isinstance(item.content, str) else bytes(item.content)
    kind = type(item.content).__name__
    digest = hashlib.blake2b(raw, digest_size=16).digest()
    return (item.modality, kind, digest, *((repr(options), version) if refined else ()))
