"""Labelled sets of vectors: ``.npz``, or ``X.parquet`` with the classes in ``X.prompts.parquet``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
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
from .labelled import Labelled, check_labels


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
    """Read a file of :func:`write_labelled`.

    Raises:
        DataError: not readable, or inconsistent arrays; the message names file, array and row.
        MissingExtra: parquet without pyarrow.
    """
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
    check_rows(path, columns, len(image), [n for n in ("label", "query_id", "group") if n in columns])
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
    """Check the array ``unseen`` of a file; (C,).

    Raises:
        DataError: another shape, or values that are not true or false.
    """
    if values.shape != (classes,):
        raise DataError(f"{source}: unseen has shape {values.shape}, expected ({classes},), one for each class")
    if values.dtype == np.bool_:
        return np.asarray(values)
    if wrong := [row for row, value in enumerate(values.tolist()) if not isinstance(value, bool)]:
        raise DataError(f"{source}: unseen[{wrong[0]}] is {values[wrong[0]]!r}, expected true or false")
    return values.astype(np.bool_)


def _prompts_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.prompts{path.suffix}")
