"""Refine vectors through a memory: retrieve -> weigh -> move. No encoder is needed here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol, Unpack, get_args

import numpy as np
import numpy.typing as npt

from .calibration import Calibration
from .calibration.closed_form import Closed, Learned, RefinedBlock, Request
from .calibration.learn import learn
from .defaults import NEIGHBOURS
from .errors import InputError
from .fuse import Fuser
from .memory import Fingerprint, Memory, Searches, open_memory
from .memory.checks import check_ids
from .request import RefineKeywords, RefineOptions
from .retrieve import Retrieval, retrieve
from .types import (
    MODALITIES,
    Caution,
    Coverage,
    FuserName,
    Modality,
    Moves,
    Neighbours,
    Records,
    Refinement,
    Role,
    Used,
    Vectors,
)
from .values import EXCLUSIONS_AT_ONCE, check_choice, show
from .vectors import check_vectors

_ROWS = 512  # queries per search and fusion call, at most
_NUMBERS = 2**26  # in the (B, K, D) block of neighbour vectors of one such call: 256 MiB


class Trusted(Learned, Protocol):
    """A memory that is searched and read."""

    @property
    def store(self) -> Memory:
        """The pairs.

        Raises:
            MemoryStoreError: they cannot be reached yet.
        """
        ...


@dataclass(frozen=True)
class VectorMemory:
    """A memory that is complete, with its calibration."""

    store: Memory  # the pairs
    calibration: Calibration | None  # what was learned from them
    before: Searches | None = None  # a wrapper of the store that refinements search; None: the store itself

    @property
    def searches(self) -> Searches:
        """What a refinement searches."""
        return self.before or self.store


class Refiner:
    """Refines CLIP vectors."""

    def __init__(
        self,
        memory: Trusted,
        fusers: Mapping[FuserName, Fuser] | Fuser | None,
        how: Retrieval,
        *,
        gate: bool = True,
        caution: Caution | float = "balanced",
        fuser: FuserName = "reco",
        timed: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Put a memory and the ways to fuse together.

        Args:
            memory: the pairs that are retrieved from, and their calibration.
            fusers: by name, besides the closed form; or a single one that is used always; None: only the closed form.
            how: defaults of k, search and fusion.
            gate: whether the closed form moves only as far as the memory's own pairs justify.
            caution: see :class:`~reco_plugin.request.RefineOptions`.
            fuser: which one refines unless a request says otherwise.
            timed: around each move by the closed form.
        """
        self.memory, self.how = memory, how
        self._fusers: Mapping[FuserName, Fuser] = fusers if isinstance(fusers, Mapping) else {}
        self._only = None if fusers is None or isinstance(fusers, Mapping) else fusers
        self._gate, self._caution, self._fuser, self._timed = gate, caution, fuser, timed

    @property
    def dimension(self) -> int:
        """D."""
        return self.memory.searches.header.fingerprint.dimension

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        **options: Unpack[RefineKeywords],
    ) -> Refinement:
        """Refine (B, D) unit-norm vectors; everything as in :meth:`reco_plugin.reco.Reco.refine`."""
        asked = RefineOptions(**options)
        queries = check_vectors(vectors, self.dimension)
        check_choice("modality", modality, MODALITIES)
        check_choice("role", role, get_args(Role))
        request = Request(
            modality,
            role,
            self.how.with_options(asked),
            asked.fuser or self._fuser,
            self._caution if asked.caution is None else asked.caution,
            asked.answered,
            gated=self._gate if asked.gate is None else asked.gate,
            explain=asked.explain,
        )
        hidden = _per_query(asked.exclude, len(queries))
        moves = self._method(request)
        size = self._rows(request.how.k, hidden)
        covered = moves.cover(queries, hidden, size) if isinstance(moves, Closed) else None
        parts = [
            self._refine(request, moves, queries[rows], hidden[rows] if hidden else None, covered, rows)
            for rows in _slices(len(queries), size)
        ]
        whole = _concatenate(parts)
        if role == "candidate" and isinstance(moves, Closed) and whole.moves is not None and whole.coverage is not None:
            held = whole.coverage.held
            return replace(whole, vectors=queries.copy() if held else moves.to_vectors(whole.moves))
        return whole

    def _method(self, request: Request) -> Closed | Fuser:
        """The closed form, or another fusion."""
        if self._only is not None:
            return self._only
        if request.fuser != "reco":
            if request.fuser not in self._fusers:
                known = ", ".join(["reco", *self._fusers])
                raise InputError(f"the model has no fusion {request.fuser!r}, only: {known}")
            return self._fusers[request.fuser]
        return Closed(self.memory, request)

    def _refine(
        self,
        request: Request,
        moves: Closed | Fuser,
        queries: Vectors,
        hidden: Sequence[Collection[str]] | None,
        covered: npt.NDArray[np.bool_] | None,
        rows: slice,
    ) -> Refinement:
        """Refine one block of queries (B, D)."""
        found = retrieve(
            self.memory.searches,
            queries,
            request.modality,
            request.how,
            exclude=hidden,
            payloads=request.explain,
            ids=request.explain,
            witnesses=isinstance(moves, Closed),
        )
        retrieved = np.asarray(found.found.any(axis=1))
        if isinstance(moves, Closed):
            with self._timed():
                refined = moves.refine(queries, found, covered, rows)
        elif retrieved.any():
            reliability = found.found.astype(np.float32)
            vectors, weights = moves.fuse(request.modality, queries, found, reliability)
            refined = RefinedBlock(vectors, reliability, weights, Coverage(len(queries), int(retrieved.sum())), None)
        else:
            nothing = np.zeros_like(found.similarity)
            refined = RefinedBlock(queries.copy(), nothing, nothing, Coverage(len(queries), 0), None)
        whole = Refinement(
            refined.vectors,
            queries,
            coverage=refined.coverage,
            retrieved=retrieved,
            moves=refined.moves,
            why=refined.why,
        )
        if not request.explain:
            return whole
        return replace(whole, neighbours=found, reliability=refined.reliability, weights=refined.weights)

    def _rows(self, k: int, hidden: Sequence[Collection[str]] | None) -> int:
        """Queries per call, so that the vectors and excluded ids of a call stay bounded."""
        longest = max((len(ids) for ids in hidden or ()), default=0)
        return max(1, min(_ROWS, _NUMBERS // (k * self.dimension), EXCLUSIONS_AT_ONCE // max(longest, 1)))


def used_pairs(result: Refinement, row: int) -> tuple[Used, ...]:
    """The pairs that one row of a refinement used, nearest first; empty without an explanation."""
    found, reliability, weights = result.neighbours, result.reliability, result.weights
    if found is None or reliability is None or weights is None:
        return ()
    payloads = found.payloads[row] if found.payloads is not None else [{}] * len(found.ids[row])
    return tuple(
        Used(
            id_,
            float(found.similarity[row, column]),
            float(reliability[row, column]),
            float(weights[row, column]),
            payload,
        )
        for column, (id_, payload) in enumerate(zip(found.ids[row], payloads, strict=True))
    )


def refiner_for_vectors(
    records: Iterable[Records],
    fuser: Fuser | None = None,
    *,
    how: Retrieval | None = None,
    gate: bool = True,
    caution: Caution | float = "balanced",
) -> Refiner:
    """Build a refiner from pairs of vectors, (N, D) per batch, without a model folder.

    The memory is exact and lives in RAM, and it is calibrated on all of its pairs.

    Args:
        records: the pairs, in batches, ids unique.
        fuser: the closed form when None.
        how: defaults of k, search and fusion; k is 10 when None.
        gate: whether the closed form moves only as far as the memory's own pairs justify.
        caution: see :class:`~reco_plugin.request.RefineOptions`.

    Raises:
        InputError: no pairs, or vectors of different dimensions.
    """
    batches = list(records)
    if not sum(map(len, batches)):
        raise InputError("no pairs to build a memory of")
    if len(dimensions := {batch.image.shape[1] for batch in batches}) > 1:
        raise InputError(f"the pairs have vectors of different dimensions: {sorted(dimensions)}")
    how = how or Retrieval(k=NEIGHBOURS)
    store = open_memory(":memory:", _own_fingerprint(batches[0]), kind="exact")
    for batch in batches:
        store.upsert(batch)
    return Refiner(VectorMemory(store, learn(store, how.k)), fuser, how, gate=gate, caution=caution)


def _own_fingerprint(records: Records) -> Fingerprint:
    """Fingerprint of the unknown encoder, from the vectors (N, D), so that no other memory has the same."""
    digest = hashlib.sha256(records.image.tobytes() + records.text.tobytes()).hexdigest()
    return Fingerprint("precomputed vectors", digest, records.image.shape[1])


def _per_query(
    exclude: Sequence[Collection[str]] | Collection[str] | None, queries: int
) -> list[Collection[str]] | None:
    if exclude is None:
        return None
    if isinstance(exclude, (str, bytes)) or not isinstance(exclude, Iterable):
        raise InputError(f"exclude must be a collection of ids, got the single id {show(exclude)}: put it in a list")
    items = list(exclude)
    if all(isinstance(item, str) for item in items):  # one collection of ids, for all queries
        return [items] * queries  # type: ignore[list-item]
    if len(items) != queries:
        raise InputError(f"exclude has {len(items)} collections of ids for {queries} vectors: give one per vector")
    return [check_ids(ids, "exclude") for ids in items]


def _slices(rows: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, rows, size)]


def _concatenate(parts: list[Refinement]) -> Refinement:
    if len(parts) == 1:
        return parts[0]
    vectors = np.concatenate([part.vectors for part in parts])
    frozen = np.concatenate([part.frozen for part in parts])
    retrieved = np.concatenate([part.retrieved for part in parts if part.retrieved is not None])
    coverage = Coverage.join([part.coverage for part in parts if part.coverage is not None])
    moving = [part.moves for part in parts if part.moves is not None]
    moves = Moves.join(moving) if moving else None
    whole = Refinement(vectors, frozen, coverage=coverage, retrieved=retrieved, moves=moves)
    found = [part.neighbours for part in parts if part.neighbours is not None]
    if not found:
        return whole
    neighbours = Neighbours(
        ids=[ids for part in found for ids in part.ids],
        similarity=np.concatenate([part.similarity for part in found]),
        vectors=np.concatenate([part.vectors for part in found]),
        found=np.concatenate([part.found for part in found]),
        payloads=[row for part in found for row in part.payloads or []],
    )
    trusts = np.concatenate([part.reliability for part in parts if part.reliability is not None])
    weights = np.concatenate([part.weights for part in parts if part.weights is not None])
    why = [one for part in parts for one in part.why or ()]
    return replace(whole, neighbours=neighbours, reliability=trusts, weights=weights, why=why or None)
