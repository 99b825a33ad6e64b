"""Vectors of evaluation images, to keep them out of the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..data import read_labelled
from ..data.remote import RemoteImage
from ..data.rows import Rejected, Rows
from ..data.source import parse_source
from ..errors import DataError, ImageError
from ..preparation import Preparation
from ..reco import Reco
from ..types import Vectors
from ..vectors import check_vectors
from .near import Excluded
from .source import is_memory, open_source
from .stages import make_chunks

_AT_ONCE = 256


def excluded_images(sources: Sequence[str], reco: Reco) -> Excluded | None:
    """The images of evaluation sets, pairs or labelled images; unreadable ones are skipped.

    Raises:
        DataError: a source that cannot be used, or without any image.
        ConfigError: a source is the memory that is filled.
        FingerprintMismatch: a memory of another encoder.
        MemoryStoreError: a memory that cannot be read.
    """
    if not sources:
        return None
    ids: list[str] = []
    vectors: list[Vectors] = [np.empty((0, reco.encoder.dimension), np.float32)]
    for source in sources:
        before = len(ids)
        for chunk in make_chunks(_usable(_images(source, reco), reco.encoder.preparation), _AT_ONCE):
            ids += [id_ for id_, _ in chunk]
            vectors.append(_vectors([image for _, image in chunk], reco))
        if len(ids) == before:
            raise DataError(f"--exclude {source}: it holds no image that can be read")
    return Excluded(ids, np.concatenate(vectors))


def _images(source: str, reco: Reco) -> Iterator[tuple[str, Any]]:
    """Ids and images, neither decoded nor fetched: of pairs, else of labelled images."""
    if is_memory(parse_source(source)):
        yield from _read_pairs(open_source(source, model=reco.settings.model, into=reco.settings))
        return
    unpaired: DataError | None = None
    found = False
    try:
        for pair in _read_pairs(open_source(source)):
            found = True
            yield pair
    except DataError as error:
        unpaired = error
    if found and unpaired is None:
        return
    try:
        labelled = read_labelled(source)
    except DataError as error:
        raise unpaired or error from None
    names = labelled.query_ids or [f"{source}#{row}" for row in range(len(labelled))]
    yield from ((name, labelled.images[row]) for row, name in enumerate(names))


def _read_pairs(rows: Rows) -> Iterator[tuple[str, Any]]:
    return ((row.id, row.image) for row in rows if not isinstance(row, Rejected))


def _usable(images: Iterator[tuple[str, Any]], preparation: Preparation) -> Iterator[tuple[str, Any]]:
    """Each readable image as pixels (H, W, 3), or as its vector (D,)."""
    for id_, image in images:
        try:
            raw = image.read() if isinstance(image, RemoteImage) else image
            yield id_, raw if isinstance(raw, np.ndarray) else preparation.image(raw).array
        except (ImageError, DataError, OSError):
            continue


def _vectors(images: Sequence[Any], reco: Reco) -> Vectors:
    if images[0].ndim == 1:
        return check_vectors(np.stack(images), reco.encoder.dimension, "vectors of --exclude")
    return reco.encoder.images(np.stack(images))
