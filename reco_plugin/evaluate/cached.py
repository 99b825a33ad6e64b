"""An encoder that looks into a folder first, so that a second run on the same data encodes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from ..encode import Progress
from ..files import digest_images, digest_texts
from ..reco import Reco
from ..request import RefineKeywords
from ..types import Fingerprint, ImageInput, Modality, Refinement, Role, Vectors
from .frozen import Encodes, silent
from .prompts import templates_of
from .stored import stored_vectors

HalfVectors = npt.NDArray[np.floating[Any]]
"""(N, D) float16, in a file."""


@dataclass(frozen=True)
class CachedEncoder:
    """Encodes what the folder does not hold yet; vectors are kept as float32, exactly as they were made.

    A file is named after the encoder's digest and the contents of all images or texts, in order: a set that was changed
    is encoded again, one that was moved is not. Files that are no longer wanted may be deleted.

    Attributes:
        encoder: the frozen CLIP.
        fingerprint: which one that is.
        folder: of the files; made when missing.
    """

    encoder: Encodes
    fingerprint: Fingerprint
    folder: Path

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
    """A model whose frozen vectors are kept; refinement is done anew, since it depends on the memory.

    Attributes:
        reco: the model.
        folder: of the vectors.
    """

    reco: Reco
    folder: Path

    @property
    def encoder(self) -> CachedEncoder:
        """The frozen CLIP, or what it said before."""
        return CachedEncoder(self.reco.encoder, self.reco.manifest.fingerprint, self.folder)

    def refine(
        self, vectors: npt.ArrayLike, *, modality: Modality, role: Role = "query", **options: Unpack[RefineKeywords]
    ) -> Refinement:
        """See :meth:`reco_plugin.reco.Reco.refine`."""
        return self.reco.refine(vectors, modality=modality, role=role, **options)
