"""Rows made ready for the encoder one by one, so that a bad one is rejected alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..artifact import Artifact
from ..data.remote import RemoteImage
from ..data.rows import Rejected
from ..errors import ImageError, InputError, RecoError
from ..memory.checks import check_payload
from ..preprocess import Tokenizer, image_to_array
from ..types import Vectors
from ..values import is_unicode
from ..vectors import check_vectors
from .items import Loaded, Prepared, Skipped

DOWNLOADS = 16
"""Images that are fetched at the same time."""
MAX_CHARACTERS = 100_000
"""A longer text is no caption."""


class Preparation:
    """Decodes, resizes, tokenises and checks, as one model wants it. Can be pickled, and shared between threads."""

    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        self._artifact, self._max_pixels = artifact, max_pixels

    def __call__(self, row: Loaded) -> Prepared | Rejected:
        """Make a row ready; its image must not be remote, see :func:`fetched`."""
        pair = row.pair
        try:
            payload = check_payload(pair.id, pair.payload)
            text, cut = self._text(pair.text)
            image = self._image(pair.image)
        except ImageError as error:
            return Rejected(row.where, f"its image {str(error).partition(';')[0]}", pair.id)
        except InputError as error:
            return Rejected(row.where, str(error), pair.id)
        caption = pair.text if isinstance(pair.text, str) else payload.get("caption")
        caption = caption if isinstance(caption, str) and caption.strip() else None
        return Prepared(row.where, pair.id, row.digest, payload, caption, image, text, cut)

    def pixels(self, image: Any) -> npt.NDArray[np.uint8]:
        """An image as the encoder takes it, (H, W, 3) uint8.

        Raises:
            ImageError: it cannot be decoded or is too large.
        """
        return image_to_array(image, self._artifact.manifest.image, self._max_pixels)

    def _image(self, image: Any) -> npt.NDArray[np.uint8] | Vectors:
        return self._vector(image, "image") if isinstance(image, np.ndarray) else self.pixels(image)

    def _text(self, text: Any) -> tuple[npt.NDArray[np.int32] | Vectors, bool]:
        if isinstance(text, np.ndarray):
            return self._vector(text, "text"), False
        if not text.strip():
            raise InputError("its caption is empty")
        if len(text) > MAX_CHARACTERS:
            raise InputError(f"its caption has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
        if not is_unicode(text):
            raise InputError("its caption holds half of a surrogate pair, which is no character")
        tokens = self._tokenizer([text])
        return tokens.ids[0], bool(tokens.truncated[0])

    def _vector(self, vector: npt.NDArray[Any], side: str) -> Vectors:
        checked: Vectors = check_vectors(vector[None], self._artifact.manifest.dimension, f"its {side} vector")[0]
        return checked

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._artifact.tokenizer, self._artifact.manifest.text)


def fetched(row: Loaded | Skipped | Rejected) -> Loaded | Skipped | Rejected:
    """A row with its image downloaded, where that is remote; any other row as it is."""
    if not isinstance(row, Loaded) or not isinstance(image := cast(object, row.pair.image), RemoteImage):
        return row
    try:
        return replace(row, pair=replace(row.pair, image=image.read()))
    except (RecoError, OSError) as error:
        return Rejected(row.where, str(error), row.pair.id)
