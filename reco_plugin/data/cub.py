"""CUB-200-2011 (Wah et al., 2011) and data sets in its layout.

::

    images.txt               1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    image_class_labels.txt   1 1
    classes.txt              1 001.Black_footed_Albatross
    train_test_split.txt     1 0        (1 is training)
    images/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError
from .classes import clean_name, find_unseen, read_templates
from .files import read_lines
from .labelled import Labelled
from .source import Location

_IMAGES, _LABELS, _CLASSES, _SPLIT = "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt"
_SPLITS: Mapping[str, tuple[str, ...]] = {"test": ("0",), "train": ("1",), "all": ("0", "1")}


def is_cub(folder: Path) -> bool:
    """Whether a folder has the layout's lists of images and of labels."""
    return (folder / _IMAGES).is_file() and (folder / _LABELS).is_file()


def read_cub(source: Location, templates: tuple[str, ...]) -> Labelled:
    """Read a folder in the layout of CUB-200-2011; the option ``split`` is test (the default), train or all.

    The id of an image is its path below ``images``.

    Raises:
        DataError: a list is missing, damaged or disagrees with the others; no image of this split.
        ConfigError: an unknown option.
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
