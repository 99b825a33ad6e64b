"""Labelled images: a folder per class, or a table with a column of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..values import check_templates, fill
from .cells import CellError, parse_image
from .location import (
    IMAGE_SUFFIXES,
    Location,
    clean_name,
    describe_missing_file,
    find_images,
    parse_source,
    read_lines,
    relative_names,
)
from .tables import SUFFIXES, TableFile, TableRow

_CLASSES, _TEMPLATES = "classes.txt", "templates.txt"
_LABELS = ("label", "class")


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each."""

    name: str  # of the source
    images: Sequence[Path]  # N files
    labels: npt.NDArray[np.int64]  # (N,) class of each image, 0 … C-1
    classes: tuple[str, ...]  # C names
    templates: tuple[str, ...]  # prompts with ``{}`` for the class name; empty: use those of the model
    query_ids: tuple[str, ...]  # N; a pair of the memory with the same id is hidden from that query

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(source: str | Path, *, templates: Sequence[str] = ()) -> Labelled:
    """Read labelled images.

    - A folder with one folder of images per class. ``classes.txt`` in it may list the display names of the sorted class
      folders, one per line.
    - A ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class), and optionally query_id or id. The
      options ``image``, ``label`` and ``id`` name other columns; ``images`` names the folder of the images.

    ``templates.txt`` in the folder, or beside the table, may list the templates.

    ``templates`` replace those of the source.

    Raises:
        DataError: the source is missing, has no classes or a row without a label; the message names file and row.
        ConfigError: a template without ``{}``, or an unknown option.
    """
    where, given = parse_source(source), check_templates(templates)
    path = where.path
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return _from_table(where, given or _templates(path.parent))
    where.check_options()
    if path.is_dir():
        return _from_folders(path, given or _templates(path))
    problem = f"{path} is not a labelled set" if path.exists() else describe_missing_file(path)
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
    return Labelled(folder.name, images, labels, tuple(classes), templates, tuple(relative_names(folder, images)))


def _from_table(where: Location, templates: tuple[str, ...]) -> Labelled:
    where.check_options("id", "image", "label", "images")
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
    """The value of the first of these columns that the row has."""
    column = next((name for name in columns if name in row.values), None)
    if column is None:
        raise row.error(columns[0], f"missing or empty; this row has {sorted(row.values)}")
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(column, f"expected a text or a whole number, got {value!r:.60}")
    return str(value)


def _image(row: TableRow, column: str, folder: Path) -> Path:
    try:
        image = parse_image(row.values[column], folder)
    except CellError as error:
        raise row.error(column, error) from None
    if not isinstance(image, Path):
        raise row.error(column, "is no file: download images behind URLs first, for example by img2dataset")
    return image


def _templates(folder: Path) -> tuple[str, ...]:
    """The templates of a folder; none without ``templates.txt``."""
    path = folder / _TEMPLATES
    lines = read_lines(path) if path.is_file() else []
    if bad := [line for line in lines if fill(line, "") == line]:
        raise DataError(f"{path}: template {bad[0]!r} has no {{}} where the class name goes")
    return tuple(lines)
