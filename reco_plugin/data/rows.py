"""Rows of a source, one by one: pairs, or rejected rows with the reason.

::

    source ──► Rows ──► SourcePart ──► Pair | Rejected

``docs/sources.md`` lists the sources.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..types import Pair
from ..values import strip_marks
from .captions import CaptionsPart, ImageFolderPart, open_captions, open_folder, read_captions
from .images import RemoteImage, spread
from .labelled_sources import LabelledPart, is_cub
from .row import ColumnNames, Rejected, SourcePart
from .rows_arrays import ArraysPart, NpzPart, ParquetPart, open_arrays, open_clip_retrieval, open_npz, open_parquet
from .shards import open_shards
from .source import IMAGE_SUFFIXES, Location, find_shards, names_shards, not_there, parse_source, propose, stamp_of
from .tables import SUFFIXES, TablePart, open_table
from .torchvision_sets import PREFIX

__all__ = ["ColumnNames", "PairStream", "Rejected", "Rows", "SourcePart", "open_rows", "read_pairs"]

CAPTIONS = tuple(f"captions{suffix}" for suffix in (*SUFFIXES, ".parquet"))
_NAMES = ("id", "image", "text")
_OF_FILES = (TablePart, ParquetPart, ImageFolderPart, CaptionsPart)
_DIGITS = 16
"""64 bits, which suffice to compare two rows with the same id."""
_PLACE_BITS = 48


@dataclass(frozen=True)
class Rows:
    """All rows of a source; can be iterated over again."""

    name: str
    parts: tuple[SourcePart, ...]  # in order
    total: int | None = None  # number of rows, where cheap to count, else None
    check: bool | None = None  # whether vectors are compared with the captions and pictures at hand; None: unless told
    note: str = ""  # what a user should know of its ids
    told: bool = False  # a memory, which tells the encoder of its vectors

    def check_unchanged(self) -> None:
        """Check, at the end, that no table changed while it was read: rows would be missing without a word.

        Raises:
            DataError: one of them was written or replaced.
        """
        read = {part.path: part.stamp for part in self.parts if isinstance(part, TablePart | ParquetPart)}
        for path, stamp in read.items():
            if stamp_of(path) != stamp:
                raise DataError(
                    f"{path} changed while it was read, so rows may be missing: read it again when it is complete"
                )

    @property
    def folders(self) -> tuple[Path, ...]:
        """Base folders of its image paths, each once."""
        of_files = (part for part in self.parts if isinstance(part, _OF_FILES))
        return tuple(dict.fromkeys(part.folder for part in of_files))

    @property
    def bases(self) -> tuple[Path, ...]:
        """Folders that paths of pictures may be relative to, also those that stand beside vectors."""
        of_vectors = (part.maker.folder for part in self.parts if isinstance(part, NpzPart | ArraysPart))
        return tuple(dict.fromkeys([*self.folders, *of_vectors]))

    def __iter__(self) -> Iterator[Pair | Rejected]:
        """The rows of all parts, in order; of pairs with the same id, the first is kept.

        Raises:
            DataError: at the end, see :meth:`check_unchanged`.
        """
        seen, starts, place = SeenPairs(), list[int](), 0
        for part in self.parts:
            starts.append(place)
            for row in part.read():
                before = seen.before(row, place) if isinstance(row, Pair) else None
                yield row if before is None else self._twice(row, place, starts, *before)
                place += 1
        self.check_unchanged()

    def _twice(self, row: Pair | Rejected, place: int, starts: list[int], first: int, same: bool) -> Rejected:
        what = "repeats" if same else f"its id {row.id!r} came before, with other content:"
        return Rejected(self._where(place, starts), f"{what} {self._where(first, starts)}", row.id)

    def _where(self, place: int, starts: list[int]) -> str:
        number = bisect_right(starts, place) - 1
        return f"row {place - starts[number] + 1} of {self.parts[number].name}"


def digest(pair: Pair) -> str:
    """Digest a pair in 16 hex digits: image (bytes, vector, URL or path), text and payload, not the id.

    >>> digest(Pair("a", b"", "fox")) == digest(Pair("b", b"", "fox")) != digest(Pair("a", b"", "a fox"))
    True
    """
    total = hashlib.sha256()
    payload = json.dumps(dict(pair.payload), sort_keys=True, default=repr).encode(errors="surrogatepass")
    for part in (*_side(pair.image), *_side(pair.text), payload):
        total.update(len(part).to_bytes(8, "little"))  # separates the parts
        total.update(part)
    return total.hexdigest()[:_DIGITS]


def _side(value: Any) -> tuple[bytes, bytes]:
    """Kind and content of one side."""
    match value:
        case np.ndarray():
            return b"vector", np.ascontiguousarray(value, np.float32).tobytes()
        case RemoteImage():
            return b"url", value.url.encode(errors="surrogatepass")
        case bytes():
            return b"bytes", value
        case Path():
            return b"path", str(value).encode("utf-8", "surrogateescape")
        case str():
            return b"text", value.encode(errors="surrogatepass")
    picture = value.convert("RGBA")  # a PIL image
    return b"pixels", str(picture.size).encode() + picture.tobytes()


class SeenPairs:
    """Digests of the ids and contents of pairs (a file by its path); about 150 bytes for each, whatever its size."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}  # digest of the id -> 8 bytes of the content's digest, and the place

    def before(self, pair: Pair, place: int) -> tuple[int, bool] | None:
        """Look up the pair with this id: its row number, and whether it is equal; None adds a new id, at ``place``."""
        content = int(digest(pair), 16) << _PLACE_BITS
        known = self._known.setdefault(blake2b(pair.id.encode(), digest_size=16).digest(), content | place)
        first = known & ((1 << _PLACE_BITS) - 1)
        return None if first == place else (first, known >> _PLACE_BITS == content >> _PLACE_BITS)


def open_rows(source: str | Path, *, columns: ColumnNames | None = None) -> Rows:
    """Open a source of image-text pairs; reads only names, headers and tables.

    Args:
        source: a file, folder, pattern or ``torchvision:NAME``, with options as in
            ``catalogue.csv?id=sku&image=photo&text=title&images=DIR``; ``check=0`` with any.
        columns: names of the columns; options of the source take precedence.

    Raises:
        DataError: the source is missing, of no known kind or empty, or lacks a needed column.
        ConfigError: an unknown option, or column names for a source without columns.
        MissingExtra: parquet without pyarrow.
    """
    where = parse_source(source)
    parts, total = _open(where.without("check"), columns)
    if not parts:
        raise DataError(f"{where.name} holds no pairs: it is empty")
    return Rows(where.name, parts, total, where.flag("check"), note=_ids_note(parts))


def _ids_note(parts: Sequence[SourcePart]) -> str:
    """Where ids come from, if not from the column of ids; empty for sources other than text tables."""
    first = parts[0]
    if isinstance(first, ParquetPart):
        return _no_ids(str(first.path), first.maker.names, first.columns)
    if not isinstance(first, TablePart) or not (without := first.table.without_id):
        return ""
    table, names, path = first.table, first.maker.names, str(first.table.path)
    columns = [] if path.lower().endswith(".jsonl") else list(table.columns)
    if names.id in columns:
        return f"{without:,} rows of {path} have no {names.id!r}: the path or URL of their image is their id"
    return _no_ids(path, names, columns)


def _no_ids(path: str, names: ColumnNames, columns: Sequence[str]) -> str:
    """What becomes of missing ids in a table without a column of ids; empty where it has one."""
    if names.id in columns:
        return ""
    wanted = {"id": names.id, "image": names.image, "text": names.text}
    like = f"'{propose(path, columns, wanted)}'" if "id=" in propose(path, columns, wanted) else f"'{path}?id=COLUMN'"
    return (
        f"{path} has no {names.id!r}: the path or URL of the image is the id of a pair (of vectors, the number of "
        f"the row), so a renamed picture is another pair. If a column identifies them, give the source as {like}"
    )


class PairStream(Iterator[Pair]):
    """An iterator over pairs."""

    def __init__(self, pairs: Iterator[Pair], total: int | None) -> None:
        self._pairs = pairs
        self.total = total  # their number, where cheap to count, else None

    def __next__(self) -> Pair:
        return next(self._pairs)


def read_pairs(source: str | Path) -> PairStream:
    """Read image-text pairs from any source of :func:`open_rows`; a bad row is an error.

    The text also becomes the payload value ``caption``, to show retrieved pairs. Images or captions without
    a partner in folders and shards are skipped, and counted in a warning at the end.

    Raises:
        DataError: nothing there, no pairs, or a row is not readable; the message names file and row or key. Errors of
            the first pair are raised by this call, later ones during iteration.
        MissingExtra: parquet without pyarrow.
    """
    rows = open_rows(source)
    pairs = _strict(rows)
    first = next(pairs, None)
    if first is None:
        raise DataError(f"{source} holds no pairs: it is empty")
    return PairStream(chain([first], pairs), rows.total)


def _strict(rows: Rows) -> Iterator[Pair]:
    made, halves, example = 0, 0, ""
    for row in rows:
        if isinstance(row, Pair):
            if isinstance(row.image, RemoteImage):
                raise DataError(
                    f"{rows.name}: the image of {row.id!r}, {row.image}, is a URL: download the images first, for "
                    "example by img2dataset, or let `reco memory build` fetch them"
                )
            made += 1
            yield replace(row, payload=strip_marks(row.payload))
        elif row.half:
            halves, example = halves + 1, example or row.id or row.where
        else:
            raise DataError(str(row))
    if halves:
        alone = "images without a caption in a .txt of the same name"
        if names_shards(rows.name):
            alone = "keys without both an image and a caption"
        if not made:
            raise DataError(f"{rows.name} holds no pairs: none of {halves:,} {alone}, as {example!r}")
        warnings.warn(f"{rows.name}: skipped {halves:,} {alone}, the first is {example!r}", stacklevel=2)


def caption_table(folder: Path) -> Path | None:
    """The table ``captions.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` of a folder, if there is one."""
    return next((folder / name for name in CAPTIONS if (folder / name).is_file()), None)


def _open(where: Location, columns: ColumnNames | None) -> tuple[tuple[SourcePart, ...], int | None]:
    if where.name.startswith(PREFIX) or is_cub(where.path):
        return _open_labelled(where)
    if (files := read_captions(where)) is not None:
        limit = where.count("limit")
        chosen = files if limit is None else [files[row] for row in spread(len(files), limit)]
        return open_captions(where.name, chosen), sum(len(file.captions) for file in chosen)
    table = caption_table(where.path)
    if table is None and where.path.is_dir():
        return _open_folder(where, columns)
    return _open_files(where if table is None else replace(where, name=str(table)), columns)


def _open_files(where: Location, columns: ColumnNames | None) -> tuple[tuple[SourcePart, ...], int | None]:
    path, suffix = where.path, where.path.suffix.lower()
    if suffix == ".parquet" and (path.exists() or names_shards(where.name)):
        return _open_tables(find_shards(where.name), where, columns)
    if names_shards(where.name):
        _no_columns(where, columns)
        return open_shards(find_shards(where.name)), None
    if not path.exists():
        raise DataError(not_there(path))
    if suffix == ".npz":
        return open_npz(path, column_names(where, columns)), None
    if suffix in SUFFIXES:
        return _open_tables([path], where, columns)
    raise DataError(
        f"{path} is of no kind that pairs are read from: give .jsonl, .csv, .tsv, .parquet, .tar, .npz or a folder"
    )


def _open_labelled(where: Location) -> tuple[tuple[SourcePart, ...], int]:
    options = "&".join(f"{name}={value}" for name, value in where.options.items())
    part = LabelledPart(f"{where.name}?{options}" if options else where.name)
    return (part,), len(part.labelled)


def _open_tables(
    paths: list[Path], where: Location, columns: ColumnNames | None
) -> tuple[tuple[SourcePart, ...], int | None]:
    names = column_names(where, columns, "images")
    folder = where.images
    if paths[0].suffix.lower() == ".parquet":
        return open_parquet(paths, names, folder)
    return open_table(paths[0], names, folder or paths[0].parent)


def _open_folder(where: Location, columns: ColumnNames | None) -> tuple[tuple[SourcePart, ...], int | None]:
    folder = where.path
    if (folder / "img_emb").is_dir():
        return open_clip_retrieval(folder, column_names(where, columns))
    if (folder / "image.npy").is_file():
        return open_arrays(folder, column_names(where, columns))
    if names_shards(folder):
        _no_columns(where, columns)
        return open_shards(find_shards(folder)), None
    parts, total = open_folder(folder)
    tables = [] if parts else sorted(folder.glob("*.parquet"))
    if tables:
        return _open_tables(tables, where, columns)
    _no_columns(where, columns)
    if parts:
        return parts, total
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(
            f"{folder} is a Hugging Face dataset that was saved to disk: write it, or one split of it, as Parquet, as "
            f"in datasets.load_from_disk({str(folder)!r}).to_parquet('pairs.parquet')"
        )
    has = ", ".join(IMAGE_SUFFIXES)
    raise DataError(f"{folder} holds no images ({has}), no .tar, no .parquet and no {' | '.join(CAPTIONS)}")


def column_names(where: Location, columns: ColumnNames | None = None, *more: str) -> ColumnNames:
    """The columns that a source's options name, else those of ``columns``.

    Raises:
        ConfigError: an option that neither names a column nor is one of ``more``.
    """
    where.only(*_NAMES, *more)
    return replace(columns or ColumnNames(), **{name: where.options[name] for name in _NAMES if name in where.options})


def _no_columns(where: Location, columns: ColumnNames | None) -> None:
    where.only()
    if columns not in (None, ColumnNames()):
        raise ConfigError(f"{where.name} has no columns that could be named")
