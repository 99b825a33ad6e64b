"""Flickr30k's own caption files (Young et al., 2014): ``results_20130124.token`` and ``results.csv``.

::

    1000092795.jpg#0<TAB>Two young guys with shaggy hair look at their hands .     (.token)
    image_name| comment_number| comment                                             (.csv)
    1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from ..errors import DataError
from .captions import CaptionedFile, locate
from .files import read_lines
from .source import Source

_TOKEN = re.compile(r"(?P<image>[^\t#]+)#(?P<number>\d+)\t\s*(?P<text>.+)")
_CSV = re.compile(r"(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*\|?\s*(?P<text>.+)")  # one row of the original lacks a |
_FOLDERS = ("flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images")


def is_flickr(path: Path) -> bool:
    """Whether a file is Flickr30k's: a ``.token``, or a ``.csv`` that starts with its header."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return path.suffix.lower() == ".token"
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().lstrip("\ufeff").startswith("image_name|")


def read_flickr(source: Source) -> list[CaptionedFile]:
    """Read a caption file of Flickr30k.

    Options: ``images`` (a folder; found in the usual places when left out), ``captions=N`` (the first N of each
    image), ``split=NAME`` (the images that ``NAME.txt`` beside the file lists, with or without suffix; all when left
    out).

    Raises:
        DataError: a line of another form, no such split, or images that are not there.
        ConfigError: an unknown option.
    """
    source.only("images", "captions", "limit", "split")
    path, split = source.path, source.options.get("split", "all")
    lines, form = read_lines(path), _TOKEN
    if path.suffix.lower() == ".csv":
        lines, form = lines[1:], _CSV
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        match = form.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}, caption {number}: {line[:80]!r} is not 'image#number<TAB>caption' or 'image|number|caption'"
            )
        found[match["image"]].append((int(match["number"]), match["text"]))
    kept = found.keys() if split == "all" else _listed(path, split, found)
    return locate(source, {name: tuple(text for _, text in sorted(found[name])) for name in kept}, _FOLDERS)


def _listed(path: Path, split: str, found: dict[str, list[tuple[int, str]]]) -> list[str]:
    listing = path.with_name(f"{split}.txt")
    if not listing.is_file():
        raise DataError(f"{path.name} says nothing about splits, and {listing} does not exist: list the images there")
    by_name = {name: name for name in found} | {Path(name).stem: name for name in found}
    lines = read_lines(listing)
    if unknown := [line for line in lines if line not in by_name]:
        raise DataError(f"{listing} lists {unknown[0]!r}, of which {path.name} has no caption")
    return [by_name[line] for line in lines]
