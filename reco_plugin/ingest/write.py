"""Encoded rows to records; finds unchanged, repeated and excluded rows, and lists those left out.

Decisions depend only on the memory and on the rows before, and rows come in the order of the source: an interrupted run
that is run again results in the same memory.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import DataError
from ..memory import part_of_a_write
from ..pairs import PairMemory
from ..sources.rows import Rejected
from ..sources.same_encoder import SameEncoder
from ..types import MODALITIES, Modality, Payload, Records
from ..values import ROW, SOURCE
from .near import Excluded, Near
from .prepare import Encoded, Loaded, Skipped, WriterItem, add_marks, given_vectors, key_of
from .run_options import IngestOptions

LOOK_AFTER = 200
"""Rows after which the share of rejected ones is checked."""
_SHOWN = 3
_PARTICULARS = re.compile(r"""https?://\S+|b?'[^']*'|b?"[^"]*"|(?<![-\w])(?<!HTTP )\d[\d.,]*|; this row has .*""")


class RejectedRows:
    """The rejected rows of one run, counted by kind, and listed in a file with one JSON object a line.

    The file is written as ``NAME.part`` from its first row on, and renamed at the end.
    """

    def __init__(self, path: Path | None, max_rate: float) -> None:
        """Delete the list of an earlier run; without a path, rows are only counted.

        Raises:
            DataError: it cannot be deleted.
        """
        self._path, self._max_rate = path, max_rate
        self._file: TextIO | None = None
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, Rejected] = {}  # of each kind
        self.count, self._damaged = 0, 0
        for old in () if path is None else filter(Path.exists, (path, self._part)):
            with self._writing():
                old.unlink()

    def list(self, row: Rejected) -> None:
        """List a row that is left out and no error.

        Raises:
            DataError: the file cannot be written.
        """
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
        self._damaged += not row.half

    @property
    def reasons(self) -> dict[str, int]:
        """Kinds of reasons, the most frequent first, with their counts."""
        return dict(self._kinds.most_common())

    def check(self, read: int, *, at_end: bool = False) -> None:
        """Stop a run that rejects too many rows; rows that only lack their image or text are listed, but do not count.

        Raises:
            DataError: above the largest rate, after 200 rows or at the end; or no row is good.
        """
        too_many = self._damaged > self._max_rate * read or self.count == read
        if not self.count or not too_many or not (at_end or read >= LOOK_AFTER):
            return
        path = self.finish()
        share = f"more than the allowed share of {self._max_rate:g} (--max-error-rate)"
        why = "so that none is left" if self.count == read else share
        often = "; ".join(f"{times:,} x {kind}" for kind, times in list(self.reasons.items())[:_SHOWN])
        raise DataError(
            f"stopped: {self.count:,} of {read:,} rows were rejected, {why}. Most frequent: {often} (for example, "
            f"{self._first[next(iter(self.reasons))]}). All are listed in {path}. What was written stays; fix the "
            "source and run it again, it resumes where it stopped"
        )

    def finish(self) -> Path | None:
        """Finish the list; None if nothing is in it."""
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
    """The reason without the values of one row.

    >>> kind_of(Rejected("line 2", "its image 'a.jpg' cannot be read: No such file or directory"))
    'its image … cannot be read: No such file or directory'
    >>> kind_of(Rejected("line 2", "https://shop.de/1.jpg answered HTTP 404"))
    '… answered HTTP 404'
    """
    return _PARTICULARS.sub("…", row.reason)


@dataclass
class Outcome:
    """Counts of one run; every row read is in one of those from ``added`` to ``excluded``."""

    read: int = 0  # rows of the source, rejected ones included
    added: int = 0  # pairs with an id that is new in the memory
    replaced: int = 0  # pairs whose row changed
    unchanged: int = 0  # rows that the memory already holds
    repeated: int = 0  # rows that came before in this source, with the same content
    missing: int = 0  # rows skipped because only known ids are wanted
    rejected: int = 0  # rows that cannot be used
    excluded: int = 0  # rows skipped because they are evaluation images
    cut: int = 0  # captions longer than the encoder reads
    deleted: int = 0  # pairs deleted because they are gone from the source, or excluded now
    kept: int = 0  # pairs gone from the source but kept, because rejected rows may be theirs
    others: dict[str, int] = field(default_factory=dict)  # source -> pairs of the version before that came from there
    copied: int = 0  # of those, pairs that were copied into this one
    pairs: int = 0  # in the memory at the end
    plain: str = ""  # why its queries stay plain; empty where they are refined, or where a service learns later
    seconds: float = 0.0  # of wall clock
    vectors: str | None = None  # how the source's vectors were checked; None: it brought none that were new
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
    """Writes one source into a memory, and counts; of a dry run, it only counts."""

    def __init__(
        self,
        memory: PairMemory,
        options: IngestOptions,
        excluded: Excluded | None = None,
        same: Callable[[], SameEncoder] | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.memory, self.outcome = memory, Outcome()
        self._options, self._excluded, self._dry_run = options, excluded, dry_run
        self._make_same = same
        self._same: SameEncoder | None = None  # made for the first vectors that a source brings
        self._rejected = RejectedRows(None if dry_run else options.rejected, options.max_error_rate)
        self._seen: dict[int, int] = {}  # key of the id of each good row -> its digest
        self._named: set[int] = set()  # ids of rejected rows
        self._unnamed = 0  # rejected rows without an id, which could be any pair's

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Skip rows that need no encoding; may be called by another thread, for later rows."""
        held = self._held([row.id for row in rows])
        return [self._needless(row, held) or row for row in rows]

    def records(self, batch: Sequence[WriterItem | Loaded]) -> Records:
        """The records (N, D) to write for the next rows of the source; deletes the pairs that must go.

        The records of a batch must be in the memory before the next call. Of a dry run, rows are not encoded, and there
        are no records.

        Raises:
            FingerprintMismatch: the rows brought vectors of another encoder.
        """
        if given := list(given_vectors(batch)):
            self._check_encoder(given)
        self.outcome.read += len(batch)
        held = self._held([row.id for row in batch if not isinstance(row, Rejected)])
        fresh: list[Encoded | Loaded] = []
        skipped: list[Skipped] = []
        for row in batch:
            if isinstance(row, Rejected):
                self._reject(row)
            elif not self._first_time(row):
                continue
            elif isinstance(row, Skipped):
                skipped.append(row)
            elif needless := self._needless(row, held):
                skipped.append(needless)
            else:
                fresh.append(row)
        self._skip(skipped, held)
        return self._fresh(fresh, held)

    def brought(self, id_: str, *, good: bool = False) -> bool:
        """Whether the source has a row with this id; with ``good``, one that was not rejected."""
        return (key := key_of(id_)) in self._seen or (not good and key in self._named)

    @part_of_a_write()
    def delete_gone(self, max_share: float) -> None:
        """Delete the pairs that came from this source and are no longer in it, once all its rows are written.

        A pair whose row was rejected stays. Rejected rows without an id could be any pair's: then all stay.

        Raises:
            DataError: more than ``max_share`` of the source's pairs would be deleted; none is. Of a dry run,
                :attr:`Outcome.refused` says so.
        """
        ours = [id_ for id_, payload in self.memory.store.payloads() if self._options.brought(payload)]
        gone = [id_ for id_ in ours if not self.brought(id_)]
        if self._unnamed:
            self.outcome.kept += len(gone)
            return
        total = len(gone) + self.outcome.held if self._dry_run else len(ours)
        if len(gone) > max_share * total:
            why = (
                f"{len(gone):,} of the {total:,} pairs that {self._options.source!r} brought are gone from it, more "
                f"than the allowed share of {max_share:g}. To delete them, give --max-delete "
                f"{min(1.0, len(gone) / total + 0.005):.2f}; if not, is the source complete?"
            )
            if not self._dry_run:
                raise DataError(f"nothing was deleted, what is new or changed was written: {why}")
            self.outcome.refused = why
        self._delete(gone)

    def check_replaced(self, max_share: float) -> None:
        """Refuse, at the end of a dry run, to replace more than a share of the pairs that are in memory and source.

        :attr:`Outcome.refused` says so.
        """
        replaced, both = self.outcome.replaced, self.outcome.replaced + self.outcome.unchanged
        if replaced > max_share * both:
            self.outcome.refused = (
                f"{replaced:,} of the {both:,} pairs that the memory and {self._options.source!r} both hold would be "
                f"replaced, more than the allowed share of {max_share:g}. To replace them, give --max-replace "
                f"{min(1.0, replaced / both + 0.005):.2f}; if not, are these the right columns?"
            )

    @part_of_a_write()
    def delete_others(self) -> None:
        """Delete every pair that is not a good row of this source, whatever its source."""
        self._delete([id_ for id_, _ in self.memory.store.payloads() if not self.brought(id_, good=True)])

    def keep(self, records: Records) -> None:
        """Write pairs (N, D) that did not come from this source, but for excluded ones."""
        if self._excluded is not None:
            found = self._excluded.find(records.ids, records.image)
            self._list(records.ids, found)
            self.outcome.excluded += sum(near is not None for near in found)
            records = records.take([near is None for near in found])
        self.memory.store.upsert(records)
        self.outcome.copied += len(records)

    def check_rejected(self, *, at_end: bool = False) -> None:
        """Stop a run that rejects too many rows.

        Raises:
            DataError: see :meth:`~reco_plugin.ingest.write.RejectedRows.check`.
        """
        if not self._dry_run:
            self._rejected.check(self.outcome.read, at_end=at_end)

    def close(self) -> None:
        """Finish the list."""
        self.outcome.vectors = self._same.note if self._same else None
        self.outcome.reasons = self._rejected.reasons
        if (path := self._rejected.finish()) is not None:
            self.outcome.files["rejected"] = str(path)

    def _check_encoder(self, given: Sequence[tuple[Mapping[Modality, Any], Payload]]) -> None:
        if self._same is None and self._make_same is not None:
            self._same = self._make_same()
        if self._same is not None:
            self._same.look(given)

    @part_of_a_write()
    def _held(self, ids: Sequence[str]) -> dict[str, Payload]:
        return dict(self.memory.store.payloads(list(dict.fromkeys(ids)))) if ids else {}

    def _needless(self, row: Loaded | Encoded, held: Mapping[str, Payload]) -> Skipped | None:
        if row.id not in held:
            return Skipped(row.id, row.digest, "missing") if self._options.only_known else None
        return Skipped(row.id, row.digest, "unchanged") if held[row.id].get(ROW) == row.digest else None

    def _first_time(self, row: Encoded | Skipped | Loaded) -> bool:
        key, digest = key_of(row.id), int(row.digest, 16)
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
        self._rejected.add(row)
        self.outcome.rejected += 1
        if row.id is None:
            self._unnamed += 1
        else:
            self._named.add(key_of(row.id))

    @part_of_a_write()
    def _delete(self, ids: Sequence[str]) -> None:
        if ids:
            self.outcome.deleted += len(ids) if self._dry_run else self.memory.remove(ids)

    @part_of_a_write()
    def _skip(self, rows: Sequence[Skipped], held: Mapping[str, Payload]) -> None:
        """Count; unchanged pairs of another source now belong to this one, pairs that are excluded now are deleted."""
        self.outcome.missing += sum(row.why == "missing" for row in rows)
        ids = [row.id for row in rows if row.why == "unchanged"]
        gone = set[str]()
        if self._excluded is not None and ids:
            for old in self.memory.store.scroll(len(ids), ids):
                found = self._excluded.find(old.ids, old.image)
                self._list(old.ids, found)
                gone |= {id_ for id_, near in zip(old.ids, found, strict=True) if near is not None}
            self.outcome.excluded += len(gone)
            self._delete(sorted(gone))
        self.outcome.unchanged += len(ids) - len(gone)
        source = self._options.source
        claimed = [id_ for id_ in ids if id_ not in gone and source is not None and held[id_].get(SOURCE) != source]
        if claimed and not self._dry_run:
            old = self.memory.get(claimed)
            ours = [{**payload, SOURCE: source} for payload in old.payloads]
            self.memory.store.upsert(Records(old.ids, old.image, old.text, ours))

    def _fresh(self, rows: Sequence[Encoded | Loaded], held: Mapping[str, Payload]) -> Records:
        encoded = self._staying([row for row in rows if isinstance(row, Encoded)], held)
        for row in rows if self._dry_run else encoded:
            self.outcome.replaced += row.id in held
            self.outcome.added += row.id not in held
        self.outcome.cut += sum(row.cut for row in encoded)
        if not encoded:
            return Records.join([], self.memory.encoder.dimension)
        image, text = (np.stack([getattr(row, side) for row in encoded]) for side in MODALITIES)
        payloads = [add_marks(row.payload, row.digest, self._source_of(row.id, held)) for row in encoded]
        return Records([row.id for row in encoded], image, text, payloads)

    def _source_of(self, id_: str, held: Mapping[str, Payload]) -> str | None:
        """Whose a pair is now; of an update, whose it was, else ``sync`` would keep it when its row is gone."""
        return held[id_].get(SOURCE) if self._options.only_known else self._options.source

    def _staying(self, rows: list[Encoded], held: Mapping[str, Payload]) -> list[Encoded]:
        """The rows that are not excluded; the stored pairs of the others are deleted."""
        if self._excluded is None or not rows:
            return rows
        found = self._excluded.find([row.id for row in rows], np.stack([row.image for row in rows]))
        self.outcome.excluded += sum(near is not None for near in found)
        self._list([row.id for row in rows], found)
        self._delete([row.id for row, near in zip(rows, found, strict=True) if near is not None and row.id in held])
        return [row for row, near in zip(rows, found, strict=True) if near is None]

    def _list(self, ids: Sequence[str], leaving: Sequence[Near | None]) -> None:
        for id_, near in zip(ids, leaving, strict=True):
            if near is not None:
                reason = f"its image is that of {near.id!r}, which --exclude names (cosine {near.similarity:.3f})"
                self._rejected.list(Rejected(f"id {id_!r}", reason, id_))
