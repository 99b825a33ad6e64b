"""Labelled images for zero-shot classification: the set, the names and templates of its classes, and all its readers.

Folders, one per class; your own catalogue as a table; torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import ImageInput, Pair
from ..values import TEMPLATES, check_templates, did_you_mean, fill
from .cells import CellError, image_of
from .images import pick, spread_over_classes
from .rows import FilePart, Rejected, Rows
from .source import (
    IMAGE_SUFFIXES,
    PREFIX,
    Location,
    clean_name,
    find_images,
    names_in,
    not_there,
    parse_source,
    read_lines,
)
from .tables import SUFFIXES, TableFile, TableRow
from .torchvision_sets import open_torchvision

_CLASS_FILES = ("classnames.txt", "classes.txt")
_TEMPLATE_FILES = ("zeroshot_classification_templates.txt", "templates.txt")
_LABELS = ("label", "class")


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each.

    Attributes:
        name: of the source.
        images: N images.
        labels: (N,) class of each image, 0 … C-1.
        classes: C names.
        templates: prompts with ``{}`` (or clip-benchmark's ``{c}``) where the class name goes; empty: those of
            the model.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
    """

    name: str
    images: Sequence[ImageInput]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] = ()
    query_ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Labelled:
        """Select images by row (M,), in this order; all classes stay, raw images stay unopened."""
        ids = None if self.query_ids is None else tuple(self.query_ids[row] for row in rows)
        return replace(self, images=pick(self.images, rows), labels=self.labels[rows], query_ids=ids)


def read_labelled(source: str | Path, *, templates: Sequence[str] = ()) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; display names of the sorted class folders in ``classes.txt`` or
      ``classnames.txt`` (one a line);
    - ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class), and optionally query_id or id, by
      these names or those of the options ``image``, ``label`` and ``id``; ``images`` is the folder of the images. A
      label is a name or number of ``classes.txt`` beside the table; without that file, the name itself;
    - ``torchvision:NAME?root=DIR&split=test``, see :func:`~reco_plugin.data.torchvision_sets.open_torchvision`.

    Templates are read from ``zeroshot_classification_templates.txt`` or ``templates.txt`` in the same places. The
    option ``?limit=N`` keeps N images, evenly from all classes; classes stay.

    Args:
        source: file, folder, pattern or ``torchvision:NAME``, with options behind a question mark.
        templates: used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, labels outside of the classes; the message names file and row or key.
        ConfigError: a template without a place for the class name, or an unknown option.
        MissingExtra: torchvision without torchvision.
    """
    where = parse_source(source)
    labelled = _read(where)
    labelled = replace(labelled, templates=check_templates(templates) or labelled.templates)
    limit = where.count("limit")
    return labelled if limit is None else labelled.take(spread_over_classes(labelled.labels, limit))


def _read(where: Location) -> Labelled:
    path = where.path
    if where.name.startswith(PREFIX):
        return _from_torchvision(where)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return _from_table(where)
    where.only("limit")
    if path.is_dir():
        return _from_folders(path)
    problem = f"{path} is no labelled set" if path.exists() else not_there(path)
    raise DataError(f"{problem}: give a folder with one folder per class, a table or {PREFIX}NAME")


def _from_folders(folder: Path) -> Labelled:
    members = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [find_images(member) for member in members]
    if not found or not all(found):
        empty = next((member for member, images in zip(members, found, strict=True) if not images), folder)
        raise DataError(f"{empty} holds no images ({', '.join(IMAGE_SUFFIXES)}): each class is a folder of images")
    images = [image for part in found for image in part]
    labels = np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64)
    classes = _class_names([folder], [member.name for member in members])
    return Labelled(folder.name, images, labels, classes, _templates([folder]), tuple(names_in(folder, images)))


def _from_table(where: Location) -> Labelled:
    where.only("limit", "id", "image", "label", "images")
    names = {option: where.options.get(option, option) for option in ("id", "image")}
    named = [where.options[option] for option in ("id", "label") if option in where.options]
    rows = list(TableFile(where.path, tuple(dict.fromkeys([names["image"], *named]))).good_rows())
    if not rows:
        raise DataError(f"{where.path} has no rows")
    columns = [where.options["label"]] if "label" in where.options else _LABELS
    values = [_first(row, columns) for row in rows]
    folder = where.path.parent
    if _find([folder], _CLASS_FILES) is not None:
        classes = _class_names([folder], None)
        known = {str(number): number for number in range(len(classes))}
        known |= {name: number for number, name in reversed(list(enumerate(classes)))}
        labels = [_class_of(row, value, known) for row, value in zip(rows, values, strict=True)]
    else:
        classes = tuple(dict.fromkeys(values))
        labels = [classes.index(value) for value in values]
    ids = tuple(_first(row, ("query_id", names["id"], names["image"])) for row in rows)
    images = [_image(row, names["image"], where.images or folder) for row in rows]
    return Labelled(where.path.name, images, np.array(labels, np.int64), classes, _templates([folder]), ids)


def _class_of(row: TableRow, value: str, known: dict[str, int]) -> int:
    if value not in known:
        raise row.error("label", f"{value!r} is no class: {did_you_mean(value, known)}")
    return known[value]


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


def _from_torchvision(where: Location) -> Labelled:
    found = open_torchvision(where)
    classes = _class_names(found.folders, found.classes)
    labels = _checked(f"{where.name}: label", found.labels, len(classes))
    return Labelled(found.name, found.images, labels, classes, _templates(found.folders), found.ids)


def _checked(where: str, values: Sequence[Any], classes: int) -> npt.NDArray[np.int64]:
    """Labels (N,); a message starts with ``where``, the file and its array."""
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            raise DataError(f"{where}[{row}] is {value!r}, expected a whole number from 0 to {classes - 1}")
    return np.array(values, np.int64)


def _find(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _templates(folders: Sequence[Path]) -> tuple[str, ...]:
    """The templates of the first of these folders that has any; else none."""
    path = _find(folders, _TEMPLATE_FILES)
    lines = read_lines(path) if path is not None else []
    if bad := [line for line in lines if fill(line, "") == line]:
        raise DataError(f"{path}: template {bad[0]!r} has no {{}} or {{c}} where the class name goes")
    return tuple(lines)


def _class_names(folders: Sequence[Path], members: Sequence[str] | None) -> tuple[str, ...]:
    """The display names of the classes, from the first of these folders that has any.

    Args:
        folders: where to look.
        members: class folders in order, whose names are used where there is no file; None: a file is required.
    """
    path = _find(folders, _CLASS_FILES)
    if path is None:
        if members is None:
            raise DataError(f"{' and '.join(map(str, folders))} have no {_CLASS_FILES[0]}: write one class name a line")
        return tuple(map(clean_name, members))
    names = read_lines(path)
    if not names or (members is not None and len(names) != len(members)):
        wanted = "at least one" if members is None else f"{len(members)}, one for each class folder in sorted order"
        raise DataError(f"{path} has {len(names)} class names, expected {wanted}")
    return tuple(names)


class _LabelledRows:
    """The rows of a labelled set, which is read once; the text is the class name in the first template."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[type[_LabelledRows], tuple[str]]:
        return _LabelledRows, (self.source,)  # the set itself is opened again

    @cached_property
    def labelled(self) -> Labelled:
        return read_labelled(self.source)

    def __call__(self) -> Iterator[Pair | Rejected]:
        labelled = self.labelled
        template = (labelled.templates or TEMPLATES)[0]
        for row, label in enumerate(labelled.labels.tolist()):
            name = labelled.classes[label]
            text, id_ = fill(template, name), labelled.query_ids[row] if labelled.query_ids else str(row)
            try:
                image = labelled.images[row]
            except DataError as error:
                yield Rejected(f"{labelled.name}, image {row}", str(error), id_)
            else:
                yield Pair(id_, image, text, {"caption": text, "class": name})


def open_labelled(where: Location) -> Rows:
    """Open a labelled set as pairs."""
    rows = _LabelledRows(str(where))
    return Rows(where.name, (FilePart(str(where), rows),), len(rows.labelled))
