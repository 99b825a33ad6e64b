"""Write encoded rows to a memory: skip unchanged, repeated and excluded rows, list rejected ones, count all.

Decisions depend only on the memory and on earlier rows, and rows come in the order of the source. So an interrupted run
results in the same memory when it is run again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import DataError
from ..memory import part_of_a_write
from ..pairs import PairMemory
from ..sources.rows import Rejected
from ..sources.same_encoder import EncoderCheck
from ..types import MODALITIES, Payload, Records, Vectors
from ..values import ROW, SOURCE
from .near import ExcludedImages, Near
from .prepare import Encoded, Loaded, Skipped, WriterItem, add_marks, given_vectors, hash64
from .run_options import IngestOptions

MIN_ROWS = 200
"""Rows after which the share of rejected rows is checked."""
_SHOWN = 3
_VALUES = re.compile(r"""https?://\S+|b?'[^']*'|b?"[^"]*"|(?<![-\w])(?<!HTTP )\d[\d.,]*|; this row has .*""")


class RejectedRows:
    """The rejected rows of a run: counted by kind of reason, and listed in a file of JSON lines.

    The file is ``NAME.part`` until it is complete. Each method raises DataError if it cannot be written.
    """

    def __init__(self, path: Path | None, max_rate: float) -> None:
        """Delete the list of an earlier run. Without a path, rows are only counted."""
        self._path, self._max_rate = path, max_rate
        self._file: TextIO | None = None
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, Rejected] = {}  # of each kind
        self.count, self._damaged = 0, 0
        for old in () if path is None else filter(Path.exists, (path, self._part)):
            with self._writing():
                old.unlink()

    def list(self, row: Rejected) -> None:
        """List a row without counting it as rejected."""
        if self._path is None:
            return
        with self._writing():
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
            entry = {"where": row.where, "id": row.id, "reason": row.reason}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def add(self, row: Rejected) -> None:
        """List a row, and count it."""
        self.list(row)
        kind = kind_of(row)
        self._kinds[kind] += 1
        self._first.setdefault(kind, row)
        self.count += 1
        self._damaged += not row.is_incomplete

    @property
    def reasons(self) -> dict[str, int]:
        """Kind of reason -> count, the most frequent first."""
        return dict(self._kinds.most_common())

    def check(self, read: int, *, at_end: bool = False) -> None:
        """Stop a run that rejects too many rows; without a path, do nothing.

        Rows that only lack their image or text do not count.

        Raises:
            DataError: more rows than the allowed share were rejected, after 200 rows or at the end; or all rows were.
        """
        too_many = self._damaged > self._max_rate * read or self.count == read
        if self._path is None or not self.count or not too_many or not (at_end or read >= MIN_ROWS):
            return
        path = self.finish()
        share = f"more than the allowed share of {self._max_rate:g} (--max-error-rate)"
        why = "none is left" if self.count == read else share
        often = "; ".join(f"{times:,} x {kind}" for kind, times in list(self.reasons.items())[:_SHOWN])
        raise DataError(
            f"stopped: {self.count:,} of {read:,} rows were rejected, {why}. Most frequent: {often} (for example, "
            f"{self._first[next(iter(self.reasons))]}). All are listed in {path}. What was written stays; fix the "
            "source and run it again, it resumes where it stopped"
        )

    def finish(self) -> Path | None:
        """Complete the list and return its path; None if it is empty."""
        if self._file is not None and self._path is not None:
            with self._writing():
                self._file.close()
                self._part.replace(self._path)
            self._file = None
        return self._path if self._path is not None and self._path.is_file() else None

    @property
    def _part(self) -> Path:
        assert self._path is not None  # noqa: S101 - nothing is listed without one
        return self._path.with_name(f"{self._path.name}.part")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"{self._path} cannot be written: {why}. Name another file: --rejected FILE") from None


def kind_of(row: Rejected) -> str:
    """Replace the values of one row in its reason by an ellipsis.

    >>> kind_of(Rejected("line 2", "its image 'a.jpg' cannot be read: No such file or directory"))
    'its image … cannot be read: No such file or directory'
    >>> kind_of(Rejected("line 2", "https://shop.de/1.jpg answered HTTP 404"))
    '… answered HTTP 404'
    """
    return _VALUES.sub("…", row.reason)


@dataclass
class Outcome:
    """Counts of one run; each row counts in one of the fields from ``added`` to ``excluded``."""

    read: int = 0  # rows of the source, rejected ones included
    added: int = 0  # pairs with an id that is new in the memory
    replaced: int = 0  # pairs whose row changed
    unchanged: int = 0  # rows that the memory already holds
    repeated: int = 0  # rows that repeat an earlier row of this source
    missing: int = 0  # rows with an unknown id, of a run that only updates
    rejected: int = 0  # rows that cannot be used
    excluded: int = 0  # rows skipped because their image is excluded
    cut: int = 0  # captions longer than the encoder reads
    deleted: int = 0  # pairs deleted: gone from the source, or excluded now
    kept: int = 0  # pairs gone from the source but kept, since a rejected row may be theirs
    others: dict[str, int] = field(default_factory=dict)  # source -> pairs of it in the previous version
    copied: int = 0  # of those, pairs copied into the new version
    pairs: int = 0  # in the memory at the end
    plain: str = ""  # why queries stay plain; empty if they are refined, or if a service learns later
    seconds: float = 0.0  # of wall clock
    vectors: str | None = None  # how the source's vectors were checked; None: it had no new ones
    refused: str | None = None  # of a dry run: why the run would fail
    reasons: dict[str, int] = field(default_factory=dict)  # of rejected rows, the most frequent first -> count
    files: dict[str, str] = field(default_factory=dict)  # kind -> file written beside the memory

    @property
    def held(self) -> int:
        """Pairs of the source that the memory holds."""
        return self.added + self.replaced + self.unchanged

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return asdict(self)


class Writer:
    """Writes one source into a memory, and counts; in a dry run, it only counts."""

    check: EncoderCheck | None = None  # of the vectors in the source

    def __init__(
        self,
        memory: PairMemory,
        options: IngestOptions,
        excluded: ExcludedImages | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.memory, self.outcome = memory, Outcome()
        self._options, self._excluded, self._dry_run = options, excluded, dry_run
        self.rejected = RejectedRows(None if dry_run else options.rejected, options.max_error_rate)
        self._seen: dict[int, int] = {}  # hash of the id of each good row -> its digest
        self._rejected_ids: set[int] = set()  # their hashes
        self._rejected_without_id = 0  # rows

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Skip rows that need no encoding; another thread may call this for later rows."""
        stored = self._stored([row.id for row in rows])
        return [self._skip_needless(row, stored) or row for row in rows]

    def records(self, batch: Sequence[WriterItem | Loaded]) -> Records:
        """Return the records (N, D) of the next rows of the source, and delete pairs that are excluded now.

        The records of a batch must be in the memory before the next call. A dry run has no records.

        Raises:
            FingerprintMismatch: the rows have vectors of another encoder.
        """
        if self.check is not None:
            self.check.compare(given_vectors(batch))
        self.outcome.read += len(batch)
        stored = self._stored([row.id for row in batch if not isinstance(row, Rejected)])
        changed: list[Encoded | Loaded] = []
        skipped: list[Skipped] = []
        for row in batch:
            if isinstance(row, Rejected):
                self._reject(row)
            elif not self._is_first(row):
                continue
            elif isinstance(row, Skipped):
                skipped.append(row)
            elif needless := self._skip_needless(row, stored):
                skipped.append(needless)
            else:
                changed.append(row)
        self._skip(skipped, stored)
        return self._to_records(changed, stored)

    def has_row(self, id_: str, *, good: bool = False) -> bool:
        """Whether the source has a row with this id; with ``good``, rejected rows do not count."""
        return (key := hash64(id_)) in self._seen or (not good and key in self._rejected_ids)

    @part_of_a_write()
    def delete_gone(self, max_share: float) -> None:
        """Delete the pairs that are gone from this source; call it when all rows are written.

        A pair whose row was rejected stays. If a rejected row has no id, all pairs stay, as it could be any pair's.

        Raises:
            DataError: more than ``max_share`` of the source's pairs would be deleted; then none is. A dry run sets
                :attr:`Outcome.refused` instead.
        """
        ours = [id_ for id_, payload in self.memory.store.payloads() if self._options.is_from_source(payload)]
        gone = [id_ for id_ in ours if not self.has_row(id_)]
        if self._rejected_without_id:
            self.outcome.kept += len(gone)
            return
        total = len(gone) + self.outcome.held if self._dry_run else len(ours)
        if len(gone) > max_share * total:
            why = (
                f"{len(gone):,} of the {total:,} pairs from {self._options.source!r} are gone from it, more "
                f"than the allowed share of {max_share:g}. To delete them, give --max-delete "
                f"{min(1.0, len(gone) / total + 0.005):.2f}; if not, is the source complete?"
            )
            if not self._dry_run:
                raise DataError(f"nothing was deleted, what is new or changed was written: {why}")
            self.outcome.refused = why
        self._delete(gone)

    def check_replaced(self, max_share: float) -> None:
        """Set :attr:`Outcome.refused` if more than a share of the pairs in memory and source would be replaced."""
        replaced, both = self.outcome.replaced, self.outcome.replaced + self.outcome.unchanged
        if replaced > max_share * both:
            self.outcome.refused = (
                f"{replaced:,} of the {both:,} pairs that the memory and {self._options.source!r} both hold would be "
                f"replaced, more than the allowed share of {max_share:g}. To replace them, give --max-replace "
                f"{min(1.0, replaced / both + 0.005):.2f}; if not, are these the right columns?"
            )

    @part_of_a_write()
    def delete_others(self) -> None:
        """Delete all pairs without a good row in this source, also those of other sources."""
        self._delete([id_ for id_, _ in self.memory.store.payloads() if not self.has_row(id_, good=True)])

    def keep(self, records: Records) -> None:
        """Write pairs (N, D) of other sources, without excluded ones."""
        if self._excluded is not None:
            matches = self._find_excluded(records.ids, records.image)
            records = records.take([near is None for near in matches])
        self.memory.store.upsert(records)
        self.outcome.copied += len(records)

    def close(self) -> None:
        """Complete the list of rejected rows and the outcome."""
        self.outcome.vectors = self.check.note if self.check else None
        self.outcome.reasons = self.rejected.reasons
        if (path := self.rejected.finish()) is not None:
            self.outcome.files["rejected"] = str(path)

    @part_of_a_write()
    def _stored(self, ids: Sequence[str]) -> dict[str, Payload]:
        return dict(self.memory.store.payloads(list(dict.fromkeys(ids)))) if ids else {}

    def _skip_needless(self, row: Loaded | Encoded, stored: Mapping[str, Payload]) -> Skipped | None:
        if row.id not in stored:
            return Skipped(row.id, row.digest, "missing") if self._options.only_known else None
        return Skipped(row.id, row.digest, "unchanged") if stored[row.id].get(ROW) == row.digest else None

    def _is_first(self, row: Encoded | Skipped | Loaded) -> bool:
        key, digest = hash64(row.id), int(row.digest, 16)
        if key not in self._seen:
            self._seen[key] = digest
            return True
        if self._seen[key] == digest:
            self.outcome.repeated += 1
        else:
            where = f"id {row.id!r}" if isinstance(row, Skipped) else row.where
            self._reject(Rejected(where, "its id came before in this source, with other content", row.id))
        return False

    def _reject(self, row: Rejected) -> None:
        self.rejected.add(row)
        self.outcome.rejected += 1
        if row.id is None:
            self._rejected_without_id += 1
        else:
            self._rejected_ids.add(hash64(row.id))

    @part_of_a_write()
    def _delete(self, ids: Sequence[str]) -> None:
        if ids:
            self.outcome.deleted += len(ids) if self._dry_run else self.memory.remove(ids)

    @part_of_a_write()
    def _skip(self, rows: Sequence[Skipped], stored: Mapping[str, Payload]) -> None:
        """Count skipped rows, delete pairs that are excluded now, and store this source with pairs of another one."""
        self.outcome.missing += sum(row.why == "missing" for row in rows)
        ids = [row.id for row in rows if row.why == "unchanged"]
        gone = set[str]()
        if self._excluded is not None and ids:
            for old in self.memory.store.scroll(len(ids), ids):
                matches = self._find_excluded(old.ids, old.image)
                gone |= {id_ for id_, near in zip(old.ids, matches, strict=True) if near is not None}
            self._delete(sorted(gone))
        self.outcome.unchanged += len(ids) - len(gone)
        source = self._options.source
        claimed = [id_ for id_ in ids if id_ not in gone and source is not None and stored[id_].get(SOURCE) != source]
        if claimed and not self._dry_run:
            old = self.memory.get(claimed)
            payloads = [{**payload, SOURCE: source} for payload in old.payloads]
            self.memory.store.upsert(Records(old.ids, old.image, old.text, payloads))

    def _to_records(self, rows: Sequence[Encoded | Loaded], stored: Mapping[str, Payload]) -> Records:
        encoded = self._without_excluded([row for row in rows if isinstance(row, Encoded)], stored)
        for row in rows if self._dry_run else encoded:
            self.outcome.replaced += row.id in stored
            self.outcome.added += row.id not in stored
        self.outcome.cut += sum(row.is_truncated for row in encoded)
        if not encoded:
            return Records.join([], self.memory.encoder.dimension)
        image, text = (np.stack([getattr(row, side) for row in encoded]) for side in MODALITIES)
        only_known, source = self._options.only_known, self._options.source  # an update keeps the source, for `sync`
        sources = [stored[row.id].get(SOURCE) if only_known else source for row in encoded]
        payloads = [add_marks(row.payload, row.digest, name) for row, name in zip(encoded, sources, strict=True)]
        return Records([row.id for row in encoded], image, text, payloads)

    def _without_excluded(self, rows: list[Encoded], stored: Mapping[str, Payload]) -> list[Encoded]:
        """The rows that are not excluded; the stored pairs of excluded rows are deleted."""
        if self._excluded is None or not rows:
            return rows
        matches = self._find_excluded([row.id for row in rows], np.stack([row.image for row in rows]))
        excluded = [row.id for row, near in zip(rows, matches, strict=True) if near is not None]
        self._delete([id_ for id_ in excluded if id_ in stored])
        return [row for row, near in zip(rows, matches, strict=True) if near is None]

    def _find_excluded(self, ids: Sequence[str], images: Vectors) -> Sequence[Near | None]:
        """The excluded image that equals each of B images (B, D); matches are counted and listed."""
        assert self._excluded is not None  # noqa: S101 - callers check
        matches = self._excluded.find(ids, images)
        self.outcome.excluded += sum(near is not None for near in matches)
        for id_, near in zip(ids, matches, strict=True):
            if near is not None:
                reason = f"its image is that of {near.id!r}, which --exclude names (cosine {near.similarity:.3f})"
                self.rejected.list(Rejected(f"id {id_!r}", reason, id_))
        return matches
