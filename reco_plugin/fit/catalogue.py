"""A catalogue as vectors: read, decoded and encoded as by ``reco memory build``.

Encoded rows are kept in files, so that a resumed run, or a larger catalogue, encodes only new rows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..artifact import Artifact
from ..config import load_settings
from ..data import read_records, write_pairs
from ..data.groups import groups_of, is_itself
from ..data.rows import Rejected, Rows
from ..encode import Encoder
from ..errors import DataError
from ..evaluate.encoding import CachedEncoder
from ..files import digest_records
from ..ingest.options import IngestOptions
from ..ingest.prepare import Encoded, Loaded, Skipped, WriterItem, add_marks, given_vectors, key_of
from ..ingest.run import RowProgress, encode_source, silent
from ..ingest.write import RejectedRows, reject_repeated
from ..same_encoder import SameEncoder
from ..types import Payload, Records, Vectors
from ..values import ROW, strip_marks
from .split import CatalogueSample

REJECTED = "rejected.jsonl"
_VECTORS = "vectors"
_WORD = re.compile(r"[^\W\d_]{3}")


@dataclass(frozen=True)
class Catalogue:
    """N encoded pairs."""

    pairs: Records  # frozen vectors (N, D) and payloads
    groups: tuple[str, ...]  # (N,) group of each pair
    names: tuple[str, ...]  # C groups whose names read as class names; empty where they do not
    prompts: Vectors  # (C, D) vectors of the names
    digest: str  # of the pairs
    reasons: dict[str, int] = field(default_factory=dict)  # why rows were rejected, with counts, most frequent first
    sample: CatalogueSample | None = None  # rows in use; None for all

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def rejected(self) -> int:
        """Number of rejected rows."""
        return sum(self.reasons.values())


def read_catalogue(
    rows: Rows,
    base: Artifact,
    out: Path,
    *,
    group: str | None = None,
    sample: CatalogueSample | None = None,
    max_error_rate: float = 0.05,
    progress: RowProgress = silent,
) -> Catalogue:
    """Read and encode a catalogue; rows in the cache are not encoded again.

    Args:
        rows: the catalogue.
        base: model folder of the encoder.
        out: folder of the cache and of the list of rejected rows.
        group: payload column of the groups; None: the caption.
        sample: rows to use; None for all.
        max_error_rate: share of rows that may be rejected.
        progress: called after each batch.

    Raises:
        DataError: no pair has a value in the column, or too many rows are rejected.
        SessionError: the encoder failed.
    """
    settings, fingerprint = load_settings(model=base.folder), base.manifest.fingerprint
    encoder, cache = Encoder(base, settings), EncodedRows(out / _VECTORS / fingerprint.digest[:16] / "rows")
    rejected, wanted = RejectedRows(out / REJECTED, max_error_rate), sample.holds if sample else None
    with closing(encode_source(rows, encoder, cache.sift, IngestOptions(), wanted)) as batches:
        same = SameEncoder(encoder, str(fingerprint), rows)
        digests = _read_rows(batches, cache, rejected, progress, same)
    pairs = cache.read(digests, fingerprint.dimension)
    if not len(pairs):
        raise DataError(f"{rows.name} holds no pair that can be used")
    groups = groups_of(pairs, group)
    names = _names(groups) if group is not None else ()
    cached = CachedEncoder(encoder, fingerprint, out / _VECTORS)
    prompts = cached.texts(names) if names else np.empty((0, fingerprint.dimension), np.float32)
    return Catalogue(pairs, tuple(groups), names, prompts, digest_records(pairs), rejected.reasons, sample)


def _read_rows(
    batches: Iterable[Sequence[WriterItem]],
    cache: EncodedRows,
    rejected: RejectedRows,
    progress: RowProgress,
    same: SameEncoder,
) -> dict[str, str]:
    """Read all rows into the cache; returns their digests by id, in the order of the source.

    Of rows with the same id, the first counts.

    Raises:
        DataError: too many rows are rejected, or the cache cannot be written.
        FingerprintMismatch: the rows are vectors of another encoder.
    """
    digests: dict[str, str] = {}
    read = 0
    try:
        for batch in batches:
            same.look(given_vectors(batch))
            fresh: dict[str, Encoded] = {}
            for row in batch:
                if isinstance(row, Rejected):
                    rejected.add(row)
                elif (first := digests.setdefault(row.id, row.digest)) != row.digest:
                    rejected.add(reject_repeated(row))
                elif isinstance(row, Encoded) and not cache.holds(row.id, first):
                    fresh[row.id] = row
            cache.keep(list(fresh.values()))
            read += len(batch)
            progress(len(batch), rejected.count)
            rejected.check(read)
        rejected.check(read, at_end=True)
    finally:
        rejected.finish()
    return digests


def _names(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups, where they read as names: words rather than numbers or codes."""
    named = sorted({group for group in groups if not is_itself(group)})
    words = sum(bool(_WORD.search(name)) and not any(c.isdigit() for c in name) for name in named)
    return tuple(named) if named and words >= 0.9 * len(named) else ()


class EncodedRows:
    """A cache of encoded rows by id and content; a file per batch, which is complete or absent.

    Args:
        folder: of the files; created with the first row.

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
        """Whether a row is in the cache."""
        return key_of(id_, digest) in self._places

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Replace rows that are in the cache by skipped ones."""
        return [
            Skipped(row.pair.id, row.digest, "unchanged") if self.holds(row.pair.id, row.digest) else row
            for row in rows
        ]

    def keep(self, rows: Sequence[Encoded]) -> None:
        """Write the rows of a batch, of different ids.

        Raises:
            DataError: the folder cannot be written to.
        """
        if not rows:
            return
        records = Records(
            [row.id for row in rows],
            np.stack([row.image for row in rows]),
            np.stack([row.text for row in rows]),
            [add_marks(row.payload, row.digest, None) for row in rows],
        )
        named = hashlib.sha256("".join(row.id + row.digest for row in rows).encode()).hexdigest()[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        write_pairs(self._folder / f"{named}.npz", [records])
        self._know(records)

    def read(self, digests: Mapping[str, str], dimension: int) -> Records:
        """Read rows in the cache, (N, D) each, by id and digest, in the order given."""
        image, text = (np.empty((len(digests), dimension), np.float32) for _ in range(2))
        payloads: list[Payload] = []
        for row, (id_, digest) in enumerate(digests.items()):
            batch, place = self._places[key_of(id_, digest)]
            records = self._batches[batch]
            image[row], text[row] = records.image[place], records.text[place]
            payloads.append(strip_marks(records.payloads[place]))
        return Records(list(digests), image, text, payloads)

    def _know(self, records: Records) -> None:
        for row, (id_, payload) in enumerate(zip(records.ids, records.payloads, strict=True)):
            self._places[key_of(id_, str(payload[ROW]))] = (len(self._batches), row)
        self._batches.append(records)
