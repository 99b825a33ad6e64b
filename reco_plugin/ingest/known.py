"""What ingest knows of a memory: the marks in payloads, and 16 bytes per pair that fit into a worker's memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.rows import Rejected
from ..types import Payload
from ..values import ROW, SOURCE
from .items import Loaded, Skipped

CAPTIONS = "captions"
"""All captions of a pair that near-duplicates were merged into, its own first."""
Hashes = npt.NDArray[np.uint64]


def add_marks(payload: Payload, digest: str, source: str | None) -> dict[str, Any]:
    """A payload with the row's digest and source."""
    return {**payload, ROW: digest, **({SOURCE: source} if source is not None else {})}


@dataclass(frozen=True)
class Known:
    """Ids and rows of a memory, each as a hash of 64 bits.

    If 10 million rows of as many change, one of them counts as unchanged by collision once in 200,000 runs.
    """

    ids: Hashes  # (N,) of the ids, ascending
    rows: Hashes  # (R,) of the ids with the digests of their rows, ascending; of pairs that ingest wrote
    only_known: bool = False  # skip rows with an unknown id

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Payload]], *, only_known: bool = False) -> Known:
        """Made from a memory's ids and payloads."""
        ids, rows = [], []
        for id_, payload in pairs:
            ids.append(key_of(id_))
            if isinstance(digest := payload.get(ROW), str):
                rows.append(key_of(id_, digest))
        return cls(np.sort(np.array(ids, np.uint64)), np.sort(np.array(rows, np.uint64)), only_known)

    def sift(self, row: Loaded | Rejected) -> Loaded | Skipped | Rejected:
        """The row, or why it needs no encoding; a rejected one as it is."""
        if isinstance(row, Rejected):
            return row
        id_ = row.pair.id
        if _holds(self.rows, key_of(id_, row.digest)):
            return Skipped(id_, row.digest, "unchanged")
        if self.only_known and not _holds(self.ids, key_of(id_)):
            return Skipped(id_, row.digest, "missing")
        return row


def key_of(*words: str) -> int:
    """A hash of 64 bits; of an id, a run keeps it for each row until its end."""
    joined = "\0".join(words).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def _holds(numbers: Hashes, number: int) -> bool:
    wanted = np.uint64(number)  # a Python int would make both sides float64
    place = int(np.searchsorted(numbers, wanted))
    return place < len(numbers) and bool(numbers[place] == wanted)
