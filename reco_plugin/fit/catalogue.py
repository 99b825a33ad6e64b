"""A catalogue as vectors, read, decoded and encoded as by ``reco memory build``; its groups, split and sampled.

Encoded rows are kept in files, so that a resumed run, or a larger catalogue, encodes only new rows. Groups are drawn by
name into fit, validation and test, so that a growing catalogue keeps its split; from one that is larger than a fit
needs, whole groups are sampled before images are decoded.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..api_encoder import open_encoder
from ..artifact import Artifact
from ..config import load_settings
from ..data import read_records, write_pairs
from ..data.groups import group_of, groups_of, is_itself
from ..data.rows import Rejected, Rows
from ..data.same_encoder import SameEncoder
from ..errors import DataError
from ..evaluate.encoding import CachedEncoder
from ..files import digest_records
from ..ingest.options import IngestOptions
from ..ingest.prepare import Encoded, Loaded, Skipped, WriterItem, add_marks, given_vectors, key_of
from ..ingest.run import RowProgress, encode_source, silent
from ..ingest.write import RejectedRows, reject_repeated
from ..types import Pair, Payload, Records, Vectors
from ..values import ROW, counted, strip_marks

SplitName = Literal["fit", "validation", "test"]
PARTS: tuple[SplitName, ...] = get_args(SplitName)
FEWEST = 10
"""Groups of a part: an interval over fewer is meaningless."""


@dataclass(frozen=True)
class HeldOut:
    """N pairs, split. A pair that asks is in no memory of its part, unlike the other pairs of its group."""

    part: npt.NDArray[np.str_]  # (N,) part of each pair
    asks: npt.NDArray[np.bool_]  # (N,) whether a held-out pair is a query

    def rows(self, *parts: SplitName) -> npt.NDArray[np.int64]:
        """Rows (M,) of all pairs of some parts."""
        return np.flatnonzero(np.isin(self.part, parts))

    def queries(self, part: SplitName) -> npt.NDArray[np.int64]:
        """Rows (Q,) of the pairs of one part that are queries."""
        return np.flatnonzero((self.part == part) & self.asks)

    def rest(self, part: SplitName) -> npt.NDArray[np.int64]:
        """Rows (M,) of the pairs of one part that are not queries."""
        return np.flatnonzero((self.part == part) & ~self.asks)


def split(ids: Sequence[str], groups: Sequence[str], *, validation: float, test: float, seed: int = 0) -> HeldOut:
    """Split N pairs by their groups (N,); ``validation`` and ``test`` are shares of the groups."""
    part_of = {group: _part(group, validation, test, seed) for group in set(groups)}
    counts = Counter(part_of.values())
    if min(counts[part] for part in PARTS) < FEWEST:
        raise _too_few(counts, validation, test)
    part = np.array([part_of[group] for group in groups])
    return HeldOut(part, _asks(ids, groups, seed) & (part != "fit"))


def check_groups(
    rows: Rows, group: str | None, used: CatalogueSample | None, *, validation: float, test: float, seed: int = 0
) -> None:
    """Check, before anything is encoded, that each part gets enough groups; reads rows until it does, no images.

    Args:
        rows: the catalogue.
        group: payload column of the groups; None: the caption.
        used: the sample of its rows; None for all.
        validation: share of the groups.
        test: share of the groups.
        seed: of the draw.
    """
    seen, counts, rejected = set[str](), Counter[SplitName](), list[Rejected]()
    for row in chain.from_iterable(part.read() for part in rows.parts):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        if used is not None and not used.holds(row):
            continue
        if (name := group_of(row, group)) not in seen:
            seen.add(name)
            counts[_part(name, validation, test, seed)] += 1
            if min(counts[part] for part in PARTS) >= FEWEST:
                return
    if seen:  # else its reading says what is wrong
        raise _too_few(counts, validation, test, rejected)


def _too_few(
    counts: Mapping[SplitName, int], validation: float, test: float, rejected: Sequence[Rejected] = ()
) -> DataError:
    few, least = min(PARTS, key=lambda part: counts.get(part, 0)), min(validation, test, 1.0 - validation - test)
    return DataError(
        f"{counted(sum(counts.values()), 'group is', 'groups are')} too few: {counts.get(few, 0)} fall into the {few} "
        f"part, and it needs {FEWEST}. With a smallest share of {least:g} that takes "
        f"{math.ceil(FEWEST / least):,} groups on average, and {_enough(least):,} to be sure. Give "
        "a larger catalogue, a finer --group, or other shares (--validation, --test)"
        + (f". {counted(len(rejected), 'row')} cannot be used, the first: {rejected[0]}" if rejected else "")
    )


def _enough(share: float) -> int:
    """Groups of which this share has ten in 19 of 20 draws.

    >>> _enough(0.15)
    108
    """
    half = 1.645 * math.sqrt(share * (1.0 - share))
    root = (half + math.sqrt(half * half + 4.0 * share * FEWEST)) / (2.0 * share)
    return math.ceil(root * root)


def chance(name: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on name and seed alone.

    >>> round(chance("fox"), 3), round(chance("fox", 1), 3)
    (0.32, 0.547)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]) / 2.0**64


def _part(group: str, validation: float, test: float, seed: int) -> SplitName:
    drawn = chance(group, seed)
    return "test" if drawn < test else "validation" if drawn < test + validation else "fit"


def _asks(ids: Sequence[str], groups: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Choose about half of each group as queries, (N,): at least one, and not all of two or more."""
    drawn = np.array([chance(f"ask\0{id_}", seed) for id_ in ids])
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    asks = drawn < 0.5
    order = np.lexsort((drawn, number))
    first = np.flatnonzero(np.diff(number[order], prepend=-1))  # of each group, in order
    last = np.append(first[1:], len(order)) - 1
    asks[order[last[last > first]]] = False
    asks[order[first]] = True
    return np.asarray(asks)


_BINS = 1 << 16


@dataclass(frozen=True)
class CatalogueSample:
    """A sample of the rows of a catalogue."""

    group: str | None  # payload column of the groups; None: the caption
    below: float  # groups whose :func:`chance` is below are in the sample; a larger sample contains a smaller one
    rows: int  # of the sample
    of: int  # rows of the catalogue

    def holds(self, row: Pair | Rejected) -> bool:
        """Whether a row is in the sample; of rejected ones, which have no group, the same share."""
        return _drawn(row, self.group) < self.below


def sample(rows: Rows, group: str | None, most: int) -> CatalogueSample | None:
    """Find the largest sample of at most ``most`` rows; None where no sample is needed.

    Reads all rows once to count them, without their images, unless the source knows that they are few enough.

    Args:
        rows: the catalogue.
        group: payload column of the groups; None: the caption.
        most: rows; 0 for all.
    """
    if not most or (rows.total is not None and rows.total <= most):
        return None
    counts = np.zeros(_BINS, np.int64)
    for part in rows.parts:
        for row in part.read():
            counts[min(int(_drawn(row, group) * _BINS), _BINS - 1)] += 1
    reached = np.cumsum(counts)
    total = int(reached[-1])
    if total <= most:
        return None
    bins = int(np.searchsorted(reached, most, side="right"))
    return CatalogueSample(group, bins / _BINS, int(reached[bins - 1]) if bins else 0, total)


def _drawn(row: Pair | Rejected, group: str | None) -> float:
    name = row.where if isinstance(row, Rejected) else group_of(row, group)
    return chance(f"sample\0{name}")


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
    """
    settings, fingerprint = load_settings(model=base.folder), base.manifest.fingerprint
    encoder, cache = open_encoder(base, settings), EncodedRows(out / _VECTORS / fingerprint.digest[:16] / "rows")
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
        """Write the rows of a batch, of different ids."""
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
