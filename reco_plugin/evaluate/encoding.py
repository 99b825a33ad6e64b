"""Frozen vectors of a set, through the encoder where it holds raw images or texts; and the same, refined.

An encoder may look into a folder first, so that a second run on the same data encodes nothing.
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
from ..types import Coverage, Fingerprint, ImageInput, Modality, Refinement, Role, Vectors
from .stored import stored_vectors
from .task import TaskItems

_QUERIES = 4096  # per call, which holds the vectors of all their neighbours: 80 MiB at K=10, D=512


class Refines(Protocol):
    """Reco or Refiner. Only for raw images and texts, an attribute ``encoder`` is needed too."""

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        **options: Unpack[RefineKeywords],
    ) -> Refinement:
        """Refine (B, D) unit-norm vectors."""
        ...


class Encodes(Protocol):
    """A frozen CLIP."""

    def images(self, images: Sequence[ImageInput], progress: Progress) -> Vectors:
        """(N, D) unit-norm."""
        ...

    def texts(self, texts: Sequence[str], progress: Progress) -> Vectors:
        """(N, D) unit-norm."""
        ...


def silent(_: int) -> None:
    """No progress."""


def image_vectors(reco: Refines, images: Sequence[ImageInput] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (N, D) of images; vectors come back as they are.

    Raises:
        ConfigError: raw images and no encoder.
    """
    return images if isinstance(images, np.ndarray) else encoder_of(reco, "images").images(images, progress)


def text_vectors(reco: Refines, texts: Sequence[str] | Vectors, progress: Progress = silent) -> Vectors:
    """Frozen vectors (M, D) of texts; vectors come back as they are.

    Raises:
        ConfigError: raw texts and no encoder.
    """
    return texts if isinstance(texts, np.ndarray) else encoder_of(reco, "texts").texts(texts, progress)


def refined_queries(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine queries, some thousand at a time: they do not depend on one another."""

    def refined(rows: slice) -> Refinement:
        hidden = None if items.own is None else items.own[rows]
        return _refined(reco.refine(items.vectors[rows], modality=items.modality, exclude=hidden, **options))

    parts = [refined(slice(start, start + _QUERIES)) for start in range(0, len(items.vectors), _QUERIES)]
    told = [part.coverage for part in parts if part.coverage is not None]
    vectors = np.concatenate([part.vectors for part in parts])
    return replace(items, vectors=vectors, coverage=Coverage.join(told) if told else None)


def refined_candidates(reco: Refines, items: TaskItems, **options: Unpack[RefineHow]) -> TaskItems:
    """Refine candidates, all in one call: they compete, so they are refined as a set."""
    found = _refined(
        reco.refine(items.vectors, modality=items.modality, role="candidate", exclude=items.own, **options)
    )
    return replace(items, vectors=found.vectors, coverage=found.coverage)


def _refined(result: Refinement) -> Refinement:
    """The same, unless frozen vectors stand in for refined ones: figures would not show it."""
    if result.degraded:
        raise MemoryStoreError(
            f"refinement failed ({result.degraded}), and frozen vectors are not what is measured here: "
            "see the warning above, or open the model with on_memory_failure='fail'"
        )
    return result


def count_items(labelled: Labelled) -> int:
    """How many items the encoder will report on; of a set without templates, with one."""
    raw = 0 if isinstance(labelled.images, np.ndarray) else len(labelled.images)
    return raw + (len(labelled.classes) * max(1, len(labelled.templates)) if labelled.prompts is None else 0)


def count_captioned(captioned: Captioned) -> int:
    """How many items the encoder will report on."""
    return sum(len(side) for side in (captioned.images, captioned.texts) if not isinstance(side, np.ndarray))


def count_entities(entity_set: EntitySet) -> int:
    """How many items the encoder will report on."""
    raw = 0 if isinstance(entity_set.images, np.ndarray) else len(entity_set)
    return raw + (len(entity_set.entities) if entity_set.vectors() is None else 0)


def encoder_of(reco: Refines, what: str) -> Encodes:
    """The frozen CLIP that encodes raw images and texts.

    Raises:
        ConfigError: nothing does.
    """
    encoder: Encodes | None = getattr(reco, "encoder", None)
    if encoder is None:
        raise ConfigError(f"the set holds {what}, not vectors, and nothing here encodes them: open a model")
    return encoder


def templates_of(encoder: Encodes | None) -> tuple[str, ...]:
    """The prompts that an encoder was trained with; none where it names none."""
    templates: tuple[str, ...] = getattr(encoder, "templates", ())
    return templates


HalfVectors = npt.NDArray[np.floating[Any]]
"""(N, D) float16, in a file."""


@dataclass(frozen=True)
class CachedEncoder:
    """Encodes what the folder does not hold yet; vectors are kept as float32, exactly as they were made.

    A file is named after the encoder's digest and the contents of all images or texts, in order: a set that was changed
    is encoded again, one that was moved is not. Files that are no longer wanted may be deleted.
    """

    encoder: Encodes  # the frozen CLIP
    fingerprint: Fingerprint  # which one that is
    folder: Path  # of the files; made when missing

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts that the CLIP was trained with."""
        return templates_of(self.encoder)

    def images(self, images: Sequence[ImageInput], progress: Progress = silent) -> Vectors:
        """Encode images, or find their vectors; (N, D) unit-norm."""
        path = self._path("image", digest_images(images))
        return self._stored(path, len(images), lambda rows: self.encoder.images(images[rows], progress), progress)

    def texts(self, texts: Sequence[str], progress: Progress = silent) -> Vectors:
        """Encode texts, or find their vectors; (N, D) unit-norm."""
        path = self._path("text", digest_texts(texts))
        return self._stored(path, len(texts), lambda rows: self.encoder.texts(texts[rows], progress), progress)

    def stream(self, texts: Callable[[], Iterator[str]], count: int, progress: Progress = silent) -> HalfVectors:
        """Encode texts by the million into a float16 file that is mapped, not read; portions that exist are kept.

        Args:
            texts: gives the texts from the first on, each time that it is called.
            count: N.
            progress: told how many items each batch had, also of those that were encoded before.

        Returns:
            (N, D) unit-norm up to rounding; :class:`.ranking.Blocks` makes that exact.
        """
        path = self._path("names", digest_texts(texts()))
        return stored_vectors(
            path,
            (count, self.fingerprint.dimension),
            self._reader(texts(), progress),
            dtype=np.float16,
            already=progress,
        )

    def _reader(self, texts: Iterator[str], progress: Progress) -> Callable[[slice], Vectors]:
        position = 0

        def encode(rows: slice) -> Vectors:
            nonlocal position
            skipped, position = rows.start - position, rows.stop
            return self.encoder.texts(list(islice(texts, skipped, skipped + rows.stop - rows.start)), progress)

        return encode

    def _path(self, what: str, digest: str) -> Path:
        return self.folder / self.fingerprint.digest[:16] / f"{what}-{digest[:32]}.npy"

    def _stored(self, path: Path, count: int, encode: Callable[[slice], Vectors], progress: Progress) -> Vectors:
        stored = stored_vectors(path, (count, self.fingerprint.dimension), encode, already=progress)
        return np.asarray(stored, np.float32)


@dataclass(frozen=True)
class CachingReco:
    """A model whose frozen vectors are kept; refinement is done anew, since it depends on the memory."""

    reco: Reco  # the model
    folder: Path  # of the vectors

    @property
    def encoder(self) -> CachedEncoder:
        """The frozen CLIP, or what it said before."""
        return CachedEncoder(self.reco.encoder, self.reco.manifest.fingerprint, self.folder)

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineKeywords]
    ) -> Refinement:
        """See :meth:`reco_plugin.reco.Reco.refine`."""
        return self.reco.refine(vectors, modality=modality, role=role, **options)
