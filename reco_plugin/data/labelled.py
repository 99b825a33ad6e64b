"""Labelled images for zero-shot classification: raw images with class names, or vectors with prompt vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..types import ImageInput, Vectors
from .classes import TEMPLATES, fill, read_class_names, read_templates
from .columns import Columns, check_rows, check_side, is_vectors, read_columns, texts_of, write_columns
from .files import find_images, find_shards, names_shards
from .shards import Blob, BlobImages, read_samples


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        labels: (N,) class of each image, 0 … C-1.
        classes: C names.
        templates: prompts with ``{}`` (or clip-benchmark's ``{c}``) where the class name goes.
        prompts: (C, D) unit-norm vectors of the classes; None where classes are embedded through the templates.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
        groups: (N,) what belongs together when confidence intervals are drawn; None: the class.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] = TEMPLATES
    prompts: Vectors | None = None
    query_ids: tuple[str, ...] | None = None
    groups: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_labelled(source: str | Path, *, templates: Sequence[str] = ()) -> Labelled:
    """Read a labelled set.

    - a folder with one folder of images per class; display names of the sorted class folders in ``classes.txt`` or
      ``classnames.txt`` (one a line) or ``classnames.json`` (a list, or folder -> name);
    - webdataset shards as clip-benchmark has them: ``KEY.jpg|jpeg|png|webp`` with ``KEY.cls`` (a number),
      ``classnames.txt`` beside the shards or in the folder above;
    - vectors: ``.npz``, or ``X.parquet`` with ``X.prompts.parquet``; see :func:`write_labelled`.

    Templates are read from ``zeroshot_classification_templates.txt`` or ``templates.txt`` in the same places.

    Args:
        source: file, folder or pattern.
        templates: used instead of the source's own.

    Raises:
        DataError: nothing there, no classes, labels outside of the classes; it names file and row or key.
        ConfigError: a template without a place for the class name, or templates for vectors.
        MissingExtra: parquet without pyarrow.
    """
    chosen = tuple(templates)
    for template in chosen:
        if fill(template, "") == template:
            raise ConfigError(f"template {template!r} has no {{}} where the class name goes")
    path = Path(source)
    if is_vectors(path):
        if chosen:
            raise ConfigError(f"{path} holds prompt vectors already: templates cannot change them, leave them out")
        return _from_vectors(path)
    if names_shards(source):
        return _from_shards(source, chosen)
    if path.is_dir():
        return _from_folder(path, chosen)
    problem = "does not exist" if not path.exists() else "is no labelled set"
    raise DataError(f"{path} {problem}: give a folder with one folder per class, .tar shards, .npz or .parquet")


def write_labelled(path: str | Path, labelled: Labelled) -> None:
    """Write a labelled set of vectors.

    Into ``.npz`` go ``image`` (N, D), ``label`` (N,), ``prompts`` (C, D), ``classes`` (C,) and, where given,
    ``query_id`` (N,) and ``group`` (N,). For ``X.parquet`` the columns ``prompt`` and ``class`` go to
    ``X.prompts.parquet``.

    Raises:
        DataError: raw images, no prompt vectors, or no way to write there.
        MissingExtra: parquet without pyarrow.
    """
    target = Path(path)
    if not isinstance(labelled.images, np.ndarray) or labelled.prompts is None or not is_vectors(target):
        raise DataError(f"{target} takes vectors of images and of prompts only, and must end in .npz or .parquet")
    rows: Columns = {"image": labelled.images, "label": labelled.labels}
    if labelled.query_ids is not None:
        rows["query_id"] = np.array(labelled.query_ids, np.str_)
    if labelled.groups is not None:
        rows["group"] = labelled.groups
    names = np.array(labelled.classes, np.str_)
    if target.suffix.lower() == ".npz":
        write_columns(target, rows | {"prompts": labelled.prompts, "classes": names})
    else:
        write_columns(_prompts_file(target), {"prompt": labelled.prompts, "class": names})
        write_columns(target, rows)


def _from_vectors(path: Path) -> Labelled:
    if path.suffix.lower() == ".npz":
        columns = read_columns(path, ("image", "label", "prompts"))
        source, name, prompts, names = path, "prompts", columns["prompts"], columns.get("classes")
    else:
        columns = read_columns(path, ("image", "label"))
        source, name = _prompts_file(path), "prompt"
        extra = read_columns(source, ("prompt",))
        prompts, names = extra["prompt"], extra.get("class")
    image = check_side(path, "image", columns["image"])
    checked = check_side(source, name, prompts, image.shape[1])
    check_rows(path, columns, len(image), [n for n in ("label", "query_id", "group") if n in columns])
    if names is not None and len(names) != len(checked):
        raise DataError(f"{source}: {len(names)} class names for {len(checked)} prompts; give one each, in order")
    return Labelled(
        name=path.name,
        images=image,
        labels=_check_labels(f"{path}: label", columns["label"].tolist(), len(checked)),
        classes=tuple(map(str, range(len(checked))) if names is None else texts_of(source, "class names", names)),
        templates=(),
        prompts=checked,
        query_ids=tuple(texts_of(path, "query_id", columns["query_id"])) if "query_id" in columns else None,
        groups=columns.get("group"),
    )


def _prompts_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}.prompts{path.suffix}")


def _from_folder(folder: Path, templates: tuple[str, ...]) -> Labelled:
    members = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [find_images(member) for member in members]
    if not any(found):
        raise DataError(f"{folder} holds no folder with images (jpg, jpeg, png, webp): make one per class")
    if not all(found):
        empty = members[next(row for row, images in enumerate(found) if not images)]
        raise DataError(f"{empty} holds no images: remove this class or give it some")
    images = [image for part in found for image in part]
    return Labelled(
        name=folder.name,
        images=images,
        labels=np.repeat(np.arange(len(found)), [len(part) for part in found]).astype(np.int64),
        classes=read_class_names([folder], [member.name for member in members]),
        templates=templates or read_templates([folder]),
        query_ids=tuple(image.relative_to(folder).as_posix() for image in images),
    )


def _from_shards(source: str | Path, templates: tuple[str, ...]) -> Labelled:
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
        images=BlobImages(sample.image for sample in samples if sample.image is not None),
        labels=_check_labels(f"{source}: .cls", [_number(s.parts["cls"]) for s in samples], len(classes)),
        classes=classes,
        templates=templates or read_templates(beside),
        query_ids=tuple(sample.key for sample in samples),
    )


def _number(blob: Blob) -> int:
    text = blob.text()
    if not text.isdecimal():
        raise DataError(f"{blob.shard}, member {blob.name!r}: expected the number of a class, got {text[:40]!r}")
    return int(text)


def _check_labels(where: str, values: Sequence[Any], classes: int) -> npt.NDArray[np.int64]:
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            raise DataError(f"{where}[{row}] is {value!r}, expected a whole number from 0 to {classes - 1}")
    return np.array(values, np.int64)
