"""Images to keep out of a memory, such as those of an evaluation, with their near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..defaults import SAME_IMAGE
from ..encoders.local import Preparation
from ..errors import DataError, ImageError
from ..reco import Reco
from ..sources import open_source, read_labelled
from ..sources.images import RemoteImage
from ..sources.rows import Rejected
from ..types import Vectors
from ..values import check_vectors
from .prepare import make_chunks

_BATCH = 256


@dataclass(frozen=True)
class Near:
    """An excluded image that is nearly equal to another one."""

    id: str  # of the excluded image
    similarity: float  # cosine of both images


@dataclass(frozen=True)
class ExcludedImages:
    """Images that must not enter the memory."""

    ids: Sequence[str]  # E ids, which are excluded as well
    vectors: Vectors  # (E, D) of their images

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.ids)

    def find(self, ids: Sequence[str], images: Vectors) -> list[Near | None]:
        """Find the excluded image that equals each of B images (B, D): by its id, else by similarity."""
        known, scores = self._names, images @ self.vectors.T  # (B, E)
        matches: list[Near | None] = []
        for row, (id_, place) in enumerate(zip(ids, scores.argmax(axis=1).tolist(), strict=True)):
            near = Near(id_ if id_ in known else self.ids[place], float(scores[row, place]))
            matches.append(near if id_ in known or near.similarity >= SAME_IMAGE else None)
        return matches


def excluded_images(sources: Sequence[str], reco: Reco, *, allow_private: bool = False) -> ExcludedImages | None:
    """Encode the images of sources of pairs or of labelled images; unreadable images are skipped.

    Raises:
        DataError: a source cannot be read, or has no readable image.
    """
    if not sources:
        return None
    ids: list[str] = []
    vectors: list[Vectors] = []
    for source in sources:
        before = len(ids)
        usable = _usable(_images(source, reco), reco.encoder.preparation, allow_private)
        for chunk in make_chunks(usable, _BATCH):
            ids += [id_ for id_, _ in chunk]
            vectors.append(_vectors([image for _, image in chunk], reco))
        if len(ids) == before:
            raise DataError(f"--exclude {source}: it holds no image that can be read")
    return ExcludedImages(ids, np.concatenate(vectors))


def _images(source: str, reco: Reco) -> Iterator[tuple[str, Any]]:
    """Ids and images of pairs, else of labelled images; nothing is decoded or fetched."""
    has_pairs, unpaired = False, None
    try:
        for row in open_source(source, model=reco.settings.model):
            if not isinstance(row, Rejected):
                has_pairs = True
                yield row.id, row.image
    except DataError as error:
        unpaired = error
    if has_pairs and unpaired is None:
        return
    try:
        labelled = read_labelled(source)
    except DataError as error:
        raise unpaired or error from None
    yield from zip(labelled.query_ids, labelled.images, strict=True)


def _usable(
    images: Iterator[tuple[str, Any]], preparation: Preparation, allow_private: bool
) -> Iterator[tuple[str, Any]]:
    """The readable images as pixels (H, W, 3) or as vectors (D,)."""
    for id_, image in images:
        try:
            remote = isinstance(image, RemoteImage)
            raw = replace(image, allow_private=allow_private).read() if remote else image
            yield id_, raw if isinstance(raw, np.ndarray) else preparation.image(raw).array
        except (ImageError, DataError, OSError):
            continue


def _vectors(images: Sequence[Any], reco: Reco) -> Vectors:
    if np.issubdtype(images[0].dtype, np.floating):
        return check_vectors(np.stack(images), reco.encoder.dimension, "vectors of --exclude")
    return reco.encoder.arrays(images, "image")
