"""Open any source of pairs by its kind.

::

    open_source     rows of a file, a folder, shards or an index; bad ones as rejected rows
    open_rows       the same, without indexes
    read_pairs      pairs of open_rows; the first bad row raises
    read_records    pairs of a vector file, in batches

``docs/sources.md`` describes the kinds.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from ..defaults import SCROLL_BATCH
from ..errors import ConfigError, DataError
from ..memory.checks import SERVERS
from ..memory.header import HEADER_NAME
from ..types import MODALITIES, Pair, Records
from ..values import strip_marks
from .cells import CellError, Vector, parse_text
from .columns import is_vector_file, open_npz, open_parquet
from .images import RemoteImage
from .location import (
    CAPTIONS,
    INDEX_PORTS,
    Location,
    caption_table,
    column_names,
    describe_missing_file,
    find_images,
    find_shards,
    is_index_address,
    is_shards,
    parse_source,
    parse_switch,
    read_text,
)
from .rows import FilePart, Rejected, Rows
from .shards import open_shards
from .tables import SUFFIXES, open_table

_IMAGES_PER_PART = 1000


def open_source(source: str | Path, *, model: str | None = None) -> Rows:
    """Open a source of image-text pairs, or the index of a search engine.

    Args:
        source: as for :func:`open_rows`, or the address of an index.
        model: the vectors of an index must have the dimension of this model; None: any.

    Raises:
        ConfigError: an unknown option; or the source is a memory, which is copied instead.
        DataError: an empty source, and all errors of ``open_rows``.
        EngineError, FingerprintMismatch: see :func:`.open_index_rows`.
    """
    if is_index_address(str(source)):
        from .indexes.open_index import open_index_rows

        return open_index_rows(str(source), model)
    where = parse_source(source)
    if is_memory(where):
        shown = where.name.partition("?")[0].rpartition("@")[2]  # without a key
        raise ConfigError(f"{shown} is not a source: reco memory copy copies a memory; download a file first")
    if "://" in where.name and not where.path.exists():
        scheme = where.name.partition("://")[0]
        raise DataError(
            f"{scheme}:// cannot be read as a source: give a file or a folder, or the index of an engine "
            f"({', '.join(INDEX_PORTS)}); see docs/sources.md"
        )
    return open_rows(source)


def is_memory(where: Location) -> bool:
    """Whether a source is a memory, in a folder or on a Qdrant server."""
    return where.name.startswith(SERVERS) or (where.path / HEADER_NAME).is_file()


def source_name(rows: Rows) -> str:
    """The name that is stored with a source's pairs: an address, or the absolute path.

    An absolute path does not depend on the working folder of a cron job. Links are not resolved, since a link may point
    to another file each day.
    """
    if "://" in rows.name or is_index_address(rows.name):
        return rows.name
    return os.path.normpath(Path(rows.name).absolute())


def open_rows(source: str | Path) -> Rows:
    """Open a source of image-text pairs; reads only names, headers and tables.

    Args:
        source: a file, folder or pattern, with options as in
            ``catalogue.csv?id=sku&image=photo&text=title&images=DIR``; each kind takes ``check=0``.

    Raises:
        DataError: the source is missing, empty or of an unknown kind, or lacks a required column.
        ConfigError: an unknown option.
        MissingExtra: parquet without pyarrow.
    """
    where = parse_source(source)
    options = dict(where.options)
    check = parse_switch(where.name, "check", options.pop("check", None), True)
    rows = _open(replace(where, options=options))
    if not rows.parts:
        raise DataError(f"{where.name} holds no pairs: it is empty")
    return replace(rows, name=where.name, check=check)


def read_pairs(source: str | Path) -> Iterator[Pair]:
    """Read image-text pairs from a source of :func:`open_rows`.

    Images without a caption and captions without an image are skipped, and counted in a warning at the end. The caption
    is also the payload value ``caption``.

    Raises:
        DataError: the source has no pairs; or, during iteration, a row is bad. The message names file and row or key.
        MissingExtra: parquet without pyarrow.
    """
    return _good_pairs(open_rows(source))


def _good_pairs(rows: Rows, *, keep_marks: bool = False) -> Iterator[Pair]:
    ids, halves = set[str](), 0
    for row in rows:
        if isinstance(row, Rejected):
            if not row.is_incomplete:
                raise DataError(str(row))
            halves += 1
            continue
        if row.id in ids:
            raise DataError(f"{rows.name}: the id {row.id!r} came before: make ids unique")
        if isinstance(row.image, RemoteImage):
            raise DataError(
                f"{rows.name}: the image of {row.id!r}, {row.image}, is a URL: download the images first, for "
                "example by img2dataset, or let `reco memory build` fetch them"
            )
        ids.add(row.id)
        yield row if keep_marks else replace(row, payload=strip_marks(row.payload))
    alone = f"{halves:,} images or captions without the other half" if halves else "nothing"
    if not ids:
        raise DataError(f"{rows.name} holds no pairs, but {alone}")
    if halves:
        warnings.warn(f"{rows.name}: skipped {alone}", stacklevel=2)


def read_records(source: str | Path, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """Read the pairs of a vector file in batches of (B, D), checked.

    Raises:
        DataError: a missing column, a repeated id, or vectors that are not unit-norm; the message names file and row.
        MissingExtra: parquet without pyarrow.
    """
    if not is_vector_file(source):
        raise DataError(f"{source} is not a vector file (.npz or .parquet): add other sources by reco memory add")
    pairs = _good_pairs(open_rows(source), keep_marks=True)
    while batch := list(islice(pairs, batch_size)):
        sides = [[_vector(source, pair, getattr(pair, side)) for pair in batch] for side in MODALITIES]
        if len({len(vector) for side in sides for vector in side}) > 1:
            raise DataError(f"{source}: its vectors have several dimensions")
        image, text = map(np.stack, sides)
        yield Records([pair.id for pair in batch], image, text, [pair.payload for pair in batch])


def _vector(source: str | Path, pair: Pair, side: object) -> Vector:
    if not isinstance(side, np.ndarray):
        raise DataError(f"{source}: the pair {pair.id!r} is not a pair of vectors")
    return side


def _open(where: Location) -> Rows:
    path, suffix = where.path, where.path.suffix.lower()
    if path.is_dir():
        table = caption_table(path)
        return _open_folder(where) if table is None else _open(replace(where, name=str(table)))
    if suffix == ".parquet" and (path.exists() or is_shards(where.name)):
        return open_parquet(find_shards(where.name), column_names(where, "images"), where)
    if is_shards(where.name):
        where.check_options()
        return open_shards(find_shards(where.name))
    if not path.exists():
        raise DataError(describe_missing_file(path))
    if suffix == ".npz":
        return open_npz(path, column_names(where))
    if suffix not in SUFFIXES:
        raise DataError(f"{path} is not a source of pairs: give .jsonl, .csv, .tsv, .parquet, .tar, .npz or a folder")
    return open_table(path, column_names(where, "images"), where)


def _open_folder(where: Location) -> Rows:
    folder = where.path
    if is_shards(folder):
        where.check_options()
        return open_shards(find_shards(folder))
    rows = _open_images(folder)
    if not rows.parts and (tables := sorted(folder.glob("*.parquet"))):
        return open_parquet(tables, column_names(where, "images"), where)
    where.check_options()
    if rows.parts:
        return rows
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    hint = "; a dataset of Hugging Face is written as Parquet first: dataset.to_parquet(FILE)" if saved else ""
    raise DataError(f"{folder} holds no images, no .tar, no .parquet and no {' | '.join(CAPTIONS)}{hint}")


def _open_images(folder: Path) -> Rows:
    """Open the images below a folder; the caption of each is a ``.txt`` of the same name. A part has 1,000 images."""
    names = [image.relative_to(folder).as_posix() for image in find_images(folder)]
    slices = (names[start : start + _IMAGES_PER_PART] for start in range(0, len(names), _IMAGES_PER_PART))
    parts = tuple(
        FilePart(f"{folder}, {len(some):,} images from {some[0]!r}", partial(_read_images, folder, some))
        for some in slices
    )
    return Rows(str(folder), parts, len(names), folders=(folder,))


def _read_images(folder: Path, names: Sequence[str]) -> Iterator[Pair | Rejected]:
    for name in names:
        image = folder / name
        beside = image.with_suffix(".txt")
        if not beside.is_file():
            yield Rejected(str(image), f"there is no {beside.name!r} with its caption", name, is_incomplete=True)
            continue
        try:
            text = parse_text(read_text(beside))
        except CellError:
            yield Rejected(str(image), f"its caption {beside.name!r} is empty", name, is_incomplete=True)
        except DataError as error:
            yield Rejected(str(image), str(error).replace(str(beside), repr(beside.name)), name)
        else:
            yield Pair(name, image, text, {"caption": text})
