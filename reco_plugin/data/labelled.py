"""Labelled images for zero-shot classification: the set, the names and templates of its classes, and all its readers.

Folders, one per class; clip-benchmark's shards; your own catalogue as a table; torchvision's; vectors: an ``.npz``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..files import in_home
from ..types import ImageInput, Pair, Vectors
from ..values import TEMPLATES, check_templates, did_you_mean, fill
from .cells import CellError, image_of
from .columns import (
    ColumnArrays,
    ColumnValues,
    check_rows,
    check_side,
    read_columns,
    texts_of,
    write_columns,
)
from .images import pick, spread_over_classes
from .rows import FilePart, Rejected, Rows
from .shards import Blob, blob_images, read_samples
from .source import (
    IMAGE_SUFFIXES,
    PREFIX,
    Location,
    clean_name,
    find_images,
    find_shards,
    names_in,
    names_shards,
    not_there,
    parse_source,
    read_lines,
)
from .tables import SUFFIXES, TableFile, TableRow
from .torchvision_sets import open_torchvision

_CLASS_FILES = ("classnames.txt", "classes.txt")
_TEMPLATE_FILES = ("zeroshot_classification_templates.txt", "templates.txt")


def _find(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def read_templates(folders: Sequence[Path]) -> tuple[str, ...]:
    """Read the templates of the first of these folders that has any; else none."""
    path = _find(folders, _TEMPLATE_FILES)
    if path is None:
        return ()
    lines = read_lines(path)
    if bad := [line for line in lines if fill(line, "") == line]:
        raise DataError(f"{path}: template {bad[0]!r} has no {{}} or {{c}} where the class name goes")
    return tuple(lines)


def has_class_names(folders: Sequence[Path]) -> bool:
    """Whether one of these folders has a file that :func:`read_class_names` reads."""
    return _find(folders, _CLASS_FILES) is not None


def read_class_names(folders: Sequence[Path], members: Sequence[str] | None) -> tuple[str, ...]:
    """Read the display names of the classes from the first of these folders that has any.

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


def find_unseen(folders: Sequence[Path], classes: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Read ``unseen.txt`` of the first of these folders that has it, by :func:`read_unseen`, (C,); else None."""
    path = _find(folders, ("unseen.txt",))
    return None if path is None else read_unseen(path, classes)


def read_unseen(path: Path, classes: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Read the unseen classes of a study, (C,) True for each of them.

    The file has a name a line, as displayed or as in :func:`clean_name`; a name of several classes means all of them.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    loose: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(classes):
        rows[name].append(row)
        loose[clean_name(name).casefold()].append(row)
    names = read_lines(path)
    if not names:
        raise DataError(f"{path} names no class: write one a line, or remove the file")
    found = np.zeros(len(classes), np.bool_)
    for name in names:
        own = rows.get(name) or loose.get(clean_name(name).casefold())
        if own is None:
            raise DataError(f"{path}: no class is called {name!r}; {did_you_mean(name, rows)}")
        found[own] = True
    return found


TemplatesFrom: TypeAlias = Literal["caller", "source", "model", "default"]
"""Where templates are from; ``default``: CLIP's own."""


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        labels: (N,) class of each image, 0 … C-1.
        classes: C names.
        templates: prompts with ``{}`` (or clip-benchmark's ``{c}``) where the class name goes; empty: those of
            the model.
        templates_from: where the templates are from.
        prompts: (C, D) unit-norm vectors of the classes; None where classes are embedded through the templates.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
        groups: (N,) groups for confidence intervals; None: the class.
        unseen: (C,) True for unseen classes; None where not known.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] = ()
    prompts: Vectors | None = None
    query_ids: tuple[str, ...] | None = None
    groups: npt.NDArray[Any] | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    templates_from: TemplatesFrom = "source"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Labelled:
        """Select images by row (M,), in this order; all classes stay, raw images stay unopened."""
        return replace(
            self,
            images=pick(self.images, rows),
            labels=self.labels[rows],
            query_ids=None if self.query_ids is None else tuple(self.query_ids[row] for row in rows),
            groups=None if self.groups is None else self.groups[rows],
        )


def check_labels(where: str, values: Sequence[Any], classes: int) -> npt.NDArray[np.int64]:
    """Check labels; returns them as an array (N,). The message starts with ``where``, the file and its array."""
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            raise DataError(f"{where}[{row}] is {value!r}, expected a whole number from 0 to {classes - 1}")
    return np.array(values, np.int64)


def write_labelled(path: str | Path, labelled: Labelled) -> None:
    """Write a labelled set of vectors.

    Into ``.npz`` go ``image`` (N, D), ``label`` (N,), ``prompts`` (C, D), ``classes`` (C,) and, where given,
    ``query_id`` (N,), ``group`` (N,) and ``unseen`` (C,).

    Raises:
        DataError: raw images, no prompt vectors, a name without .npz, or the file cannot be written.
    """
    target = Path(path)
    if not isinstance(labelled.images, np.ndarray) or labelled.prompts is None or target.suffix.lower() != ".npz":
        raise DataError(f"{target} takes vectors of images and of prompts only, and must end in .npz")
    arrays: ColumnArrays = {"image": labelled.images, "label": labelled.labels, "prompts": labelled.prompts}
    arrays["classes"] = np.array(labelled.classes, np.str_)
    if labelled.query_ids is not None:
        arrays["query_id"] = np.array(labelled.query_ids, np.str_)
    more = {"group": labelled.groups, "unseen": labelled.unseen}
    write_columns(target, arrays | {name: values for name, values in more.items() if values is not None})


def read_vectors(path: Path) -> Labelled:
    """Read a file of :func:`write_labelled`."""
    columns = read_columns(path, ("image", "label", "prompts"))
    names, image = columns.get("classes"), check_side(path, "image", columns["image"])
    checked = check_side(path, "prompts", columns["prompts"], image.shape[1])
    check_rows(path, columns, len(image), ["label", "query_id", "group"])
    if names is not None and len(names) != len(checked):
        raise DataError(f"{path}: {len(names)} class names for {len(checked)} prompts; give one each, in order")
    return Labelled(
        name=path.name,
        images=image,
        labels=check_labels(f"{path}: label", columns["label"].tolist(), len(checked)),
        classes=tuple(map(str, range(len(checked))) if names is None else texts_of(path, "class names", names)),
        templates=(),
        prompts=checked,
        query_ids=tuple(texts_of(path, "query_id", columns["query_id"])) if "query_id" in columns else None,
        groups=columns.get("group"),
        unseen=None if "unseen" not in columns else check_unseen(path, columns["unseen"], len(checked)),
    )


def check_unseen(source: Path, values: ColumnValues, classes: int) -> npt.NDArray[np.bool_]:
    """Check the array ``unseen`` of a file; (C,)."""
    if values.shape != (classes,) or values.dtype != np.bool_:
        raise DataError(f"{source}: unseen is {values.dtype} of shape {values.shape}, expected bool of ({classes},)")
    return np.asarray(values)


_YES = {"true": True, "1": True, "false": False, "0": False}
_LABEL_COLUMNS = ("label", "class")


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
    query_ids = tuple(names_in(folder, images))
    classes = read_class_names([folder], [member.name for member in members])
    return Labelled(
        name=folder.name,
        images=images,
        labels=np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=query_ids,
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

    Classes are those of the option ``classes``, a table with their id, of which a label is one, their name, and
    optionally ``unseen``; else those of ``classes.txt`` (or ``classnames.txt``) beside the table, of which a
    label is a name or a number from 0; else they are the labels, in order of first appearance.
    """
    folder = where.path.parent
    rows = _rows_of(where)
    values = [_label(row, where.options.get("label")) for row in rows]
    unseen = None
    if "classes" in where.options:
        classes, number, unseen = read_class_table(in_home(where.options["classes"]))
        if (lost := next((at for at, value in enumerate(values) if value not in number), None)) is not None:
            raise rows[lost].error("label", f"{values[lost]!r} is the id of no class of {where.options['classes']}")
        labels = [number[value] for value in values]
    elif has_class_names([folder]):
        classes = read_class_names([folder], None)
        labels = [_class_of(row, value, classes) for row, value in zip(rows, values, strict=True)]
    else:
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        classes, labels = tuple(numbers), [numbers[value] for value in values]
    grouped = [row for row in rows if "group" in row.values]
    if grouped and len(grouped) < len(rows):
        first = next(row for row in rows if "group" not in row.values)
        raise first.error("group", "empty, while other rows have one: give every row a group, or none")
    return Labelled(
        name=where.path.name,
        images=[image_in(row, where) for row in rows],
        labels=np.array(labels, np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=tuple(id_in(row, where, "query_id") for row in rows),
        groups=np.array([str(row.values["group"]) for row in rows]) if grouped else None,
        unseen=find_unseen([folder], classes) if unseen is None else unseen,
    )


def read_class_table(path: Path) -> tuple[tuple[str, ...], dict[str, int], npt.NDArray[np.bool_] | None]:
    """Read a table with a row per class: id, name, and whether it is unseen, in all rows or in none.

    Returns:
        C names, the number of each id, and (C,) True for unseen classes; None where no row says it.
    """
    names, number, unseen = list[str](), dict[str, int](), list[bool]()
    for row in TableFile(path, ("id", "name")).good_rows():
        id_ = _text(row, "id")
        if id_ in number:
            raise row.error("id", f"{id_!r} comes twice")
        number[id_] = len(names)
        names.append(_text(row, "name"))
        if "unseen" in row.values:
            told = str(row.values["unseen"]).casefold()
            if told not in _YES:
                raise row.error("unseen", f"{row.values['unseen']!r:.60} is none of {', '.join(_YES)}")
            unseen.append(_YES[told])
    if not names:
        raise DataError(f"{path} has no rows")
    if len(unseen) not in (0, len(names)):
        raise DataError(f"{path} says unseen of {len(unseen):,} of {len(names):,} classes: say it of all, or of none")
    return tuple(names), number, np.array(unseen) if unseen else None


def _rows_of(where: Location) -> list[TableRow]:
    where.only("limit", "id", "image", "label", "images", "classes")
    own = {name: where.options[name] for name in ("id", "image", "label") if name in where.options}
    needed = dict.fromkeys([own.get("image", "image"), *own.values()])
    rows = list(TableFile(where.path, tuple(needed)).good_rows())
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


def image_in(row: TableRow, where: Location) -> Path:
    """The image file that a row names; any other kind of image is an error."""
    column = where.options.get("image", "image")
    try:
        image = image_of(row.values.get(column), where.images or row.path.parent)
    except CellError as error:
        raise row.error(column, error) from None
    if not isinstance(image, Path):
        raise row.error(column, "is no file: download images behind URLs first, for example by img2dataset")
    return image


def id_in(row: TableRow, where: Location, *preferred: str) -> str:
    """The id of a row: the first of these columns, else that of ids, else the path of its image."""
    image, id_ = where.options.get("image", "image"), where.options.get("id", "id")
    column = next(name for name in (*preferred, id_, image) if name in row.values)
    return _text(row, column)


def _text(row: TableRow, column: str) -> str:
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(column, f"expected a text or a whole number, got {value!r:.60}")
    return str(value)


def _class_of(row: TableRow, value: str, classes: tuple[str, ...]) -> int:
    if value in classes:
        return classes.index(value)
    if value.isascii() and value.isdecimal() and int(value) < len(classes):
        return int(value)
    raise row.error("label", f"{value!r} is no class of the file beside the table; {did_you_mean(value, classes)}")


def read_labelled(source: str | Path, *, templates: Sequence[str] = (), unseen: str | Path | None = None) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; display names of the sorted class folders in ``classes.txt`` or
      ``classnames.txt`` (one a line);
    - ``.jsonl``, ``.csv`` or ``.tsv`` with the columns image and label (or class), see :func:`read_labelled_table`;
    - webdataset shards as clip-benchmark has them: ``KEY.jpg`` or another image, with ``KEY.cls`` (a number),
      ``classnames.txt`` beside the shards or in the folder above;
    - ``torchvision:NAME?root=DIR&split=test``, see :func:`~reco_plugin.data.torchvision_sets.open_torchvision`;
    - vectors: ``.npz``, see :func:`write_labelled`.

    Templates are read from ``zeroshot_classification_templates.txt`` or ``templates.txt`` in the same places, unseen
    classes from ``unseen.txt``. The option ``?limit=N`` keeps N images, evenly from all classes; classes stay.

    Args:
        source: file, folder, pattern or ``torchvision:NAME``, with options behind a question mark.
        templates: used instead of the source's own.
        unseen: a file with the names of unseen classes, one a line; used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, labels outside of the classes; the message names file and row or key.
        ConfigError: a template without a place for the class name, templates for vectors, or an unknown option.
        MissingExtra: torchvision without torchvision.
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
        return _from_torchvision(where, templates)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return read_labelled_table(where, templates)
    where.only("limit")
    if path.suffix.lower() == ".npz":
        if templates:
            raise ConfigError(f"{path} holds prompt vectors already: templates have no effect, leave them out")
        return read_vectors(path)
    if names_shards(where.name):
        return read_labelled_shards(where.name, templates)
    if path.is_dir():
        return read_class_folders(path, templates)
    problem = f"{path} is no labelled set" if path.exists() else not_there(path)
    raise DataError(f"{problem}: give a folder with one folder per class, a table, .tar shards, .npz or {PREFIX}NAME")


def _from_torchvision(where: Location, templates: tuple[str, ...]) -> Labelled:
    found = open_torchvision(where)
    classes = read_class_names(found.folders, found.classes)
    return Labelled(
        name=found.name,
        images=found.images,
        labels=check_labels(f"{where.name}: label", found.labels, len(classes)),
        classes=classes,
        templates=templates or read_templates(found.folders),
        query_ids=found.ids,
        unseen=find_unseen(found.folders, classes),
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
    rows = _LabelledRows(str(where))
    return Rows(where.name, (FilePart(str(where), rows),), len(rows.labelled))
