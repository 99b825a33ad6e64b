"""Your own catalogue as a labelled set: a table with the columns image and label (or class)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .classes import find_unseen, has_class_names, read_class_names, read_templates
from .labelled import Labelled
from .nearest import did_you_mean
from .tables import Row, Table

_LABELS = ("label", "class")
_TEXTS = ("id", "image", "query_id", *_LABELS)


def read_labelled_table(path: Path, templates: tuple[str, ...]) -> Labelled:
    """Read a table with a row per image: image, label or class, and optionally query_id (or id) and group.

    Classes are those of ``classes.txt`` (or ``classnames.txt``, ``.json``) beside the table, of which a label is a
    name or the number from 0; without such a file they are the labels, in order of first appearance.

    Raises:
        DataError: a row without image or label, a label that is no class, a group in some rows only.
    """
    folder = path.parent
    rows = list(Table(path, needed=("image",), texts=_TEXTS))
    if not rows:
        raise DataError(f"{path} has no rows")
    values = [_label(row) for row in rows]
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
        name=path.name,
        images=[row.image for row in rows],
        labels=np.array(labels, np.int64),
        classes=classes,
        templates=templates or read_templates([folder]),
        query_ids=tuple(_text(row, "query_id") if "query_id" in row.values else row.id for row in rows),
        groups=np.array([str(row.values["group"]) for row in rows]) if grouped else None,
        unseen=find_unseen([folder], classes),
    )


def _label(row: Row) -> str:
    column = next((name for name in _LABELS if name in row.values), None)
    if column is None:
        raise row.error("label", f"missing or empty, and so is 'class'; this row has {sorted(row.values)}")
    return _text(row, column)


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise row.error(column, f"expected a text or a whole number, got {value!r:.60}")
    return str(value)


def _find(row: Row, value: str, classes: tuple[str, ...]) -> int:
    if value in classes:
        return classes.index(value)
    if value.isascii() and value.isdecimal() and int(value) < len(classes):
        return int(value)
    raise row.error("label", f"{value!r} is no class of the file beside the table; {did_you_mean(value, classes)}")
