"""Searches and fusions of several threads, run together; trust stays with each call, which may be a set."""

from __future__ import annotations

import json
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..batching import Batcher, Columns
from ..fuse import Fused, Fuser
from ..memory import Header, Searches
from ..request import Search
from ..types import Modality, Neighbours, Vectors
from .guard import Outage

_MOST_NEIGHBOURS = 100  # per query: the vectors of a batch stay small


_Key: TypeAlias = tuple[Modality, Modality, int, bool, bool, bool, str | None]
"""What is equal in all searches of a batch: by, read, k, payloads, ids, witnesses, and the conditions as JSON."""


class BatchedSearches:
    """A memory in this process whose searches are run together."""

    def __init__(self, memory: Searches, most: int) -> None:
        self._memory, self._most = memory, most
        self._batcher = Batcher(self._run, most, shared=(Outage,))

    @property
    def header(self) -> Header:
        """Fingerprint and calibration."""
        return self._memory.header

    def search(self, search: Search) -> Neighbours:
        """Search with queries (B, D), see :meth:`reco_plugin.memory.Searches.search`.

        Large searches, and those with exclusions, are run alone.
        """
        if search.exclude is not None or not 0 < len(search.vectors) <= self._most or search.k > _MOST_NEIGHBOURS:
            return self._memory.search(search)
        try:
            condition = None if search.where is None else json.dumps(search.where)
        except (TypeError, ValueError):
            return self._memory.search(search)
        key = (search.by, search.read, search.k, search.payloads, search.ids, search.witnesses, condition)
        rows = (search.vectors, [search.where] * len(search.vectors))
        ids, similarity, vectors, found, payloads, witnesses = self._batcher(key, rows)
        return Neighbours(
            ids,
            similarity,
            vectors,
            found,
            payloads if search.payloads else None,
            witnesses if search.witnesses else None,
        )

    def _run(self, key: _Key, rows: Columns) -> Columns:
        (by, read, k, payloads, ids, witnesses, _), (vectors, where) = key, rows
        found = self._memory.search(Search(vectors, by, read, k, None, where[0], payloads, ids, witnesses))
        nothing = [None] * len(vectors)
        held = nothing if found.witnesses is None else found.witnesses
        return found.ids, found.similarity, found.vectors, found.found, found.payloads or nothing, held


class BatchedFuser:
    """A fusion in this process whose calls are run together."""

    def __init__(self, fuser: Fuser, most: int) -> None:
        self.name = fuser.name
        self._fuser, self._most = fuser, most
        self._batcher = Batcher(self._run, most, shared=(Outage,))

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Fuse (B, D) with (B, K, D) by trust (B, K), see :meth:`reco_plugin.fuse.Fuser.fuse`; large calls alone."""
        if not 0 < len(vectors) <= self._most or neighbours.vectors.shape[1] > _MOST_NEIGHBOURS:
            return self._fuser.fuse(modality, vectors, neighbours, trust)
        found = (neighbours.ids, neighbours.similarity, neighbours.vectors, neighbours.found)
        return Fused(*self._batcher((modality, neighbours.vectors.shape[1:]), (vectors, *found, trust)))

    def _run(self, key: tuple[Modality, tuple[int, ...]], rows: Columns) -> Columns:
        vectors, ids, similarity, read, found, trust = rows
        return self._fuser.fuse(key[0], vectors, Neighbours(ids, similarity, read, found), trust)
