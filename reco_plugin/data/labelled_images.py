"""Labelled images as they lie in folders, one per class, and in clip-benchmark's shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .classes import find_unseen, read_class_names, read_templates
from .files import find_images, find_shards
from .labelled import Labelled, check_labels
from .shards import Blob, BlobImages, read_samples


def read_class_folders(folder: Path, templates: tuple[str, ...]) -> Labelled:
    """Read a folder that has one folder of images per class.

    Raises:
        DataError: no images, a class without any, or names that do not fit.
    """
    members = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [find_images(member) for member in members]
    if not any(found):
        raise DataError(f"{folder} holds no folder with images (jpg, jpeg, png, webp): make one per class")
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
    """Read webdataset shards: an image and a ``.cls`` per key, class names beside the shards or above.

    Raises:
        DataError: an image without a class, or labels outside of the classes.
    """
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
