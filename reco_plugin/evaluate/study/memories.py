"""Memories in RAM for a study: one that remembers its searches, and one whose index misses some neighbours."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...calibration import calibrate
from ...memory import Fingerprint, Header
from ...memory.exact import ExactMemory
from ...refine import VectorMemory
from ...types import Filter, Modality, Neighbours, Records, Vectors
from .streams import stream

_KEPT_BYTES = 1 << 30


class RememberingMemory(ExactMemory):
    """Answers a search that it has answered before at once: a study asks the same with many fusions.

    It is filled before it is searched, and never changed afterwards. The oldest answers are forgotten when all together
    grow beyond a gigabyte.
    """

    def __init__(self, fingerprint: Fingerprint) -> None:
        super().__init__(Header(fingerprint), None)
        self._answers: dict[str, Neighbours] = {}
        self._bytes = 0

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
        ids: bool = True,
    ) -> Neighbours:
        """See :meth:`reco_plugin.memory.Memory.search`."""
        asked = hashlib.sha256(np.ascontiguousarray(vectors).tobytes())
        hidden = None if exclude is None else [sorted(ids) for ids in exclude]
        asked.update(repr((vectors.shape, by, read, k, hidden, where, payloads, ids)).encode())
        key = asked.hexdigest()
        if key in self._answers:
            return self._answers[key]
        wanted: dict[str, Any] = {"exclude": exclude, "where": where, "payloads": payloads, "ids": ids}
        found = super().search(vectors, by=by, read=read, k=k, **wanted)
        self._answers[key] = found
        self._bytes += found.vectors.nbytes
        while self._bytes > _KEPT_BYTES and len(self._answers) > 1:
            self._bytes -= self._answers.pop(next(iter(self._answers))).vectors.nbytes
        return found


class ApproximateMemory(ExactMemory):
    """An index of a given recall: each true neighbour is missed with probability 1 - recall, the next one moves up.

    What is missed depends on the query and the seed alone, so that a lower recall misses the same and more.
    """

    def __init__(self, fingerprint: Fingerprint, recall: float, seed: int) -> None:
        super().__init__(Header(fingerprint), None)
        self._recall, self._seed = recall, seed

    def search(
        self,
        vectors: Vectors,
        *,
        by: Modality,
        read: Modality,
        k: int,
        exclude: Sequence[Collection[str]] | None = None,
        where: Filter | None = None,
        payloads: bool = False,
        ids: bool = True,
    ) -> Neighbours:
        """See :meth:`reco_plugin.memory.Memory.search`."""
        wide = 4 * k + 16  # at recall 0.5, fewer than k of these are left about once in a million queries
        wanted: dict[str, Any] = {"exclude": exclude, "where": where, "payloads": payloads, "ids": ids}
        found = super().search(vectors, by=by, read=read, k=wide, **wanted)
        kept = np.stack([self._draw(vector, wide) for vector in vectors]) < self._recall  # (B, wide)
        order = np.argsort(~(kept & found.found), axis=1, kind="stable")[:, :k]  # what was kept first, nearest first
        here = np.take_along_axis(kept & found.found, order, axis=1)  # (B, k)
        places = [row[ok].tolist() for row, ok in zip(order, here, strict=True)]
        return replace(
            found,
            ids=[[ids[place] for place in row] for ids, row in zip(found.ids, places, strict=True)],
            similarity=np.where(here, np.take_along_axis(found.similarity, order, axis=1), np.float32(0)),
            vectors=np.where(
                here[..., None], np.take_along_axis(found.vectors, order[..., None], axis=1), np.float32(0)
            ),
            found=here,
            payloads=None
            if found.payloads is None
            else [[shown[place] for place in row] for shown, row in zip(found.payloads, places, strict=True)],
        )

    def _draw(self, vector: Vectors, wide: int) -> Vectors:
        digest = hashlib.sha256(vector.tobytes()).digest()[:8]
        return stream(self._seed, f"recall of {digest.hex()}").random(wide, np.float32)


@dataclass
class RamMemory:
    """An exact memory of some pairs in RAM, with the gate calibrated for whatever number of neighbours is asked for.

    Attributes:
        pairs: all that it holds.
        store: of them.
    """

    pairs: Records
    store: ExactMemory
    _gates: dict[int, VectorMemory] = field(default_factory=dict)

    def at(self, k: int) -> VectorMemory:
        """The memory as it would be served with k neighbours."""
        if k not in self._gates:
            calibration = calibrate(self.pairs.image, self.pairs.text, neighbours=k) if len(self.pairs) else None
            self._gates[k] = VectorMemory(self.store, calibration)
        return self._gates[k]


def ram_memory(pairs: Records, fingerprint: Fingerprint, store: ExactMemory | None = None) -> RamMemory:
    """A memory of these pairs alone, in a store that remembers its searches unless another is given to be filled."""
    filled = store or RememberingMemory(fingerprint)
    if len(pairs):
        filled.upsert(pairs)
    return RamMemory(pairs, filled)
