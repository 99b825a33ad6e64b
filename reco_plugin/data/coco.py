"""Captions in JSON: COCO's own files, and Karpathy's splits of COCO, Flickr30k and Flickr8k.

``captions_val2017.json`` (Chen et al., 2015, arXiv:1504.00325) has a list of images and one of annotations.
``dataset_coco.json`` (Karpathy and Fei-Fei, 2015, https://cs.stanford.edu/people/karpathy/deepimagesent/) has one list,
in which an image has its sentences and its split.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError
from .captions import CaptionedFile, locate
from .files import read_text
from .source import Source

_KARPATHY_FOLDERS = ("images", "flickr30k-images", "flickr30k_images", "Flickr8k_Dataset")


def read_coco(source: Source) -> list[CaptionedFile]:
    """Read a JSON of captions, COCO's or Karpathy's, whichever it is.

    Options: ``images`` (a folder; found in the usual places when left out), ``captions=N`` (the first N of each
    image), and for Karpathy's files ``split`` (test when left out; several with a comma; all).

    Raises:
        DataError: no such JSON, an unknown split, or images that are not there.
        ConfigError: an unknown option.
    """
    path = source.path
    try:
        stored = json.loads(read_text(path))
        images = stored["images"]
        if "annotations" in stored:
            source.only("images", "captions", "limit")
            return locate(source, _coco_captions(path, images, stored["annotations"]), _coco_folders(path))
        source.only("images", "captions", "limit", "split")
        return locate(source, _karpathy_captions(source, images), _KARPATHY_FOLDERS)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is neither COCO's captions (images with id and file_name, annotations with image_id and caption) "
            f"nor Karpathy's (images with filename, split and sentences): {type(error).__name__} {error}"
        ) from None


def _coco_folders(path: Path) -> tuple[str, ...]:
    name = path.stem.removeprefix("captions_")  # captions_val2017 -> val2017
    return (name, f"images/{name}", "images")


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


def _karpathy_captions(source: Source, images: Any) -> dict[str, tuple[str, ...]]:
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
