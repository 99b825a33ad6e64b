"""Encoded rows of a catalogue in files, so that a killed run, or a catalogue that grew, encodes only what is new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data import read_records, write_pairs
from ..ingest.items import Encoded, Loaded, Skipped
from ..ingest.known import ROW, key_of, marked, unmarked
from ..types import Payload, Records, Vectors


class RowCache:
    """Rows of one encoder by id and content; a file per batch, which is whole or absent.

    Args:
        folder: of the files; made at the first row.

    Raises:
        DataError: one of its files is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: list[Records] = []
        self._places: dict[int, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.npz")):
            for records in read_records(path):
                self._know(records)

    def holds(self, id_: str, digest: str) -> bool:
        """Whether a row was encoded before."""
        return key_of(id_, digest) in self._places

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """The rows; where one was encoded before, that it needs no encoding."""
        return [
            Skipped(row.pair.id, row.digest, "unchanged") if self.holds(row.pair.id, row.digest) else row
            for row in rows
        ]

    def keep(self, rows: Sequence[Encoded]) -> None:
        """Write the rows of a batch, of different ids.

        Raises:
            DataError: no way to write there.
        """
        if not rows:
            return
        records = Records(
            [row.id for row in rows],
            np.stack([row.image for row in rows]),
            np.stack([row.text for row in rows]),
            [marked(row.payload, row.digest, None) for row in rows],
        )
        named = hashlib.sha256("".join(row.id + row.digest for row in rows).encode()).hexdigest()[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        write_pairs(self._folder / f"{named}.npz", [records])
        self._know(records)

    def get(self, id_: str, digest: str) -> tuple[Vectors, Vectors, Payload]:
        """Image (D,), text (D,) and payload of a row that is there."""
        batch, row = self._places[key_of(id_, digest)]
        records = self._batches[batch]
        return records.image[row], records.text[row], unmarked(records.payloads[row])

    def _know(self, records: Records) -> None:
        for row, (id_, payload) in enumerate(zip(records.ids, records.payloads, strict=True)):
            self._places[key_of(id_, str(payload[ROW]))] = (len(self._batches), row)
        self._batches.append(records)
