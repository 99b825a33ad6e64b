"""Image-text pairs from wherever they lie, one by one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..types import Pair
from .captions import CaptionedFile
from .classes import fill
from .coco import read_coco
from .columns import count_rows, is_vectors
from .cub import is_cub
from .embeddings import read_records
from .files import find_images, find_shards, names_shards, read_text
from .flickr import is_flickr, read_flickr
from .images import spread
from .labelled import Labelled
from .labelled_sources import read_labelled
from .shards import Sample, read_samples
from .source import Source, parse_source
from .tables import SUFFIXES, Row, Table
from .torchvision_sets import PREFIX

CAPTIONS = tuple(f"captions{suffix}" for suffix in SUFFIXES)
_NOT_SHOWN = ("caption", "exif", "error_message", "status", "key")  # of img2dataset's json: no payload


class PairStream(Iterator[Pair]):
    """Pairs, read when they are asked for.

    Attributes:
        total: how many there are in all, where that is cheap to know, else None.
    """

    def __init__(self, pairs: Iterator[Pair], total: int | None) -> None:
        self._pairs, self.total = pairs, total

    def __next__(self) -> Pair:
        return next(self._pairs)


def read_pairs(source: str | Path) -> PairStream:
    """Read image-text pairs.

    ====================================  ==========================================================================
    source                                pairs
    ====================================  ==========================================================================
    ``.jsonl`` ``.csv`` ``.tsv``          a row each: image (a path relative to the table), text, optional id (else
                                          the path); further columns are payload
    folder with ``captions.csv|tsv|jsonl``  the rows of that table
    folder of images                      an image and the ``.txt`` of the same name; id: path in the folder
    ``.tar``, folder of them, patterns    webdataset: jpg, jpeg, png or webp with txt or json (caption); id: the key
    ``.json`` ``.token``                  captions of COCO or Flickr30k, with the options of
                                          ``read_retrieval``; ids: ``IMAGE#0`` and so on
    ``torchvision:NAME`` folder of CUB    images, with the class name in the first template as
                                          text; choose ``?split=train``
    ``.npz`` ``.parquet``                 vectors, see :mod:`reco_plugin.data.embeddings`
    ====================================  ==========================================================================

    The text also becomes the payload value ``caption``, so that what is retrieved can be shown. Images or captions
    that stand alone in folders and shards are skipped, and counted in a warning at the end.

    Raises:
        DataError: nothing there, no pair in it, or something unreadable; it names file and row or key. Problems of
            the first pair are raised by this call, later ones where they occur.
        MissingExtra: parquet without pyarrow.
    """
    pairs, total = _open(source)
    first = next(pairs, None)
    if first is None:
        raise DataError(f"{source} holds no pairs: it is empty")
    return PairStream(chain([first], pairs), total)


def _open(source: str | Path) -> tuple[Iterator[Pair], int | None]:
    where = parse_source(source)
    path = where.path
    if where.name.startswith(PREFIX) or is_cub(path):
        labelled = read_labelled(source)
        return _labelled_pairs(labelled), len(labelled)
    if path.suffix.lower() == ".json" or is_flickr(path):
        files = _caption_files(where)
        return _file_pairs(files), sum(len(file.captions) for file in files)
    where.only()
    table = caption_table(path)
    if table is None and names_shards(source):
        return _sample_pairs(source), None
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if is_vectors(path):
        return _vector_pairs(path), count_rows(path)
    if table is not None or path.suffix.lower() in SUFFIXES:
        rows = Table(table or path)
        return map(_row_pair, rows), len(rows)
    if path.is_dir():
        images = find_images(path)
        return _image_pairs(path, images), len(images)
    raise DataError(
        f"{path} is of no kind that pairs are read from: give .jsonl, .csv, .tsv, .tar, .npz, .parquet or a folder"
    )


def caption_table(folder: Path) -> Path | None:
    """The table ``captions.csv``, ``.tsv`` or ``.jsonl`` of a folder, if there is one."""
    return next((folder / name for name in CAPTIONS if (folder / name).is_file()), None)


def _row_pair(row: Row) -> Pair:
    text = row.values["text"]
    if not isinstance(text, str):
        raise row.error("text", f"expected one caption, got {text!r:.60}; write one row per caption")
    payload = {name: value for name, value in row.values.items() if name not in ("id", "image", "text")}
    return Pair(row.id, row.image, text, {"caption": text} | payload)


def _labelled_pairs(labelled: Labelled) -> Iterator[Pair]:
    template = labelled.templates[0]
    for row, label in enumerate(labelled.labels.tolist()):
        text = fill(template, labelled.classes[label])
        id_ = labelled.query_ids[row] if labelled.query_ids is not None else str(row)
        yield Pair(id_, labelled.images[row], text, {"caption": text, "class": labelled.classes[label]})


def _caption_files(where: Source) -> list[CaptionedFile]:
    files = read_coco(where) if where.path.suffix.lower() == ".json" else read_flickr(where)
    limit = where.count("limit")
    return files if limit is None else [files[row] for row in spread(len(files), limit)]


def _file_pairs(files: list[CaptionedFile]) -> Iterator[Pair]:
    for file in files:
        for id_, text in zip(file.caption_ids, file.captions, strict=True):
            yield Pair(id_, file.path, text, {"caption": text})


def _vector_pairs(path: Path) -> Iterator[Pair]:
    for records in read_records(path):
        for columns in zip(records.ids, records.image, records.text, records.payloads, strict=True):
            yield Pair(*columns)


@dataclass
class _Count:
    """Pairs that were made and things that stood alone, and where."""

    source: str | Path
    what: str
    made: int = 0
    alone: int = 0
    example: str = ""

    def skip(self, name: str) -> None:
        self.alone += 1
        self.example = self.example or name

    def report(self) -> None:
        """Fail when there was no pair, warn when something was skipped."""
        if self.made == 0 and self.alone:
            raise DataError(f"{self.source} holds no pairs: none of {self.alone:,} {self.what}, as {self.example!r}")
        if self.alone:
            message = f"{self.source}: skipped {self.alone:,} {self.what}, the first is {self.example!r}"
            warnings.warn(message, stacklevel=2)


def _image_pairs(folder: Path, images: list[Path]) -> Iterator[Pair]:
    if not images:
        raise DataError(f"{folder} holds no images (jpg, jpeg, png, webp), no .tar and no {' | '.join(CAPTIONS)}")
    count = _Count(folder, "images without a caption in a .txt of the same name")
    for image in images:
        name, beside = image.relative_to(folder).as_posix(), image.with_suffix(".txt")
        text = read_text(beside).strip() if beside.is_file() else ""
        if text:
            count.made += 1
            yield Pair(name, image, text, {"caption": text})
        else:
            count.skip(name)
    count.report()


def _sample_pairs(source: str | Path) -> Iterator[Pair]:
    count = _Count(source, "keys without both an image and a caption")
    for sample in read_samples(find_shards(source)):
        fields = _json_fields(sample)
        text = sample.parts["txt"].text() if "txt" in sample.parts else str(fields.get("caption") or "").strip()
        if sample.image is None or not text:
            count.skip(sample.key)
            continue
        count.made += 1
        shown = {k: v for k, v in fields.items() if k not in _NOT_SHOWN and v is not None}
        yield Pair(sample.key, sample.image.read(), text, {"caption": text} | shown)
    count.report()


def _json_fields(sample: Sample) -> dict[str, Any]:
    if "json" not in sample.parts:
        return {}
    blob = sample.parts["json"]
    try:
        fields = json.loads(blob.text())
    except ValueError as error:
        raise DataError(f"{blob.shard}, member {blob.name!r} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise DataError(f"{blob.shard}, member {blob.name!r} is not a JSON object: {blob.text()[:60]!r}")
    return fields
