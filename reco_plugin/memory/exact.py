"""The reference: exact search with numpy, in RAM."""

from __future__ import annotations

import heapq
import json
import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..errors import ConfigError, MemoryStoreError
from ..types import MODALITIES, Filter, Fingerprint, Modality, Neighbours, Payload, Records, Search, Vectors, caption_of
from ..values import CONFIRMED
from .checks import CheckedSearch, check_ids, check_positive, check_records, check_search, chunks
from .filters import Condition, check_numbers, parse_filter
from .header import Header
from .lexical import MOST, Worded, stand_ins, stored_words
from .points import AT_ONCE, StoredHeader, empty_neighbours

_QUERIES_AT_ONCE = 64


class ExactMemory(StoredHeader):
    """All pairs in arrays."""

    kind = "exact"

    location = ":memory:"

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._lock = threading.RLock()
        self._open = True
        dimension = header.fingerprint.dimension
        self._rows: dict[str, int] = {}  # id -> row, in insertion order
        self._payloads: list[dict[str, Any]] = []
        self._sides: dict[Modality, Vectors] = {m: np.zeros((0, dimension), np.float32) for m in MODALITIES}
        self._cosine = np.zeros(0, np.float32)  # of each row's image and text
        self._confirmed = np.zeros(0, np.bool_)  # whether a person confirmed each row's caption
        self._words: list[list[int]] = []  # of each row's caption
        self._rows_of: dict[int, list[int]] | None = None  # word -> rows; None after a write

    @classmethod
    def open(cls, fingerprint: Fingerprint | None) -> ExactMemory:
        """An empty memory."""
        if fingerprint is None:
            raise ConfigError("a memory in RAM begins empty and needs the fingerprint of its encoder")
        return cls(Header(fingerprint))

    def count(self, within: Filter | None = None) -> int:
        """Number of pairs, or of those that fulfil conditions."""
        self._check_open()
        with self._lock:
            return len(self._rows) if within is None else int(self._fitting(parse_filter(within)).sum())

    def upsert(self, records: Records) -> None:
        """Add pairs, vectors (N, D); an id that exists is replaced as a whole and keeps its place in the order."""
        self._check_open()
        checked = check_records(records, self._dimension)
        with self._lock:
            self._reserve(len(self._rows) + sum(name not in self._rows for name in checked.ids))
            for name, payload in zip(checked.ids, checked.payloads, strict=True):
                if (row := self._rows.setdefault(name, len(self._rows))) == len(self._payloads):
                    self._payloads.append({})
                    self._words.append([])
                self._payloads[row], self._words[row] = dict(payload), stored_words(caption_of(payload))
            rows = [self._rows[name] for name in checked.ids]
            for modality in MODALITIES:
                self._sides[modality][rows] = checked.side(modality)
            self._cosine[rows] = checked.cosine
            self._confirmed[rows] = [payload.get(CONFIRMED) is True for payload in checked.payloads]
            self._rows_of = None

    def delete(self, ids: Collection[str]) -> int:
        """Remove pairs; returns how many existed."""
        self._check_open()
        wanted = set(check_ids(ids, "delete"))
        with self._lock:
            left = [(name, row) for name, row in self._rows.items() if name not in wanted]
            if not (gone := len(self._rows) - len(left)):
                return 0
            rows = [row for _, row in left]
            self._rows = {name: place for place, (name, _) in enumerate(left)}
            self._payloads = [self._payloads[row] for row in rows]
            self._words, self._rows_of = [self._words[row] for row in rows], None
            self._sides = {m: side[rows] for m, side in self._sides.items()}
            self._cosine, self._confirmed = self._cosine[rows], self._confirmed[rows]
            return gone

    def search(self, search: Search) -> Neighbours:
        """Compare queries (B, D) with every pair; ties keep the order of insertion."""
        self._check_open()
        wanted = check_search(search, self._dimension)
        out = empty_neighbours(len(wanted.vectors), wanted.k, self._dimension, search)
        with self._lock:
            names, stored = list(self._rows), self._sides[search.by][: len(self._rows)]
            permitted = self._permitted(wanted)
            vectors = wanted.vectors
            if search.words is not None:

                def find(weights: Mapping[int, Mapping[int, float]], everywhere: bool) -> list[list[Worded]]:
                    every = self._fitting(wanted.within)
                    return [
                        self._find(names, one, every if everywhere else permitted[row]) for row, one in weights.items()
                    ]

                vectors, words, word_ids = stand_ins(search, vectors, self.header.calibration.get("pairs", 0), find)
                out = replace(out, asked=vectors, words=words, word_ids=word_ids)
            for start in range(0, len(vectors), _QUERIES_AT_ONCE):
                scores = vectors[start : start + _QUERIES_AT_ONCE] @ stored.T  # (B, N)
                for row, score in enumerate(scores, start):
                    best = nearest(score, permitted[row], wanted.k)
                    out.ids[row].extend(names[place] for place in best)
                    out.found[row, : len(best)] = True
                    out.similarity[row, : len(best)] = score[best]
                    out.vectors[row, : len(best)] = self._sides[search.read][best]
                    out.cosine[row, : len(best)] = self._cosine[best]
                    out.is_confirmed[row, : len(best)] = self._confirmed[best]
                    if search.own:
                        out.own[row, : len(best)] = self._sides[search.by][best]
                    if out.payloads is not None:
                        out.payloads[row].extend(_copy(self._payloads[place]) for place in best)
            if wanted.conditions and not out.found.any():
                visible = np.flatnonzero(self._fitting(wanted.within))[:AT_ONCE]
                check_numbers(wanted.conditions, [self._payloads[row] for row in visible])
        return out

    def _permitted(self, wanted: CheckedSearch) -> list[npt.NDArray[np.bool_]]:
        """The pairs (N,) that each query may find; queries that may find the same share an array."""
        allowed = self._fitting(wanted.conditions)
        made: dict[int, npt.NDArray[np.bool_]] = {}
        for ids in wanted.exclude:
            if id(ids) not in made:
                made[id(ids)] = allowed.copy()
                made[id(ids)][[self._rows[name] for name in ids if name in self._rows]] = False
        return [made[id(ids)] for ids in wanted.exclude]

    def _fitting(self, conditions: Sequence[Condition]) -> npt.NDArray[np.bool_]:
        """Which pairs (N,) fulfil conditions."""
        fits = np.ones(len(self._payloads), np.bool_)
        if conditions:
            fits[:] = [all(one.fits(payload) for one in conditions) for payload in self._payloads]
        return fits

    def _find(
        self, names: Sequence[str], weights: Mapping[int, float], permitted: npt.NDArray[np.bool_]
    ) -> list[Worded]:
        """The captions with the most of these words, by IDF."""
        if self._rows_of is None:
            self._rows_of = {}
            for row, words in enumerate(self._words):
                for word in words:
                    self._rows_of.setdefault(word, []).append(row)
        scores = np.zeros(len(self._words), np.float32)
        for word in sorted(weights):
            rows = self._rows_of.get(word, [])
            scores[rows] += weights[word] * math.log1p((len(scores) - len(rows) + 0.5) / (len(rows) + 0.5))
        best, texts = nearest(scores, permitted & (scores > 0), MOST + 1), self._sides["text"]

        def read(row: int) -> tuple[frozenset[int], Vectors]:
            return frozenset(self._words[row]), texts[row]

        captions = [caption_of(self._payloads[row]) or "" for row in best]
        return [
            Worded(float(scores[row]), names[row], caption, partial(read, row))
            for row, caption in zip(best, captions, strict=True)
        ]

    def scroll(self, batch_size: int = SCROLL_BATCH, ids: Sequence[str] | None = None) -> Iterator[Records]:
        """All pairs in order of insertion, or those of ``ids`` in their order, in batches (N, D)."""
        self._check_open()
        check_positive(batch_size, "batch_size")
        wanted = list(self._rows) if ids is None else check_ids(ids, "scroll")
        batches = (self._read(chunk) for chunk in chunks(wanted, batch_size))
        return (batch for batch in batches if len(batch))

    def payloads(self, ids: Sequence[str] | None = None) -> Iterator[tuple[str, Payload]]:
        """Ids and payloads of all pairs, or of ``ids``."""
        with self._lock:
            self._check_open()
            wanted = list(self._rows) if ids is None else [name for name in check_ids(ids, "ids") if name in self._rows]
            return iter([(name, _copy(self._payloads[self._rows[name]])) for name in wanted])

    def ids_after(self, last: str | None, limit: int, within: Filter | None = None) -> list[str]:
        """The next ids behind ``last``, in the order of texts."""
        with self._lock:
            self._check_open()
            fits = self._fitting(parse_filter(within))
            behind = (name for name, row in self._rows.items() if fits[row] and (last is None or name > last))
            return heapq.nsmallest(check_positive(limit, "limit"), behind)

    def flush(self) -> None:
        """Nothing to do in RAM."""
        self._check_open()

    def close(self) -> None:
        """Free the arrays."""
        with self._lock:
            self._open = False
            self._rows, self._payloads, self._sides, self._words = {}, [], {}, []

    @property
    def _dimension(self) -> int:
        return self.header.fingerprint.dimension

    def _store(self, before: Header, after: Header) -> None:
        self._check_open()

    def _check_open(self) -> None:
        if not self._open:
            raise MemoryStoreError(f"the memory at {self.location!r} is closed: open it again")

    def _reserve(self, rows: int) -> None:
        """Make room for this many rows; grows by half, so that many small upserts take linear time."""
        if rows <= len(self._cosine):
            return
        more = max(rows, len(self._cosine) * 3 // 2) - len(self._cosine)
        for modality, side in self._sides.items():
            self._sides[modality] = np.concatenate([side, np.zeros((more, self._dimension), np.float32)])
        self._cosine = np.concatenate([self._cosine, np.zeros(more, np.float32)])
        self._confirmed = np.concatenate([self._confirmed, np.zeros(more, np.bool_)])

    def _read(self, ids: Sequence[str]) -> Records:
        with self._lock:
            self._check_open()
            names = [name for name in ids if name in self._rows]
            rows = [self._rows[name] for name in names]
            payloads = [_copy(self._payloads[row]) for row in rows]
            return Records(names, self._sides["image"][rows], self._sides["text"][rows], payloads)


def nearest(scores: npt.NDArray[np.float32], permitted: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.intp]:
    """Indices of the k largest permitted scores, (N,) -> (<= k,), largest first; ties keep their order.

    >>> nearest(np.float32([0.1, 0.9, 0.9, 0.5]), np.array([True, True, True, False]), 2).tolist()
    [1, 2]
    """
    places = np.flatnonzero(permitted)
    if k < len(places):
        least = np.partition(scores[places], -k)[-k]
        places = places[scores[places] >= least]
    return places[np.argsort(-scores[places], kind="stable")][:k]


def _copy(payload: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(payload)))
