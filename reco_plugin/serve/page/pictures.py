"""Small pictures of stored pairs: a memory keeps vectors, so pictures come from the payload or from image files."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ...defaults import MAX_PIXELS
from ...errors import ImageError
from ...preprocess import ImageConfig, images_to_array
from ...types import ImageInput, Payload

KEY = "thumbnail"
"""Where a payload holds a picture, as a data URI."""
_PATHS = ("image", "path", "file", "file_name", "image_path")
_SIDE = 128
_LONGEST = 100_000  # characters of a data URI that is shown
_URI = re.compile(r"data:image/(?:avif|gif|jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


class PairPictures:
    """Finds the picture of a pair; a file of more than ``max_pixels`` is none."""

    def __init__(self, folders: Iterable[Path], config: ImageConfig, max_pixels: int) -> None:
        """Read nothing yet; without folders, only payloads have pictures. The config shows what the encoder saw."""
        self._folders = [folder.resolve() for folder in folders]
        self._config, self._max_pixels = config, max_pixels
        self._made = lru_cache(maxsize=2048)(self._make)

    def of(self, id_: str, payload: Payload) -> str | None:
        """A data URI; None without a picture.

        A payload's own ``thumbnail`` comes first; then a file of the folders, by the path in the payload (``image``,
        ``path``, ``file``, ``file_name``, ``image_path``) or by the id, which is a path for pairs from a folder or
        table. Paths that lead out of the folders are ignored, and so are paths that exist in several of them.
        """
        given = payload.get(KEY)
        if isinstance(given, str) and len(given) <= _LONGEST and _URI.fullmatch(given):
            return given
        for name in _names(id_, payload):
            if (found := {file for folder in self._folders if (file := _inside(folder, name))}) and len(found) == 1:
                file = found.pop()
                return self._made(file, file.stat().st_mtime_ns)
        return None

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


def _inside(folder: Path, name: str) -> Path | None:
    try:
        file = (folder / name).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None
    except (OSError, ValueError):  # too long a name, or one with a null in it
        return None


def _names(id_: str, payload: Payload) -> Iterator[str]:
    yield from (value for key in _PATHS if isinstance(value := payload.get(key), str) and value)
    yield id_
