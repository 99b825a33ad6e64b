"""Small pictures of stored pairs: a memory keeps vectors, so pictures come from the payload or from image files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ...data.images import PictureFiles, stored_thumbnail
from ...errors import ImageError
from ...preprocess import ImageConfig
from ...preprocess.image import thumbnail
from ...types import Payload


class PairPictures:
    """Finds the picture of a pair; a file of more than ``max_pixels`` is none."""

    def __init__(self, folders: Iterable[Path], config: ImageConfig, max_pixels: int) -> None:
        """Read nothing yet; without folders, only payloads have pictures. The config shows what the encoder saw."""
        self._files = PictureFiles(folders)
        self._config, self._max_pixels = config, max_pixels
        self._made = lru_cache(maxsize=2048)(self._make)

    def of(self, id_: str, payload: Payload) -> str | None:
        """A data URI; None without a picture. A payload's own ``thumbnail`` comes first, then a file of the folders."""
        if (given := stored_thumbnail(payload)) is not None:
            return given
        file = self._files.of(id_, payload)
        return None if file is None else self._made(file, file.stat().st_mtime_ns)

    def _make(self, file: Path, _changed: int) -> str | None:
        try:
            return thumbnail(file, self._config, self._max_pixels)
        except ImageError:
            return None
