"""Small pictures of stored pairs: a memory keeps vectors, so pictures come from the payload or from image files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ...defaults import MAX_PIXELS
from ...errors import ImageError
from ...memory.picture_folders import PictureFiles, stored_thumbnail
from ...preprocess import ImageConfig, images_to_array
from ...types import ImageInput, Payload

_SIDE = 128


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


def thumbnail(image: ImageInput, config: ImageConfig | None = None, max_pixels: int = MAX_PIXELS) -> str:
    """Make a small picture for a payload's ``thumbnail``, which the playground shows.

    Example::

        shown = {"caption": "a red fox", "thumbnail": thumbnail("fox.jpg")}
        reco.memory.add([Pair("fox-1", "fox.jpg", "a red fox", shown)])

    Args:
        image: a path, the bytes of an image file, or a PIL image.
        config: the encoder's preprocessing (``reco.manifest.image``); None: the middle square.
        max_pixels: larger images are refused.

    Returns:
        A data URI of a square WebP, about 3 kB.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image

    base = config or ImageConfig((_SIDE, _SIDE))
    small = ImageConfig((_SIDE, _SIDE), base.interpolation, base.resize_mode, base.fill_color)
    packed = io.BytesIO()
    Image.fromarray(images_to_array([image], small, max_pixels)[0]).save(packed, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
