"""What ingest knows of a memory: its marks in payloads, and 16 bytes per pair that fit into a worker's memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..types import Payload
from .items import Loaded, Skipped

ROW = "reco_row"
"""Digest of the row that a pair was made of."""
SOURCE = "reco_source"
"""Name of the source that brought it, by `build` or `sync`."""
CAPTIONS = "captions"
"""All captions of a pair that near-duplicates were merged into, its own first."""
Hashes = npt.NDArray[np.uint64]


def marked(payload: Payload, digest: str, source: str | None) -> dict[str, Any]:
    """A payload with the marks of its row."""
    return {**payload, ROW: digest, **({SOURCE: source} if source is not None else {})}


def unmarked(payload: Payload) -> dict[str, Any]:
    """A payload without marks, which a source may hold that was exported from a memory."""
    return {key: value for key, value in payload.items() if key not in (ROW, SOURCE)}


@dataclass(frozen=True)
class Known:
    """Ids and rows of a memory, each as 64 bits of a hash.

    Where 10 million rows changed in a memory of as many, one of them is taken for known once in 200,000 runs.
    """

    ids: Hashes  # (N,) of the ids, ascending
    rows: Hashes  # (R,) of the ids with the digests of their rows, ascending; of pairs that ingest wrote
    only_known: bool = False  # whether rows whose id is not there are left out

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Payload]], *, only_known: bool = False) -> Known:
        """Take it of ids and payloads, as a memory gives them."""
        ids, rows = [], []
        for id_, payload in pairs:
            ids.append(key_of(id_))
            if isinstance(digest := payload.get(ROW), str):
                rows.append(key_of(id_, digest))
        return cls(np.sort(np.array(ids, np.uint64)), np.sort(np.array(rows, np.uint64)), only_known)

    def sift(self, row: Loaded) -> Loaded | Skipped:
        """The row, or why it needs no encoding."""
        id_ = row.pair.id
        if _holds(self.rows, key_of(id_, row.digest)):
            return Skipped(id_, row.digest, "unchanged")
        if self.only_known and not _holds(self.ids, key_of(id_)):
            return Skipped(id_, row.digest, "missing")
        return row


def key_of(*words: str) -> int:
    """64 bits of words: of an id, it is what a run keeps of each row until its end."""
    joined = "\0".join(words).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def _holds(numbers: Hashes, number: int) -> bool:
    wanted = np.uint64(number)  # a Python int would make both sides float64
    place = int(np.searchsorted(numbers, wanted))
    return place < len(numbers) and bool(numbers[place] == wanted)
