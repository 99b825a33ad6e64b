"""Encoded rows to records; finds unchanged, repeated, excluded and near-duplicate rows, and lists those left out.

Decisions depend only on the memory and on the rows before, and rows come in the order of the source: an interrupted run
that is run again results in the same memory. Lists are files beside the memory, one JSON object per line; complete at
the end, and missing if nothing is listed.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..data.rows import Rejected
from ..data.same_encoder import SameEncoder
from ..errors import DataError
from ..memory import part_of_a_write
from ..pairs import PairMemory
from ..types import MODALITIES, Modality, Payload, Records, Vectors
from ..values import ROW, SOURCE
from .near import BatchNear, Excluded, Near, stored_neighbours
from .options import IngestOptions
from .prepare import Encoded, Loaded, Skipped, WriterItem, add_marks, given_vectors, key_of

PARTIAL = ".part"
_LONGEST_ENTRY = 1 << 20
LOOK_AFTER = 200
"""Rows after which the share of rejected ones is checked."""
_SHOWN = 3
_COLUMN = re.compile(r"column '[^']*'$")
_COLUMNS = "; this row has "
"""Before the columns of a row in a reason: they differ from row to row."""
_PARTICULARS = re.compile(
    r"""https?://\w\S*|b?'[^']*'|b?"[^"]*"|0x[0-9a-f]+|\([^()]*bytes\)"""
    r"""|(?<!HTTP )(?<![A-Za-z]-)\b\d[\d.,x]*\b"""  # neither HTTP 404 nor UTF-8
)


class Listing:
    """A file that is written as ``NAME.part`` and renamed at the end. The list of an earlier run is deleted first.

    Where nothing can be written, as beside a volume in a container, it is an error once there is something to list.
    """

    def __init__(self, path: Path, fields: Set[str], instead: str = "") -> None:
        """Delete what an earlier run left.

        Args:
            path: of the file.
            fields: of each entry; a file whose first line has others is no list of ours, and stays.
            instead: how to choose another place.

        Raises:
            DataError: the path is taken by something else, or cannot be written.
        """
        if path.is_dir():
            raise DataError(f"{path} is a folder: name a file in it")
        self.path, self._part = path, path.with_name(path.name + PARTIAL)
        self._file: TextIO | None = None
        self._instead = instead and f". {instead}"
        for old in (self.path, self._part):
            if not _is_list(old, fields):
                raise DataError(f"{old} is no list of an earlier run, so it is not overwritten{self._instead}")
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                if os.path.lexists(old):
                    raise self._failed(old, error) from None

    def _failed(self, path: Path, error: OSError) -> DataError:
        return DataError(f"{path} cannot be written: {error.strerror or error}{self._instead}")

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry."""
        try:
            if self._file is None:
                self._part.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._failed(self._part, error) from None

    def finish(self) -> Path | None:
        """Rename the file; None if nothing was listed."""
        if self._file is None:
            return None
        try:
            self._file.close()
            self._part.replace(self.path)
        except OSError as error:
            raise self._failed(self.path, error) from None
        self._file = None
        return self.path


def _is_list(path: Path, fields: Set[str]) -> bool:
    """Whether a file is a list of entries with these fields, empty, or not there."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_ENTRY)
        return not line or json.loads(line).keys() == fields
    except (ValueError, AttributeError):
        return False
    except OSError:  # also of what cannot be deleted, which says why
        return True


class RejectedRows:
    """The rejected rows of one run."""

    def __init__(self, path: Path, max_rate: float) -> None:
        instead = "Name another file for the rows that cannot be used: --rejected FILE"
        self._listing = Listing(path, {"where", "id", "reason"}, instead)
        self._max_rate = max_rate
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, Rejected] = {}  # of each kind
        self.count, self._damaged = 0, 0

    def add(self, row: Rejected) -> None:
        """List a row."""
        self._listing.add({"where": row.where, "id": row.id, "reason": row.reason})
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
        kind = self._kinds.most_common(1)[0][0]
        example = f" (for example, {self._first[kind]})" if "…" in kind else ""  # else nothing of it is left out
        raise DataError(
            f"stopped: {self.count:,} of {read:,} rows were rejected, {why}. Most frequent: {often}{example}. All are "
            f"listed in {path}. What was written stays; fix the source and run it again, it resumes where it stopped"
        )

    def finish(self) -> Path | None:
        """Finish the list; None if nothing was rejected."""
        return self._listing.finish()


def reject_repeated(row: Encoded | Skipped) -> Rejected:
    """The rejection of a row whose id came before with other content."""
    where = row.where if isinstance(row, Encoded) else f"id {row.id!r}"
    return Rejected(where, "its id came before in this source, with other content", row.id)


def kind_of(row: Rejected) -> str:
    """The reason and its column, without the values of one row.

    >>> kind_of(Rejected("line 2", "its image 'a.jpg' cannot be read: No such file or directory"))
    'its image … cannot be read: No such file or directory'
    >>> kind_of(Rejected("line 2", "https://shop.de/1.jpg answered HTTP 404"))
    '… answered HTTP 404'
    >>> kind_of(Rejected("line 2", "is not UTF-8: b'F'; save the file as UTF-8"))
    'is not UTF-8: …; save the file as UTF-8'
    >>> kind_of(Rejected("line 2, column 'text'", "missing or empty; this row has ['image']"))
    "column 'text': missing or empty"
    """
    reason = _PARTICULARS.sub("…", row.reason.partition(_COLUMNS)[0])
    return f"{column[0]}: {reason}" if (column := _COLUMN.search(row.where)) else reason


@dataclass
class Outcome:
    """Counts of one run; every row read is in one of those from ``added`` to ``dropped``."""

    read: int = 0  # rows of the source, rejected ones included
    added: int = 0  # pairs with an id that is new in the memory
    replaced: int = 0  # pairs whose row changed
    unchanged: int = 0  # rows that the memory already holds
    repeated: int = 0  # rows that came before in this source, with the same content
    missing: int = 0  # rows skipped because only known ids are wanted
    rejected: int = 0  # rows that cannot be used
    excluded: int = 0  # rows skipped because they are evaluation images
    dropped: int = 0  # near-duplicates that were skipped
    reported: int = 0  # near-duplicates that were written and listed
    cut: int = 0  # captions longer than the encoder reads
    deleted: int = 0  # pairs deleted because they are gone from the source, or excluded now
    kept: int = 0  # pairs gone from the source but kept, because rejected rows may be theirs
    others: dict[str, int] = field(default_factory=dict)  # source -> pairs of the version before that came from there
    copied: int = 0  # of those, pairs that were copied into this one
    pairs: int = 0  # in the memory at the end
    seconds: float = 0.0  # of wall clock
    vectors: str | None = None  # how the source's vectors were checked; None: it brought none that were new
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
    """Writes one source into a memory, and counts."""

    def __init__(
        self,
        memory: PairMemory,
        options: IngestOptions,
        excluded: Excluded | None = None,
        same: Callable[[], SameEncoder] | None = None,
    ) -> None:
        self.memory, self.outcome = memory, Outcome()
        self.unnamed = 0  # rejected rows without an id, which could be any pair's
        self._options, self._excluded = options, excluded
        self._make_same: Callable[[], SameEncoder] | None = same
        self._same: SameEncoder | None = None  # made for the first vectors that a source brings
        self._rejected = RejectedRows(options.rejected, options.max_error_rate)
        self._listed = Listing(options.listed, {"id", "like", "similarity", "done"})
        self._seen: set[int] = set()
        self._named: set[int] = set()  # ids of rejected rows

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Skip rows that need no encoding; may be called by another thread, for later rows."""
        held = self._held([row.pair.id for row in rows])
        return [self._needless(row.pair.id, row.digest, held) or row for row in rows]

    def records(self, batch: Sequence[WriterItem]) -> Records:
        """The records (N, D) to write for the next rows of the source; deletes the pairs that must go.

        The records of a batch must be in the memory before the next call.

        Raises:
            FingerprintMismatch: the rows brought vectors of another encoder.
        """
        if given := list(given_vectors(batch)):
            self._check_encoder(given)
        self.outcome.read += len(batch)
        held = self._held([row.id for row in batch if not isinstance(row, Rejected)])
        fresh: list[Encoded] = []
        skipped: list[Skipped] = []
        first: dict[str, str] = {}
        for row in batch:
            if isinstance(row, Rejected):
                self._reject(row)
            elif not self._first_time(row, first):
                self._repeat(row, first, held)
            elif isinstance(row, Skipped):
                skipped.append(row)
            elif needless := self._needless(row.id, row.digest, held):
                skipped.append(needless)
            else:
                fresh.append(row)
        self._skip(skipped, held)
        return self._fresh(fresh, held)

    def _check_encoder(self, given: Sequence[tuple[Mapping[Modality, Any], Payload]]) -> None:
        if self._same is None and self._make_same is not None:
            self._same = self._make_same()
        if self._same is not None:
            self._same.look(given)

    def brought(self, id_: str, *, good: bool = False) -> bool:
        """Whether the source has a row with this id; with ``good``, one that was not rejected."""
        return (key := key_of(id_)) in self._seen or (not good and key in self._named)

    @part_of_a_write()
    def delete_gone(self, max_share: float) -> None:
        """Delete the pairs that came from this source and are no longer in it, once all its rows are written.

        A pair whose row was rejected stays. Rejected rows without an id could be any pair's: then all stay.

        Raises:
            DataError: more than ``max_share`` of the source's pairs would be deleted; none is.
        """
        source = self._options.source
        ours = [id_ for id_, payload in self.memory.store.payloads() if self._options.brought(payload)]
        gone = [id_ for id_ in ours if not self.brought(id_)]
        if self.unnamed:
            self.outcome.kept += len(gone)
        elif why := too_many(len(gone), len(ours), source, max_share):
            raise DataError(f"nothing was deleted, what is new or changed was written: {why}")
        elif gone:
            self.outcome.deleted += self.memory.remove(gone)

    @part_of_a_write()
    def delete_others(self) -> None:
        """Delete every pair that is not a good row of this source, whatever its source."""
        gone = [id_ for id_, _ in self.memory.store.payloads() if not self.brought(id_, good=True)]
        if gone:
            self.outcome.deleted += self.memory.remove(gone)

    def keep(self, records: Records) -> None:
        """Write pairs (N, D) that did not come from this source, but for excluded ones."""
        if self._excluded is not None:
            found = self._excluded.find(records.ids, records.image, self._options.threshold)
            for id_, near in zip(records.ids, found, strict=True):
                if near is not None:
                    self._list(id_, near, "excluded")
                    self.outcome.excluded += 1
            records = records.take([near is None for near in found])
        self.memory.store.upsert(records)
        self.outcome.copied += len(records)

    def check_rejected(self, *, at_end: bool = False) -> None:
        """Stop a run that rejects too many rows.

        Raises:
            DataError: see :meth:`~reco_plugin.ingest.write.RejectedRows.check`.
        """
        self._rejected.check(self.outcome.read, at_end=at_end)

    def close(self) -> None:
        """Finish the lists."""
        self.outcome.vectors = self._same.note if self._same else None
        self.outcome.reasons = self._rejected.reasons
        for kind, path in (("rejected", self._rejected.finish()), ("listed", self._listed.finish())):
            if path is not None:
                self.outcome.files[kind] = str(path)

    @part_of_a_write()
    def _held(self, ids: Sequence[str]) -> dict[str, Payload]:
        return dict(self.memory.store.payloads(list(dict.fromkeys(ids)))) if ids else {}

    def _needless(self, id_: str, digest: str, held: dict[str, Payload]) -> Skipped | None:
        if id_ not in held:
            return Skipped(id_, digest, "missing") if self._options.only_known else None
        return Skipped(id_, digest, "unchanged") if held[id_].get(ROW) == digest else None

    def _first_time(self, row: Encoded | Skipped, first: dict[str, str]) -> bool:
        if (key := key_of(row.id)) in self._seen:
            return False
        self._seen.add(key)
        first[row.id] = row.digest
        return True

    def _repeat(self, row: Encoded | Skipped, first: dict[str, str], held: dict[str, Payload]) -> None:
        if row.digest == first.get(row.id, held.get(row.id, {}).get(ROW)):
            self.outcome.repeated += 1
        else:
            self._reject(reject_repeated(row))

    def _reject(self, row: Rejected) -> None:
        self._rejected.add(row)
        self.outcome.rejected += 1
        if row.id is None:
            self.unnamed += 1
        else:
            self._named.add(key_of(row.id))

    @part_of_a_write()
    def _skip(self, rows: Sequence[Skipped], held: dict[str, Payload]) -> None:
        """Count; unchanged pairs of another source now belong to this one, pairs that are excluded now are deleted."""
        self.outcome.missing += sum(row.why == "missing" for row in rows)
        ids = [row.id for row in rows if row.why == "unchanged"]
        gone = self._excluded_now(ids)
        self.outcome.unchanged += len(ids) - len(gone)
        source = self._options.source
        claimed = [id_ for id_ in ids if id_ not in gone and source is not None and held[id_].get(SOURCE) != source]
        if claimed:
            old = self.memory.get(claimed)
            ours = [{**payload, SOURCE: source} for payload in old.payloads]
            self.memory.store.upsert(Records(old.ids, old.image, old.text, ours))

    @part_of_a_write()
    def _excluded_now(self, ids: list[str]) -> set[str]:
        if self._excluded is None or not ids:
            return set()
        gone: set[str] = set()
        for old in self.memory.store.scroll(len(ids), ids):
            for id_, near in zip(
                old.ids, self._excluded.find(old.ids, old.image, self._options.threshold), strict=True
            ):
                if near is not None:
                    self._list(id_, near, "excluded")
                    self.outcome.excluded += 1
                    gone.add(id_)
        self.outcome.deleted += self.memory.remove(sorted(gone)) if gone else 0
        return gone

    def _fresh(self, rows: list[Encoded], held: dict[str, Payload]) -> Records:
        rows = self._without_duplicates(self._without_excluded(rows, held), held)
        for row in rows:
            self.outcome.replaced += row.id in held
            self.outcome.added += row.id not in held
            self.outcome.cut += row.cut
        if not rows:
            return Records.join([], self.memory.encoder.dimension)
        image, text = (np.stack([getattr(row, side) for row in rows]) for side in MODALITIES)
        payloads = [add_marks(row.payload, row.digest, self._source_of(row.id, held)) for row in rows]
        return Records([row.id for row in rows], image, text, payloads)

    def _source_of(self, id_: str, held: Mapping[str, Payload]) -> str | None:
        """Whose a pair is now; of an update, whose it was, else ``sync`` would keep it when its row is gone."""
        return held[id_].get(SOURCE) if self._options.only_known else self._options.source

    def _without_excluded(self, rows: list[Encoded], held: dict[str, Payload]) -> list[Encoded]:
        if self._excluded is None or not rows:
            return rows
        found = self._excluded.find([row.id for row in rows], _images(rows), self._options.threshold)
        self.outcome.excluded += sum(near is not None for near in found)
        return self._leave_out(rows, found, held, "excluded")

    def _without_duplicates(self, rows: list[Encoded], held: dict[str, Payload]) -> list[Encoded]:
        what = self._options.duplicates
        if not rows or what == "off":
            return rows
        found = self._duplicates(rows, held)
        if what == "drop":
            self.outcome.dropped += sum(near is not None for near in found)
            return self._leave_out(rows, found, held, "dropped")
        for row, near in zip(rows, found, strict=True):
            if near is not None:
                self._list(row.id, near, "reported")
                self.outcome.reported += 1
        return rows

    def _duplicates(self, rows: list[Encoded], held: dict[str, Payload]) -> list[Near | None]:
        """The nearest earlier image of each row, above the threshold, in the memory or among the rows that stay."""
        threshold, images, ids = self._options.threshold, _images(rows), [row.id for row in rows]
        stored = stored_neighbours(self.memory.store, images, threshold, [id_ for id_ in ids if id_ in held])
        batch, found = BatchNear(ids, images), list[Near | None]()
        for place, near in enumerate(stored):
            close = [each for each in (near, batch.before(place, threshold)) if each is not None]
            found.append(max(close, key=lambda each: each.similarity, default=None))
            if found[-1] is None or self._options.duplicates == "report":
                batch.stay(place)
        return found

    def _leave_out(
        self, rows: list[Encoded], leaving: Sequence[Near | None], held: dict[str, Payload], why: str
    ) -> list[Encoded]:
        """The rows that stay; the stored pairs of the others are deleted."""
        gone = []
        for row, near in zip(rows, leaving, strict=True):
            if near is not None:
                self._list(row.id, near, why)
                gone += [row.id] if row.id in held else []
        self.outcome.deleted += self.memory.remove(gone) if gone else 0
        return [row for row, near in zip(rows, leaving, strict=True) if near is None]

    def _list(self, id_: str, near: Near, done: str) -> None:
        self._listed.add({"id": id_, "like": near.id, "similarity": round(near.similarity, 6), "done": done})


def too_many(gone: int, ours: int, source: str | None, max_share: float) -> str | None:
    """Why so many pairs of a source must not be deleted; None if they may."""
    if gone <= max_share * ours:
        return None
    return (
        f"{gone:,} of the {ours:,} pairs that {source!r} brought are gone from it, more than the allowed share of "
        f"{max_share:g}. To delete them, give --max-delete {min(1.0, gone / ours + 0.005):.2f}; if not, is the source "
        "complete?"
    )


def _images(rows: Sequence[Encoded]) -> Vectors:
    return np.stack([row.image for row in rows])
