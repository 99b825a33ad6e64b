"""Captions of COCO, Karpathy's splits and Flickr30k, and the files of their images.

``captions_val2017.json`` (Chen et al., 2015, arXiv:1504.00325) has a list of images and one of annotations.
``dataset_coco.json`` (Karpathy and Fei-Fei, 2015, https://cs.stanford.edu/people/karpathy/deepimagesent/) has one list,
in which an image has its sentences and its split. Flickr30k's own files (Young et al., 2014) have a caption a line::

    1000092795.jpg#0<TAB>Two young guys with shaggy hair look at their hands .     (results_20130124.token)
    image_name| comment_number| comment                                             (results.csv)
    1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError
from ..types import Pair
from .cells import CellError, text_of
from .rows import FilePart, Rejected, Rows
from .source import Location, find_images, read_lines, read_text

FLICKR = "image_name|"
"""Start of a ``.csv`` of Flickr30k."""
_IMAGES_PER_PART = 1000
_T = TypeVar("_T")
_KARPATHY_FOLDERS = ("images", "flickr30k-images", "flickr30k_images", "Flickr8k_Dataset")
_TOKEN = re.compile(r"(?P<image>[^\t#]+)#(?P<number>\d+)\t\s*(?P<text>.+)")
_CSV = re.compile(r"(?P<image>[^|]+?)\s*\|\s*(?P<number>\d+)\s*\|?\s*(?P<text>.+)")  # one row of the original lacks a |
_FOLDERS = ("flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images")


@dataclass(frozen=True)
class CaptionedFile:
    """An image file with its captions."""

    name: str  # file name in the data set; its id
    path: Path
    captions: tuple[str, ...]  # empty for a distractor

    @property
    def caption_ids(self) -> tuple[str, ...]:
        """An id for each caption, as Flickr30k writes them: ``1000092795.jpg#0``."""
        return tuple(f"{self.name}#{number}" for number in range(len(self.captions)))


def locate(source: Location, captions: dict[str, tuple[str, ...]], folders: Sequence[str]) -> list[CaptionedFile]:
    """Find the image files of a caption file.

    Args:
        source: the caption file; its option ``images`` is the folder of the images, ``captions`` the number to keep of
            each image.
        captions: image file -> its captions.
        folders: names of folders to try, beside the caption file and one level up, without ``images``.
    """
    if not any(captions.values()):
        raise DataError(f"{source.name} holds no image with a caption")
    beside = source.path.parent
    tried = [base / folder for base in (beside, beside.parent) for folder in (*folders, ".")]
    if source.images is not None:
        tried = [source.images]
    first = next(iter(captions))
    folder = next((folder for folder in tried if (folder / first).is_file()), None)
    if folder is None:
        looked = ", ".join(map(str, tried))
        raise DataError(f"{source.name}: the image {first!r} is not in {looked}; give their folder with ?images=DIR")
    most = source.count("captions")
    files = [CaptionedFile(name, folder / name, texts[:most]) for name, texts in captions.items()]
    if missing := [file.path for file in files if not file.path.is_file()]:
        raise DataError(f"{missing[0]} does not exist ({len(missing):,} of {len(files):,} images are missing)")
    return files


def read_coco(source: Location) -> list[CaptionedFile]:
    """Read a JSON of captions, COCO's or Karpathy's, whichever it is.

    Options: ``images`` (a folder; found in the usual places when left out), ``captions=N`` (the first N of each
    image), and for Karpathy's files ``split`` (test when left out; several with a comma; all).
    """
    path = source.path
    try:
        stored = json.loads(read_text(path))
        if isinstance(stored, list):
            raise DataError(f"{path} is a JSON array: write its rows into a .jsonl, an object a line")
        images = stored["images"]
        if "annotations" in stored:
            source.only("images", "captions", "limit")
            name = path.stem.removeprefix("captions_")  # captions_val2017 -> val2017
            found = _coco_captions(path, images, stored["annotations"])
            return locate(source, found, (name, f"images/{name}", "images"))
        source.only("images", "captions", "limit", "split")
        return locate(source, _karpathy_captions(source, images), _KARPATHY_FOLDERS)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is neither COCO's captions (images with id and file_name, annotations with image_id and caption) "
            f"nor Karpathy's (images with filename, split and sentences): {type(error).__name__} {error}"
        ) from None


def _coco_captions(path: Path, images: Any, annotations: Any) -> dict[str, tuple[str, ...]]:
    names = {image["id"]: image["file_name"] for image in images}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for note in annotations:
        if note["image_id"] not in names:
            raise DataError(
                f"{path}: annotation {note.get('id')} is of the image {note['image_id']}, which is not listed"
            )
        found[names[note["image_id"]]].append(_text(path, note["caption"]))
    return {name: tuple(texts) for name, texts in found.items()}


def _karpathy_captions(source: Location, images: Any) -> dict[str, tuple[str, ...]]:
    chosen = source.options.get("split", "test").split(",")
    splits = dict.fromkeys(image["split"] for image in images)
    if unknown := [split for split in chosen if split not in splits and split != "all"]:
        raise DataError(f"{source.name} has no split {unknown[0]!r}: choose from {', '.join(splits)} or all")
    return {
        "/".join(filter(None, (image.get("filepath"), image["filename"]))): tuple(
            _text(source.path, sentence["raw"]) for sentence in image["sentences"]
        )
        for image in images
        if image["split"] in chosen or "all" in chosen
    }


def _text(path: Path, caption: Any) -> str:
    if not isinstance(caption, str) or not caption.strip():
        raise DataError(f"{path}: the caption {caption!r:.60} is no text")
    return caption.strip()


def read_flickr(source: Location) -> list[CaptionedFile]:
    """Read a caption file of Flickr30k.

    Options: ``images`` (a folder; found in the usual places when left out), ``captions=N`` (the first N of each
    image), ``split=NAME`` (the images that ``NAME.txt`` beside the file lists, with or without suffix; all when left
    out).
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
    kept = found.keys() if split == "all" else _read_split(path, split, found)
    return locate(source, {name: tuple(text for _, text in sorted(found[name])) for name in kept}, _FOLDERS)


def _read_split(path: Path, split: str, found: dict[str, list[tuple[int, str]]]) -> list[str]:
    listing = path.with_name(f"{split}.txt")
    if not listing.is_file():
        raise DataError(f"{path.name} says nothing about splits, and {listing} does not exist: list the images there")
    by_name = {name: name for name in found} | {Path(name).stem: name for name in found}
    lines = read_lines(listing)
    if unknown := [line for line in lines if line not in by_name]:
        raise DataError(f"{listing} lists {unknown[0]!r}, of which {path.name} has no caption")
    return [by_name[line] for line in lines]


def open_captions(source: str, files: Sequence[CaptionedFile]) -> Rows:
    """Open images with captions, a pair for each caption, a thousand images in a part."""
    parts = tuple(
        FilePart(f"{source}, {len(some):,} images from {some[0].name!r}", partial(_read_captions, some))
        for some in _slices(files)
    )
    folder = files[0].path.parents[len(Path(files[0].name).parts) - 1]
    return Rows(source, parts, sum(len(file.captions) for file in files), folders=(folder,))


def _read_captions(files: Sequence[CaptionedFile]) -> Iterator[Pair]:
    for file in files:
        for id_, text in zip(file.caption_ids, file.captions, strict=True):
            yield Pair(id_, file.path, text, {"caption": text, "image": file.name})


def open_folder(folder: Path) -> Rows:
    """Open the images below a folder, each with a ``.txt`` of the same name, a thousand in a part."""
    names = [image.relative_to(folder).as_posix() for image in find_images(folder)]
    parts = tuple(
        FilePart(f"{folder}, {len(some):,} images from {some[0]!r}", partial(_read_images, folder, some))
        for some in _slices(names)
    )
    return Rows(str(folder), parts, len(names), folders=(folder,))


def _read_images(folder: Path, names: Sequence[str]) -> Iterator[Pair | Rejected]:
    for name in names:
        image = folder / name
        beside = image.with_suffix(".txt")
        if not beside.is_file():
            yield Rejected(str(image), f"there is no {beside.name!r} with its caption", name, half=True)
            continue
        try:
            text = text_of(read_text(beside))
        except CellError:
            yield Rejected(str(image), f"its caption {beside.name!r} is empty", name, half=True)
        except DataError as error:
            yield Rejected(str(image), str(error).replace(str(beside), repr(beside.name)), name)
        else:
            yield Pair(name, image, text, {"caption": text})


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _IMAGES_PER_PART] for start in range(0, len(items), _IMAGES_PER_PART))
