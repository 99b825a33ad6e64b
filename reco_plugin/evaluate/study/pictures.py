"""Thumbnails of queries and pairs, in the run's folder."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...defaults import MAX_PIXELS
from ...errors import DataError
from ...files import whole_file
from ...types import ImageInput, Payload, Vectors

SIZE = 128
_KEYS = ("image", "path")


@dataclass(frozen=True)
class Thumbnails:
    """Writes thumbnails."""

    folder: Path  # made with the first one
    images: Sequence[ImageInput] | Vectors  # of the labelled set; vectors have no pictures

    def query(self, row: int) -> str | None:
        """Write the thumbnail of a row of the labelled set; returns its file name."""
        return None if isinstance(self.images, np.ndarray) else self._write(f"query-{row}", self.images[row])

    def pair(self, payload: Payload) -> str | None:
        """Write the thumbnail of a pair whose payload has a path under ``image`` or ``path``; returns its file name."""
        for key in _KEYS:
            value = payload.get(key)
            if isinstance(value, str) and value and Path(value).is_file():
                return self._write(f"pair-{hashlib.sha256(value.encode()).hexdigest()[:16]}", value)
        return None

    def _write(self, name: str, image: ImageInput) -> str | None:
        """None where the image cannot be read: a report may lack a thumbnail."""
        from PIL import Image

        path = self.folder / f"{name}.webp"
        if path.is_file():
            return path.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PIL's warnings of odd metadata and of size
                source = io.BytesIO(image) if isinstance(image, bytes) else image
                opened = Image.open(source) if isinstance(source, str | os.PathLike | io.BytesIO) else source.copy()
                with opened as picture:
                    if picture.width * picture.height > MAX_PIXELS:  # an image that the encoder refuses is not decoded
                        return None
                    picture.draft("RGB", (SIZE, SIZE))
                    small = picture.convert("RGB")
            small.thumbnail((SIZE, SIZE))
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be made for pictures: {error.strerror or error}") from None
        with whole_file(path) as part:
            small.save(part, "WEBP", quality=80)
        return path.name
