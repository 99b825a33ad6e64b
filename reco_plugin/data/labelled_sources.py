"""Read labelled sets: folders, one per class; clip-benchmark's shards; your own catalogue as a table; all others.

CUB-200-2011 (Wah et al., 2011) and data sets in its layout are::

    images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    image_class_labels.txt   1 1
    classes.txt              1 001.Black_footed_Albatross
    train_test_split.txt     1 0        (1 is training)
    images/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..types import Pair
from ..values import did_you_mean
from .columns import is_vectors
from .images import spread_over_classes
from .labelled import (
    TEMPLATES,
    Labelled,
    check_labels,
    check_templates,
    clean_name,
    fill,
    find_unseen,
    has_class_names,
    read_class_names,
    read_templates,
    read_unseen,
    read_vectors,
)
from .rows import FilePart, Rejected, Rows
from .shards import Blob, blob_images, read_samples
from .source import (
    IMAGE_SUFFIXES,
    ColumnNames,
    Location,
    find_images,
    find_shards,
    names_shards,
    not_there,
    parse_source,
    read_lines,
)
from .tables import SUFFIXES, TableFile, TableRow
from .torchvision_sets import PREFIX, read_torchvision

_IMAGES, _LABELS, _CLASSES, _SPLIT = "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt"
_SPLITS: Mapping[str, tuple[str, ...]] = {"test": ("0",), "train": ("1",), "all": ("0", "1")}


def is_cub(folder: Path) -> bool:
    """Whether a folder has the layout's lists of images and of labels."""
    return (folder / _IMAGES).is_file() and (folder / _LABELS).is_file()


def read_cub(source: Location, templates: tuple[str, ...]) -> Labelled:
    """Read a folder in the layout of CUB-200-2011; the option ``split`` is test (the default), train or all.

    The id of an image is its path below ``images``.
    """
    source.only("split", "limit")
    folder, split = source.path, source.options.get("split", "test")
    if split not in _SPLITS:
        raise DataError(f"{folder} has no split {split!r}: choose from {', '.join(_SPLITS)}")
    images, labels, names = (_read_list(folder / name) for name in (_IMAGES, _LABELS, _CLASSES))
    parts = _read_list(folder / _SPLIT) if split != "all" else dict.fromkeys(images, "0")
    number = {key: row for row, key in enumerate(names)}
    for key, name in images.items():
        if key not in parts or labels.get(key) not in number:
            raise DataError(
                f"{folder}: image {key} ({name}) has the class {labels.get(key)!r} and the part {parts.get(key)!r}; "
                f"{_LABELS} must have a class of {_CLASSES} for it, and {_SPLIT} 0 or 1"
            )
    chosen = [key for key in images if parts[key] in _SPLITS[split]]
    if not chosen:
        raise DataError(f"{folder}: {_SPLIT} puts no image into the split {split!r}")
    paths = [folder / "images" / images[key] for key in chosen]
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(f"{missing[0]} does not exist ({len(missing):,} of {len(paths):,} images are missing)")
    classes = tuple(map(clean_name, names.values()))
    return Labelled(
        name=f"{folder.name} {split}",
        images=paths,
        labels=np.array([number[labels[key]] for key in chosen], np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=tuple(images[key] for key in chosen),
        unseen=find_unseen([folder], classes),
    )


def _read_list(path: Path) -> dict[str, str]:
    """Read a list with ``number value`` a line, in order."""
    found: dict[str, str] = {}
    for row, line in enumerate(read_lines(path), 1):
        key, blank, value = line.partition(" ")
        if not blank or key in found:
            problem = "comes twice" if blank else "has no value"
            raise DataError(f"{path}, entry {row}: {line!r} must be 'number value', and the number {problem}")
        found[key] = value.strip()
    if not found:
        raise DataError(f"{path} is empty")
    return found


_LABEL_COLUMNS = ("label", "class")
_TEXTS = ("id", "image", "query_id", *_LABEL_COLUMNS)


def read_class_folders(folder: Path, templates: tuple[str, ...]) -> Labelled:
    """Read a folder with one folder of images per class."""
    members = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [find_images(member) for member in members]
    if not any(found):
        raise DataError(f"{folder} holds no folder with images ({', '.join(IMAGE_SUFFIXES)}): make one per class")
    if not all(found):
        empty = members[next(row for row, images in enumerate(found) if not images)]
        raise DataError(f"{empty} holds no images: remove this class or give it some")
    images = [image for part in found for image in part]
    classes = read_class_names([folder], [member.name for member in members])
    return Labelled(
        name=folder.name,
        images=images,
        labels=np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=tuple(image.relative_to(folder).as_posix() for image in images),
        unseen=find_unseen([folder], classes),
    )


def read_labelled_shards(source: str | Path, templates: tuple[str, ...]) -> Labelled:
    """Read webdataset shards: an image and a ``.cls`` per key, class names beside the shards or in the folder above."""
    shards = find_shards(source)
    beside = [shards[0].parent, shards[0].resolve().parent.parent]
    samples = [sample for sample in read_samples(shards) if sample.image is not None]
    unlabelled = next((sample.key for sample in samples if "cls" not in sample.parts), None)
    if not samples or unlabelled is not None:
        what = "images" if not samples else f"label for the image {unlabelled!r}"
        raise DataError(f"{source} holds no {what}: every key needs an image and a .cls with the number of its class")
    classes = read_class_names(beside, None)
    return Labelled(
        name=str(source),
        images=blob_images([sample.image for sample in samples if sample.image is not None]),
        labels=check_labels(f"{source}: .cls", [_number(s.parts["cls"]) for s in samples], len(classes)),
        classes=classes,
        templates=templates or read_templates(beside),
        query_ids=tuple(sample.key for sample in samples),
        unseen=find_unseen(beside, classes),
    )


def _number(blob: Blob) -> int:
    text = blob.text()
    if not text.isdecimal():
        raise DataError(f"{blob.shard}, member {blob.name!r}: expected the number of a class, got {text[:40]!r}")
    return int(text)


def read_labelled_table(where: Location, templates: tuple[str, ...]) -> Labelled:
    """Read a table with a row per image: image, label or class, and optionally query_id (or id) and group.

    Options of the source name other columns (``id``, ``image``, ``label``), and the folder of the images (``images``).

    Classes are those of ``classes.txt`` (or ``classnames.txt``, ``.json``) beside the table, of which a label is a
    name or a number from 0; without such a file they are the labels, in order of first appearance.
    """
    folder = where.path.parent
    rows = _rows_of(where)
    values = [_label(row, where.options.get("label")) for row in rows]
    if has_class_names([folder]):
        classes = read_class_names([folder], None)
        labels = [_find(row, value, classes) for row, value in zip(rows, values, strict=True)]
    else:
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        classes, labels = tuple(numbers), [numbers[value] for value in values]
    grouped = [row for row in rows if "group" in row.values]
    if grouped and len(grouped) < len(rows):
        first = next(row for row in rows if "group" not in row.values)
        raise first.error("group", "empty, while other rows have one: give every row a group, or none")
    return Labelled(
        name=where.path.name,
        images=[row.image for row in rows],
        labels=np.array(labels, np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=tuple(_text(row, "query_id") if "query_id" in row.values else row.id for row in rows),
        groups=np.array([str(row.values["group"]) for row in rows]) if grouped else None,
        unseen=find_unseen([folder], classes),
    )


def _rows_of(where: Location) -> list[TableRow]:
    where.only("limit", "id", "image", "label", "images")
    own = {name: where.options[name] for name in ("id", "image", "label") if name in where.options}
    names = ColumnNames(**{name: column for name, column in own.items() if name != "label"})
    needed = dict.fromkeys([names.image, *own.values()])
    rows = list(TableFile(where.path, names, tuple(needed), _TEXTS, where.images))
    if not rows:
        raise DataError(f"{where.path} has no rows")
    return rows


def _label(row: TableRow, named: str | None) -> str:
    column = named or next((name for name in _LABEL_COLUMNS if name in row.values), None)
    if column is None:
        raise row.error(
            "label",
            f"missing or empty, and so is 'class'; name yours as in ?label=NAME; this row has {sorted(row.values)}",
        )
    return _text(row, column)


def _text(row: TableRow, column: str) -> str:
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(column, f"expected a text or a whole number, got {value!r:.60}")
    return str(value)


def _find(row: TableRow, value: str, classes: tuple[str, ...]) -> int:
    if value in classes:
        return classes.index(value)
    if value.isascii() and value.isdecimal() and int(value) < len(classes):
        return int(value)
    raise row.error("label", f"{value!r} is no class of the file beside the table; {did_you_mean(value, classes)}")


def read_labelled(source: str | Path, *, templates: Sequence[str] = (), unseen: str | Path | None = None) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; display names of the sorted class folders in ``classes.txt`` or
      ``classnames.txt`` (one a line) or ``classnames.json`` (a list, or folder -> name);
    - the folder of CUB-200-2011 (``images.txt``, ``image_class_labels.txt``, …), ``?split=test|train|all``;
    - ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class), see :func:`read_labelled_table`;
    - webdataset shards as clip-benchmark has them: ``KEY.jpg`` or another image, with ``KEY.cls`` (a number),
      ``classnames.txt`` beside the shards or in the folder above;
    - ``torchvision:NAME?root=DIR&split=test``, see :func:`~reco_plugin.data.torchvision_sets.read_torchvision`;
    - vectors: ``.npz``, or ``X.parquet`` with ``X.prompts.parquet``; see :func:`write_labelled`.

    Templates are read from ``zeroshot_classification_templates.txt`` or ``templates.txt`` in the same places, unseen
    classes from ``unseen.txt``. The option ``?limit=N`` keeps N images, evenly from all classes; classes stay.

    Args:
        source: file, folder, pattern or ``torchvision:NAME``, with options behind a question mark.
        templates: used instead of the source's own.
        unseen: a file with the names of unseen classes, one a line; used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, labels outside of the classes; the message names file and row or key.
        ConfigError: a template without a place for the class name, templates for vectors, or an unknown option.
        MissingExtra: parquet without pyarrow, or torchvision without torchvision.
    """
    where = parse_source(source)
    labelled = _read(where, check_templates(templates))
    if templates:
        labelled = replace(labelled, templates_from="caller")
    if unseen is not None:
        labelled = replace(labelled, unseen=read_unseen(Path(unseen), labelled.classes))
    limit = where.count("limit")
    return labelled if limit is None else labelled.take(spread_over_classes(labelled.labels, limit))


def _read(where: Location, templates: tuple[str, ...]) -> Labelled:
    path = where.path
    if where.name.startswith(PREFIX):
        return read_torchvision(where, templates)
    if is_cub(path):
        return read_cub(where, templates)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return read_labelled_table(where, templates)
    where.only("limit")
    if is_vectors(path):
        if templates:
            raise ConfigError(f"{path} holds prompt vectors already: templates have no effect, leave them out")
        return read_vectors(path)
    if names_shards(where.name):
        return read_labelled_shards(where.name, templates)
    if path.is_dir():
        return read_class_folders(path, templates)
    problem = f"{path} is no labelled set" if path.exists() else not_there(path)
    raise DataError(
        f"{problem}: give a folder with one folder per class, a table, .tar shards, .npz, .parquet or {PREFIX}NAME"
    )


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
            text = fill(template, labelled.classes[label])
            id_ = labelled.query_ids[row] if labelled.query_ids is not None else str(row)
            try:
                image = labelled.images[row]
            except DataError as error:
                yield Rejected(f"{labelled.name}, image {row}", str(error), id_)
            else:
                yield Pair(id_, image, text, {"caption": text, "class": labelled.classes[label]})


def open_labelled(where: Location) -> Rows:
    """Open a labelled set as pairs."""
    options = "&".join(f"{name}={value}" for name, value in where.options.items())
    source = f"{where.name}?{options}" if options else where.name
    rows = _LabelledRows(source)
    return Rows(where.name, (FilePart(source, rows),), len(rows.labelled))
