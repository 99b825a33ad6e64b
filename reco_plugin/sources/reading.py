"""Opens a source by what it is: of pairs, or of labelled images.

::

    open_rows       rows of pairs, or why not usable        csv tsv jsonl parquet | folder | tar | npz npy | …
    read_pairs      the same; the first bad row raises
    read_labelled   images with classes, for zero-shot      folder | table
    read_records, write_pairs                               pairs as vectors, in batches: npz parquet

Sources of pairs are described in ``docs/sources.md``, evaluation sets in ``docs/evaluation.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..defaults import SCROLL_BATCH
from ..errors import DataError
from ..types import MODALITIES, Pair, Records
from ..values import check_templates, fill, strip_marks
from .cells import CellError, Vector, image_of, text_of
from .columns import is_vectors, open_npz, open_parquet
from .images import RemoteImage
from .location import (
    CAPTIONS,
    IMAGE_SUFFIXES,
    Location,
    caption_table,
    clean_name,
    column_names,
    find_images,
    find_shards,
    is_on,
    names_in,
    names_shards,
    not_there,
    parse_source,
    read_lines,
    read_text,
)
from .rows import FilePart, Rejected, Rows
from .shards import open_shards
from .tables import SUFFIXES, TableFile, TableRow, open_table

_IMAGES_PER_PART = 1000


def open_rows(source: str | Path) -> Rows:
    """Open a source of image-text pairs; reads only names, headers and tables.

    Args:
        source: a file, folder or pattern, with options as in
            ``catalogue.csv?id=sku&image=photo&text=title&images=DIR``; ``check=0`` with any.

    Raises:
        DataError: the source is missing, of no known kind or empty, or lacks a needed column.
        ConfigError: an unknown option.
        MissingExtra: parquet without pyarrow.
    """
    where = parse_source(source)
    check = is_on(where.name, "check", where.options.get("check"), True)
    rows = _open(where.without("check"))
    if not rows.parts:
        raise DataError(f"{where.name} holds no pairs: it is empty")
    return replace(rows, name=where.name, check=check)


def read_pairs(source: str | Path) -> Iterator[Pair]:
    """Read image-text pairs from any source of :func:`open_rows`; a bad row is an error.

    The text also becomes the payload value ``caption``, to show retrieved pairs. Images or captions without
    a partner in folders and shards are skipped, and counted in a warning at the end.

    Raises:
        DataError: no pairs, or a row is not readable; the message names file and row or key. All but those of
            ``open_rows`` during iteration.
        MissingExtra: parquet without pyarrow.
    """
    return pairs_of(open_rows(source))


def pairs_of(rows: Rows, *, marked: bool = False) -> Iterator[Pair]:
    """The pairs of rows that are open already, with or without the marks of `sync`; see :func:`read_pairs`."""
    ids, halves = set[str](), 0
    for row in rows:
        if isinstance(row, Rejected):
            if not row.half:
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
        yield row if marked else replace(row, payload=strip_marks(row.payload))
    alone = f"{halves:,} images or captions without the other half" if halves else "nothing"
    if not ids:
        raise DataError(f"{rows.name} holds no pairs, but {alone}")
    if halves:
        warnings.warn(f"{rows.name}: skipped {alone}", stacklevel=2)


def read_records(source: str | Path, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """Read the pairs of a pair file of vectors, in batches of (B, D) each, checked.

    Raises:
        DataError: a missing column, a repeated id, or vectors that are not unit-norm; the message names file and row.
        MissingExtra: parquet without pyarrow.
    """
    if not is_vectors(source):
        raise DataError(
            f"{source} is no pair file of vectors, .npz or .parquet: a memory takes others by reco memory add"
        )
    pairs = pairs_of(open_rows(source), marked=True)
    while batch := list(islice(pairs, batch_size)):
        sides = [[_vector(source, pair, getattr(pair, side)) for pair in batch] for side in MODALITIES]
        if len({len(vector) for side in sides for vector in side}) > 1:
            raise DataError(f"{source}: its vectors have several dimensions")
        image, text = map(np.stack, sides)
        yield Records([pair.id for pair in batch], image, text, [pair.payload for pair in batch])


def _vector(source: str | Path, pair: Pair, side: object) -> Vector:
    if not isinstance(side, np.ndarray):
        raise DataError(f"{source}: the pair {pair.id!r} is no pair of vectors")
    return side


def _open(where: Location) -> Rows:
    path, suffix = where.path, where.path.suffix.lower()
    if path.is_dir():
        table = caption_table(path)
        return _open_folder(where) if table is None else _open(replace(where, name=str(table)))
    if suffix == ".parquet" and (path.exists() or names_shards(where.name)):
        return open_parquet(find_shards(where.name), column_names(where, "images"), where)
    if names_shards(where.name):
        where.only()
        return open_shards(find_shards(where.name))
    if not path.exists():
        raise DataError(not_there(path))
    if suffix == ".npz":
        return open_npz(path, column_names(where))
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} is of no kind that pairs are read from: give .jsonl, .csv, .tsv, .parquet, .tar, .npz or a folder"
        )
    return open_table(path, column_names(where, "images"), where)


def _open_folder(where: Location) -> Rows:
    folder = where.path
    if names_shards(folder):
        where.only()
        return open_shards(find_shards(folder))
    rows = _open_images(folder)
    if not rows.parts and (tables := sorted(folder.glob("*.parquet"))):
        return open_parquet(tables, column_names(where, "images"), where)
    where.only()
    if rows.parts:
        return rows
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    hint = "; a dataset of Hugging Face is written as Parquet first: dataset.to_parquet(FILE)" if saved else ""
    raise DataError(f"{folder} holds no images, no .tar, no .parquet and no {' | '.join(CAPTIONS)}{hint}")


def _open_images(folder: Path) -> Rows:
    """Open the images below a folder, each with a ``.txt`` of the same name, a thousand in a part."""
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
            yield Rejected(str(image), f"there is no {beside.name!r} with its caption", name, half=True)
            continue
        try:
            text = text_of(read_text(beside))
        except CellError:
            yield Rejected(str(image), f"its caption {beside.name!r} is empty", name, half=True)
        except DataError as error:
            yield Rejected(str(image), str(error).replace(str(beside), repr(beside.name)), name)
        else:
            yield Pair(name, image, text, {"caption": text})


_CLASSES, _TEMPLATES = "classes.txt", "templates.txt"
_LABELS = ("label", "class")


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each.

    Attributes:
        name: of the source.
        images: N files.
        labels: (N,) class of each image, 0 … C-1.
        classes: C names.
        templates: prompts with ``{}`` where the class name goes; empty: those of the model.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query.
    """

    name: str
    images: Sequence[Path]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    query_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(source: str | Path, *, templates: Sequence[str] = ()) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; the file ``classes.txt`` in it may hold the display names of the
      sorted class folders, one a line;
    - ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class), and optionally query_id or id, by
      these names or those of the options ``image``, ``label`` and ``id``; ``images`` is the folder of the images.

    The file ``templates.txt`` in the folder, or beside the table, may hold the templates.

    Args:
        source: file or folder, with options behind a question mark.
        templates: used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, a row without a label; the message names file and row.
        ConfigError: a template without a place for the class name, or an unknown option.
    """
    where, given = parse_source(source), check_templates(templates)
    path = where.path
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return _from_table(where, given or _templates(path.parent))
    where.only()
    if path.is_dir():
        return _from_folders(path, given or _templates(path))
    problem = f"{path} is no labelled set" if path.exists() else not_there(path)
    raise DataError(f"{problem}: give a folder with one folder per class, or a table")


def _from_folders(folder: Path, templates: tuple[str, ...]) -> Labelled:
    members = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [find_images(member) for member in members]
    if not found or not all(found):
        empty = next((member for member, images in zip(members, found, strict=True) if not images), folder)
        raise DataError(f"{empty} holds no images ({', '.join(IMAGE_SUFFIXES)}): each class is a folder of images")
    images = [image for part in found for image in part]
    labels = np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64)
    classes = [clean_name(member.name) for member in members]
    if (path := folder / _CLASSES).is_file():
        classes = read_lines(path)
        if len(classes) != len(members):
            raise DataError(
                f"{path} has {len(classes)} class names, expected {len(members)}, one for each class folder in sorted "
                "order"
            )
    return Labelled(folder.name, images, labels, tuple(classes), templates, tuple(names_in(folder, images)))


def _from_table(where: Location, templates: tuple[str, ...]) -> Labelled:
    where.only("id", "image", "label", "images")
    names = {option: where.options.get(option, option) for option in ("id", "image")}
    named = [where.options[option] for option in ("id", "label") if option in where.options]
    rows = list(TableFile(where.path, tuple(dict.fromkeys([names["image"], *named]))).good_rows())
    if not rows:
        raise DataError(f"{where.path} has no rows")
    columns = [where.options["label"]] if "label" in where.options else _LABELS
    values = [_first(row, columns) for row in rows]
    classes = {name: number for number, name in enumerate(dict.fromkeys(values))}
    ids = tuple(_first(row, ("query_id", names["id"], names["image"])) for row in rows)
    images = [_image(row, names["image"], where.images or where.path.parent) for row in rows]
    labels = np.array([classes[value] for value in values], np.int64)
    return Labelled(where.path.name, images, labels, tuple(classes), templates, ids)


def _first(row: TableRow, columns: Sequence[str]) -> str:
    """The text in the first of these columns that a row has."""
    column = next((name for name in columns if name in row.values), None)
    if column is None:
        raise row.error(columns[0], f"missing or empty; this row has {sorted(row.values)}")
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(column, f"expected a text or a whole number, got {value!r:.60}")
    return str(value)


def _image(row: TableRow, column: str, folder: Path) -> Path:
    try:
        image = image_of(row.values[column], folder)
    except CellError as error:
        raise row.error(column, error) from None
    if not isinstance(image, Path):
        raise row.error(column, "is no file: download images behind URLs first, for example by img2dataset")
    return image


def _templates(folder: Path) -> tuple[str, ...]:
    """The templates of a folder; none where it has no file of them."""
    path = folder / _TEMPLATES
    lines = read_lines(path) if path.is_file() else []
    if bad := [line for line in lines if fill(line, "") == line]:
        raise DataError(f"{path}: template {bad[0]!r} has no {{}} where the class name goes")
    return tuple(lines)
