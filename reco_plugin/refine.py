"""Refine vectors through a memory: retrieve -> trust -> fuse. No encoder is needed here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Unpack, get_args

import numpy as np
import numpy.typing as npt

from .calibration import Calibration, calibrate
from .defaults import CANDIDATE_HEIGHT, NEIGHBOURS
from .errors import InputError
from .fuse import Fuser, TrainingFreeFuser
from .gate import coverage, level, trust
from .memory import Fingerprint, Memory, Searches, open_memory
from .memory.checks import check_ids
from .request import RefineKeywords, RefineOptions
from .retrieve import Retrieval, retrieve
from .types import MODALITIES, Coverage, Modality, Neighbours, Records, Refinement, Role, Vectors
from .values import EXCLUSIONS_AT_ONCE, check_choice, shown
from .vectors import check_vectors

_ROWS = 512  # queries per search and fusion call, at most
_NUMBERS = 2**26  # in the (B, K, D) block of neighbour vectors of one such call: 256 MiB


class Calibrated(Protocol):
    """A memory with its current gate constants."""

    @property
    def store(self) -> Memory:
        """The pairs.

        Raises:
            MemoryStoreError: they cannot be reached yet.
        """
        ...

    @property
    def searches(self) -> Searches:
        """What a refinement searches: the store, or a wrapper of it."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """The gate's constants; None while nothing was added."""
        ...


@dataclass(frozen=True)
class VectorMemory:
    """A memory that is complete, with its constants."""

    store: Memory  # the pairs
    calibration: Calibration | None  # the constants
    before: Searches | None = None  # a wrapper of the store that refinements search; None: the store itself

    @property
    def searches(self) -> Searches:
        """What a refinement searches."""
        return self.before or self.store


class Refiner:
    """Refines CLIP vectors."""

    def __init__(
        self,
        memory: Calibrated,
        fuser: Fuser,
        how: Retrieval,
        *,
        gate: bool,
        candidate_height: float = CANDIDATE_HEIGHT,
    ) -> None:
        self.memory = memory
        """The pairs that are retrieved from, and the gate's constants."""
        self.how = how
        """Defaults of k, search and fusion."""
        self._fuser, self._gate, self._height = fuser, gate, candidate_height

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
        how, explain = self.how.with_options(asked), asked.explain
        hidden = _per_query(asked.exclude, len(queries))
        gated = (self._gate if asked.gate is None else asked.gate) and how.is_paper
        size = len(queries) if role == "candidate" else self._rows(how.k, hidden)  # those are judged as a set
        sets = [
            self._refine_set(
                queries[rows], modality, role, how, hidden[rows] if hidden else None, gated=gated, explain=explain
            )
            for rows in _slices(len(queries), size)
        ]
        parts = [part for some, _ in sets for part in some]
        whole = parts[0] if len(parts) == 1 else _concatenate(parts)
        return replace(whole, coverage=Coverage.join([found for _, found in sets]))

    def _refine_set(
        self,
        queries: Vectors,
        modality: Modality,
        role: Role,
        how: Retrieval,
        hidden: Sequence[Collection[str]] | None,
        *,
        gated: bool,
        explain: bool,
    ) -> tuple[list[Refinement], Coverage]:
        """Refine queries (B, D) as one set, in blocks; the neighbours of all of them are held at once."""
        blocks = _slices(len(queries), self._rows(how.k, hidden))
        found = [
            retrieve(
                self.memory.searches,
                queries[rows],
                modality,
                how,
                exclude=hidden[rows] if hidden else None,
                payloads=explain,
                ids=explain,
            )
            for rows in blocks
        ]
        trusted, covered = self._trust(modality, role, found, gated)
        parts = [
            self._fuse(queries[rows], modality, here, trusted[rows], explain=explain)
            for rows, here in zip(blocks, found, strict=True)
        ]
        return parts, covered

    def _rows(self, k: int, hidden: Sequence[Collection[str]] | None) -> int:
        """Queries per call, so that the vectors and excluded ids of a call stay bounded."""
        longest = max((len(ids) for ids in hidden or ()), default=0)
        return max(1, min(_ROWS, _NUMBERS // (k * self.dimension), EXCLUSIONS_AT_ONCE // max(longest, 1)))

    def _trust(
        self, modality: Modality, role: Role, found: Sequence[Neighbours], gated: bool
    ) -> tuple[npt.NDArray[np.float32], Coverage]:
        """Trust (B, K) of all queries at once, since candidates are judged as a set; and their coverage."""
        present = np.concatenate([part.found for part in found])
        calibration = self.memory.calibration if gated else None
        if calibration is None:
            return present.astype(np.float32), Coverage(len(present), int(present.any(axis=1).sum()))
        similarity, gate = np.concatenate([part.similarity for part in found]), self._fuser.text_gate
        trusted = trust(calibration, modality, similarity, present, text_gate=gate)
        covered = coverage(calibration, modality, role, trusted, present, text_gate=gate)
        if role == "candidate":
            trusted = level(calibration, modality, trusted, height=self._height, text_gate=gate)
        return trusted, covered

    def _fuse(
        self,
        queries: Vectors,
        modality: Modality,
        found: Neighbours,
        trusted: npt.NDArray[np.float32],
        *,
        explain: bool,
    ) -> Refinement:
        if trusted.any():
            vectors, weights = self._fuser.fuse(modality, queries, found, trusted)
        else:
            vectors, weights = queries.copy(), np.zeros_like(trusted)
        retrieved = np.asarray(found.found.any(axis=1))
        if not explain:
            return Refinement(vectors, queries, retrieved=retrieved)
        return Refinement(vectors, queries, found, trusted, weights, retrieved=retrieved)


def refiner_for_vectors(
    records: Iterable[Records], fuser: Fuser | None = None, *, how: Retrieval | None = None, gate: bool = True
) -> Refiner:
    """Build a refiner from pairs of vectors, (N, D) per batch, without a model folder.

    The memory is exact and lives in RAM, and the gate is calibrated on all of its pairs.

    Args:
        records: the pairs, in batches, ids unique.
        fuser: the training-free one when None.
        how: defaults of k, search and fusion; k is 10 when None.
        gate: whether calibrated trust weighs the neighbours.

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
    sides = (np.concatenate([batch.side(modality) for batch in batches]) for modality in MODALITIES)
    memory = VectorMemory(store, calibrate(*sides, neighbours=how.k))
    return Refiner(memory, fuser or TrainingFreeFuser(), how, gate=gate)


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
        raise InputError(f"exclude must be a collection of ids, got the single id {shown(exclude)}: put it in a list")
    items = list(exclude)
    if all(isinstance(item, str) for item in items):  # one collection of ids, for all queries
        return [items] * queries  # type: ignore[list-item]
    if len(items) != queries:
        raise InputError(f"exclude has {len(items)} collections of ids for {queries} vectors: give one per vector")
    return [check_ids(ids, "exclude") for ids in items]


def _slices(rows: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, rows, size)]


def _concatenate(parts: list[Refinement]) -> Refinement:
    vectors = np.concatenate([part.vectors for part in parts])
    frozen = np.concatenate([part.frozen for part in parts])
    retrieved = np.concatenate([part.retrieved for part in parts if part.retrieved is not None])
    first = parts[0].neighbours
    if first is None:
        return Refinement(vectors, frozen, retrieved=retrieved)
    found = [part.neighbours for part in parts if part.neighbours is not None]
    neighbours = Neighbours(
        ids=[ids for part in found for ids in part.ids],
        similarity=np.concatenate([part.similarity for part in found]),
        vectors=np.concatenate([part.vectors for part in found]),
        found=np.concatenate([part.found for part in found]),
        payloads=[row for part in found for row in part.payloads or []],
    )
    trusts = [part.trust for part in parts if part.trust is not None]
    weights = [part.weights for part in parts if part.weights is not None]
    return Refinement(vectors, frozen, neighbours, np.concatenate(trusts), np.concatenate(weights), retrieved=retrieved)
