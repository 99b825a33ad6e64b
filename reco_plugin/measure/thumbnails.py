"""Small pictures for a page, as data URIs: each made once, and no more fetched when a minute is over."""

from __future__ import annotations

import time
from collections.abc import Hashable

from ..data.images import RemoteImage
from ..errors import DataError, ImageError
from ..preprocess.image import thumbnail
from ..types import ImageInput

ALL_S, ONE_S = 60.0, 5.0
"""Seconds for all pictures that have to be fetched, and for one of them; the others are shown without."""


class Thumbnails:
    """Thumbnails by a key of the caller's."""

    def __init__(self) -> None:
        self._made: dict[Hashable, str | None] = {}
        self._until = time.monotonic() + ALL_S

    def of(self, key: Hashable, image: ImageInput | RemoteImage) -> str | None:
        """A small picture; None where it cannot be shown."""
        if key not in self._made:
            self._made[key] = self._make(image)
        return self._made[key]

    def _make(self, image: ImageInput | RemoteImage) -> str | None:
        try:
            if not isinstance(image, RemoteImage):
                return thumbnail(image)
            left = self._until - time.monotonic()
            return thumbnail(RemoteImage(image.url, min(ONE_S, left)).read()) if left > 0 else None
        except (DataError, ImageError):
            return None
