"""Nearly equal images: evaluation images to keep out of the memory, and near-duplicates among pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..data import read_labelled
from ..data.images import RemoteImage
from ..data.rows import Rejected, Rows
from ..data.source import parse_source
from ..errors import DataError, ImageError
from ..memory import Memory
from ..preparation import Preparation
from ..reco import Reco
from ..types import Search, Vectors
from ..values import check_vectors
from .prepare import make_chunks
from .source import is_memory, open_source

_AT_ONCE = 256


@dataclass(frozen=True)
class Near:
    """The nearest image to another one."""

    id: str  # of its pair
    similarity: float  # cosine of both images


@dataclass(frozen=True)
class Excluded:
    """Images that must not enter the memory."""

    ids: Sequence[str]  # E ids; pairs with one of these ids are excluded too
    vectors: Vectors  # (E, D) of their images

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.ids)

    def find(self, ids: Sequence[str], images: Vectors, threshold: float) -> list[Near | None]:
        """The excluded image that each of B pairs resembles: the one of its id, else the nearest above the threshold.

        Images are (B, D), the threshold is a cosine.
        """
        if not len(self.vectors):
            return [None] * len(ids)
        known, scores = self._names, images @ self.vectors.T  # (B, E)
        best = scores.argmax(axis=1)
        found: list[Near | None] = []
        for row, (id_, place) in enumerate(zip(ids, best.tolist(), strict=True)):
            similarity = float(scores[row, place])
            named = id_ if id_ in known else self.ids[place]
            found.append(Near(named, similarity) if id_ in known or similarity >= threshold else None)
        return found


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
    if np.issubdtype(images[0].dtype, np.floating):
        return check_vectors(np.stack(images), reco.encoder.dimension, "vectors of --exclude")
    return reco.encoder.arrays(images, "image")


def stored_neighbours(memory: Memory, images: Vectors, threshold: float, without: Collection[str]) -> list[Near | None]:
    """The nearest stored image of each of (B, D) images, above the threshold, which is a cosine.

    The ids of ``without`` are ignored, because they are about to be replaced.
    """
    if not len(images) or not memory.count():
        return [None] * len(images)
    exclude = [without] * len(images) if without else None
    found = memory.search(Search(images, by="image", read="image", k=1, exclude=exclude))
    return [
        Near(ids[0], float(similarity[0])) if ids and similarity[0] >= threshold else None
        for ids, similarity in zip(found.ids, found.similarity, strict=True)
    ]


class BatchNear:
    """Nearest images among the kept rows of a batch (B, D)."""

    def __init__(self, ids: Sequence[str], images: Vectors) -> None:
        self._ids, self._scores = ids, np.asarray(images @ images.T)  # (B, B)
        self._staying: list[int] = []

    def before(self, row: int, threshold: float) -> Near | None:
        """The nearest earlier row that is kept, above the threshold."""
        if not self._staying:
            return None
        scores = self._scores[row, self._staying]
        place = int(scores.argmax())
        return Near(self._ids[self._staying[place]], float(scores[place])) if scores[place] >= threshold else None

    def stay(self, row: int) -> None:
        """Keep a row: later rows are compared with it."""
        self._staying.append(row)
