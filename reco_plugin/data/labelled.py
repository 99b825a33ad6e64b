"""Labelled images for zero-shot classification: the set, the names and templates of its classes, its files of vectors.

Such a file is an ``.npz``, or ``X.parquet`` with the classes in ``X.prompts.parquet``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..types import ImageInput, Vectors
from ..values import did_you_mean
from .columns import (
    ColumnArrays,
    ColumnValues,
    check_rows,
    check_side,
    is_vectors,
    read_columns,
    texts_of,
    write_columns,
)
from .images import pick
from .source import read_lines, read_text

TEMPLATES = ("a photo of a {}.",)
"""CLIP's own: used when caller, source and model give none."""
_CLASS_FILES = ("classnames.txt", "classes.txt", "classnames.json")
_TEMPLATE_FILES = ("zeroshot_classification_templates.txt", "templates.txt")
_NUMBERED = re.compile(r"\d{3}\.(?=\D)")


def fill(template: str, name: str) -> str:
    """Put a class name into a template.

    >>> fill("a photo of a {}.", "fox"), fill("a drawing of {c}", "foxes")
    ('a photo of a fox.', 'a drawing of foxes')
    """
    return template.replace("{c}", name).replace("{}", name)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Check templates; returns a tuple.

    Raises:
        ConfigError: a template has no place for the class name.
    """
    for template in templates:
        if fill(template, "") == template:
            raise ConfigError(f"template {template!r} has no {{}} where the class name goes")
    return tuple(templates)


def clean_name(name: str) -> str:
    """Make a readable class name of a folder name of CUB or Caltech-256.

    >>> clean_name("001.Black_footed_Albatross")
    'Black footed Albatross'
    """
    return _NUMBERED.sub("", name, count=1).replace("_", " ").strip()


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
        return tuple(name.replace("_", " ") for name in members)
    names = _json_names(path, members) if path.suffix == ".json" else read_lines(path)
    if not names or (members is not None and len(names) != len(members)):
        wanted = "at least one" if members is None else f"{len(members)}, one for each class folder in sorted order"
        raise DataError(f"{path} has {len(names)} class names, expected {wanted}")
    return tuple(names)


def _json_names(path: Path, members: Sequence[str] | None) -> list[str]:
    try:
        stored = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if isinstance(stored, dict) and members is not None:
        if missing := [name for name in members if name not in stored]:
            raise DataError(f"{path} names no class for the folder {missing[0]!r}")
        stored = [stored[name] for name in members]
    if not isinstance(stored, list) or not all(isinstance(name, str) for name in stored):
        raise DataError(f"{path} must be a list of class names, or an object folder -> class name")
    return stored


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
    ``query_id`` (N,), ``group`` (N,) and ``unseen`` (C,). For ``X.parquet`` the columns ``prompt``, ``class`` and
    ``unseen`` go to ``X.prompts.parquet``.

    Raises:
        DataError: raw images, no prompt vectors, or the file cannot be written.
        MissingExtra: parquet without pyarrow.
    """
    target = Path(path)
    if not isinstance(labelled.images, np.ndarray) or labelled.prompts is None or not is_vectors(target):
        raise DataError(f"{target} takes vectors of images and of prompts only, and must end in .npz or .parquet")
    rows: ColumnArrays = {"image": labelled.images, "label": labelled.labels}
    if labelled.query_ids is not None:
        rows["query_id"] = np.array(labelled.query_ids, np.str_)
    if labelled.groups is not None:
        rows["group"] = labelled.groups
    names = np.array(labelled.classes, np.str_)
    unseen = {} if labelled.unseen is None else {"unseen": labelled.unseen}
    if target.suffix.lower() == ".npz":
        write_columns(target, rows | {"prompts": labelled.prompts, "classes": names} | unseen)
    else:
        write_columns(_prompts_file(target), {"prompt": labelled.prompts, "class": names} | unseen)
        write_columns(target, rows)


def read_vectors(path: Path) -> Labelled:
    """Read a file of :func:`write_labelled`."""
    if path.suffix.lower() == ".npz":
        columns = read_columns(path, ("image", "label", "prompts"))
        source, name, extra = path, "prompts", columns
        names = columns.get("classes")
    else:
        columns = read_columns(path, ("image", "label"))
        source, name = _prompts_file(path), "prompt"
        extra = read_columns(source, ("prompt",))
        names = extra.get("class")
    image = check_side(path, "image", columns["image"])
    checked = check_side(source, name, extra[name], image.shape[1])
    check_rows(path, columns, len(image), ["label", "query_id", "group"])
    if names is not None and len(names) != len(checked):
        raise DataError(f"{source}: {len(names)} class names for {len(checked)} prompts; give one each, in order")
    return Labelled(
        name=path.name,
        images=image,
        labels=check_labels(f"{path}: label", columns["label"].tolist(), len(checked)),
        classes=tuple(map(str, range(len(checked))) if names is None else texts_of(source, "class names", names)),
        templates=(),
        prompts=checked,
        query_ids=tuple(texts_of(path, "query_id", columns["query_id"])) if "query_id" in columns else None,
        groups=columns.get("group"),
        unseen=None if "unseen" not in extra else check_unseen(source, extra["unseen"], len(checked)),
    )


def check_unseen(source: Path, values: ColumnValues, classes: int) -> npt.NDArray[np.bool_]:
    """Check the array ``unseen`` of a file; (C,)."""
    if values.shape != (classes,):
        raise DataError(f"{source}: unseen has shape {values.shape}, expected ({classes},), one for each class")
    if values.dtype == np.bool_:
        return np.asarray(values)
    if wrong := [row for row, value in enumerate(values.tolist()) if not isinstance(value, bool)]:
        raise DataError(f"{source}: unseen[{wrong[0]}] is {values[wrong[0]]!r}, expected true or false")
    return values.astype(np.bool_)


def _prompts_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.prompts{path.suffix}")
