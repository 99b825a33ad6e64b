"""Frozen vectors of a set, encoded where it holds raw images or texts; and the same, refined.

An encoder may keep its vectors in a folder, so that a second run on the same data encodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from ..data import Captioned, EntitySet, Labelled
from ..encode import Progress
from ..errors import ConfigError, MemoryStoreError
from ..files import digest_images, digest_texts
from ..reco import Reco
from ..request import RefineHow, RefineKeywords
from ..score import Refines
from ..types import Coverage, Fingerprint, ImageInput, Modality, Moves, Refinement, Role, Vectors
from .stored import stored_vectors
from .task import TaskItems

_QUERIES = 4096  # per call, which holds the vectors of all their neighbours: 80 MiB at K=10, D=512


class Encodes(Protocol):
    """A frozen CLIP."""

    def images(self, images: Sequence[ImageInput], progress: Progress) -> Vectors:
        """Encode N items; (N, D) unit-norm."""
        ...

    def texts(self, texts: Sequence[str], progress: Progress) -> Vectors:
        """Encode N items; (N, D) unit-norm."""
        ...


def silent(_: int) -> None:
    """No progress."""


def image_vectors(reco: Refines, images: Sequence[ImageInput] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (N, D) of images; vectors are returned unchanged.

    Raises:
        ConfigError: raw images and no encoder.
    """
    return images if isinstance(images, np.ndarray) else encoder_of(reco, "images").images(images, progress)


def text_vectors(reco: Refines, texts: Sequence[str] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (M, D) of texts; vectors are returned unchanged.

    Raises:
        ConfigError: raw texts and no encoder.
    """
    return texts if isinstance(texts, np.ndarray) else encoder_of(reco, "texts").texts(texts, progress)


def refine_queries(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine queries (N, D), some thousand at a time: they do not depend on one another."""

    def refine_rows(rows: slice) -> Refinement:
        hidden = None if items.own is None else items.own[rows]
        return _check_refined(reco.refine(items.vectors[rows], modality=items.modality, exclude=hidden, **options))

    parts = [refine_rows(slice(start, start + _QUERIES)) for start in range(0, len(items.vectors), _QUERIES)]
    coverages = [part.coverage for part in parts if part.coverage is not None]
    vectors, moving = np.concatenate([part.vectors for part in parts]), [part.moves for part in parts]
    moves = (
        Moves.join([part for part in moving if part is not None]) if all(part is not None for part in moving) else None
    )
    return replace(items, vectors=vectors, coverage=Coverage.join(coverages) if coverages else None, moves=moves)


def refine_candidates(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine candidates (C, D), all in one call: they compete, so they are refined as a set."""
    found = _check_refined(
        reco.refine(items.vectors, modality=items.modality, role="candidate", exclude=items.own, **options)
    )
    return replace(items, vectors=found.vectors, coverage=found.coverage, moves=found.moves)


def _check_refined(result: Refinement) -> Refinement:
    """Refuse a degraded refinement: the figures would not show that its vectors are frozen."""
    if result.degraded:
        raise MemoryStoreError(
            f"refinement failed ({result.degraded}), and only refined vectors are measured here: "
            "see the warning above, or open the model with on_memory_failure='fail'"
        )
    return result


def count_items(labelled: Labelled) -> int:
    """Count the items to encode; a set without templates counts with one."""
    raw = 0 if isinstance(labelled.images, np.ndarray) else len(labelled.images)
    return raw + (len(labelled.classes) * max(1, len(labelled.templates)) if labelled.prompts is None else 0)


def count_captioned(captioned: Captioned) -> int:
    """Count the items to encode."""
    return sum(len(side) for side in (captioned.images, captioned.texts) if not isinstance(side, np.ndarray))


def count_entities(entity_set: EntitySet) -> int:
    """Count the items to encode."""
    raw = 0 if isinstance(entity_set.images, np.ndarray) else len(entity_set)
    return raw + (len(entity_set.entities) if entity_set.vectors() is None else 0)


def encoder_of(reco: Refines, what: str) -> Encodes:
    """The frozen CLIP that encodes raw images and texts.

    Raises:
        ConfigError: there is none.
    """
    encoder: Encodes | None = getattr(reco, "encoder", None)
    if encoder is None:
        raise ConfigError(f"the set holds {what}, not vectors, and there is no encoder: open a model")
    return encoder


def templates_of(encoder: Encodes | None) -> tuple[str, ...]:
    """The prompts that an encoder was trained with; empty where not known."""
    templates: tuple[str, ...] = getattr(encoder, "templates", ())
    return templates


@dataclass(frozen=True)
class CachedEncoder:
    """Encodes what the folder does not hold yet; vectors are kept as float32, bit for bit.

    A file is named after the encoder's digest and the contents of all images or texts, in order: a set that was changed
    is encoded again, one that was moved is not. Files may be deleted at any time.
    """

    encoder: Encodes
    fingerprint: Fingerprint  # of the encoder
    folder: Path  # of the files; made when missing

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts that the CLIP was trained with."""
        return templates_of(self.encoder)

    def images(self, images: Sequence[ImageInput], progress: Progress = silent) -> Vectors:
        """Encode images, or read their vectors; (N, D) unit-norm."""
        path = self._path("image", digest_images(images))
        return self._encode_once(path, len(images), lambda rows: self.encoder.images(images[rows], progress), progress)

    def texts(self, texts: Sequence[str], progress: Progress = silent) -> Vectors:
        """Encode texts, or read their vectors; (N, D) unit-norm."""
        path = self._path("text", digest_texts(texts))
        return self._encode_once(path, len(texts), lambda rows: self.encoder.texts(texts[rows], progress), progress)

    def stream(
        self, texts: Callable[[], Iterator[str]], count: int, progress: Progress = silent
    ) -> npt.NDArray[np.floating[Any]]:
        """Encode texts by the million into a memory-mapped float16 file; parts that exist are kept.

        Args:
            texts: returns an iterator over all texts, anew at each call.
            count: N.
            progress: called with the number of items of each batch, also of those that were encoded before.

        Returns:
            (N, D) float16, unit-norm up to rounding; :class:`.ranking.Blocks` makes that exact.
        """
        path = self._path("names", digest_texts(texts()))
        shape, encode = (count, self.fingerprint.dimension), self._reader(texts(), progress)
        return stored_vectors(path, shape, encode, dtype=np.float16, already=progress)

    def _reader(self, texts: Iterator[str], progress: Progress) -> Callable[[slice], Vectors]:
        position = 0

        def encode(rows: slice) -> Vectors:
            nonlocal position
            skipped, position = rows.start - position, rows.stop
            return self.encoder.texts(list(islice(texts, skipped, skipped + rows.stop - rows.start)), progress)

        return encode

    def _path(self, what: str, digest: str) -> Path:
        return self.folder / self.fingerprint.digest[:16] / f"{what}-{digest[:32]}.npy"

    def _encode_once(self, path: Path, count: int, encode: Callable[[slice], Vectors], progress: Progress) -> Vectors:
        stored = stored_vectors(path, (count, self.fingerprint.dimension), encode, already=progress)
        return np.asarray(stored, np.float32)


@dataclass(frozen=True)
class CachingReco:
    """A model with cached frozen vectors; refinement is not cached, since it depends on the memory."""

    reco: Reco
    folder: Path  # of the vectors

    @property
    def encoder(self) -> CachedEncoder:
        """The frozen CLIP with its cache."""
        return CachedEncoder(self.reco.encoder, self.reco.manifest.fingerprint, self.folder)

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineKeywords]
    ) -> Refinement:
        """See :meth:`reco_plugin.reco.Reco.refine`."""
        return self.reco.refine(vectors, modality=modality, role=role, **options)
