"""What the playground ranks: the memory's own pairs, or a user's index in the same vector space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...memory import Memory, memory_of, open_memory
from ...reco import Reco
from ...request import Search
from ...types import Modality, Payload, Vectors


@dataclass(frozen=True)
class Candidates:
    """N candidates of a ranking, one per row."""

    ids: Sequence[str]  # unique
    vectors: Vectors  # (N, D) of the side that is ranked
    payloads: Sequence[Payload]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Place:
    """A pair in a ranking."""

    id: str
    payload: Payload
    similarity: float


@dataclass(frozen=True)
class RankedStore:
    """The store of all candidates."""

    opened: Callable[[], Memory]  # returns the store
    location: str
    name: str  # for people
    own: bool  # opened for the page, which then closes it

    def nearest(self, queries: Vectors, by: Modality, k: int) -> Candidates:
        """The k pairs nearest to each query (B, D) by one of their sides, together, without duplicates.

        Raises:
            MemoryStoreError: the store does not answer.
        """
        found = self.opened().search(Search(queries, by=by, read=by, k=k, payloads=True))
        payloads = found.payloads or [[{}] * len(ids) for ids in found.ids]
        seen = {id_: (row, column) for row, ids in enumerate(found.ids) for column, id_ in enumerate(ids)}
        cells = list(seen.values())
        return Candidates(
            list(seen),
            found.vectors[[row for row, _ in cells], [column for _, column in cells]],
            [payloads[row][column] for row, column in cells],
        )


def places(candidates: Candidates, query: Vectors, vectors: Vectors, depth: int) -> list[Place]:
    """Rank candidates by the cosine of their vectors (N, D) with a query (D,), best first, to a depth."""
    similarity = vectors @ query
    order = np.argsort(-similarity, kind="stable")[:depth]
    return [Place(candidates.ids[row], candidates.payloads[row], float(similarity[row])) for row in order]


def open_ranked(reco: Reco, index: str | None) -> RankedStore:
    """Open the index: a collection of the memory's own Qdrant server, or a folder; None: the memory itself.

    Raises:
        FingerprintMismatch: another encoder made its vectors.
        MemoryStoreError: there is none, or it cannot be read.
    """
    if index is None:
        return RankedStore(lambda: reco.memory.store, reco.memory.location, "the memory", own=False)
    settings, fingerprint = reco.settings, reco.manifest.fingerprint
    if "://" not in settings.memory:
        store = open_memory(index, fingerprint, create=False)
    else:
        store = memory_of(settings.model_copy(update={"memory_collection": index}), fingerprint, create=False)
    return RankedStore(lambda: store, store.location, index, own=True)
