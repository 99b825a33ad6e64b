"""Class names and prompt templates of a labelled set."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..values import did_you_mean
from .files import read_lines, read_text

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
    """Read the templates of the first of these folders that has any; else none.

    Raises:
        DataError: a line has no place for the class name.
    """
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

    Raises:
        DataError: no names, or not one for each class folder.
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

    Raises:
        DataError: no names, or unknown ones, with the nearest known names.
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
