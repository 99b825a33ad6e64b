"""Texts and images of a request, made ready for the encoder one by one, so that a bad one fails alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifact import TOKENIZER
from ..errors import ImageError, VectorError
from ..preprocess import ImageConfig, TextConfig, Tokenizer, images_to_array
from ..preprocess.text import TokenIds
from ..reco import Reco
from ..types import Vectors
from ..values import is_unicode
from ..vectors import check_vectors
from .embedding import Item
from .failures import Failure, failure_of
from .images import too_many_bytes
from .pool import still_wanted


@dataclass(frozen=True)
class Ready:
    """An item that the encoder will take.

    Attributes:
        content: a text, a PIL image of the encoder's own size, or a checked vector (1, D).
        truncated: whether a text is too long and will be cut.
        tokens: of a text, as far as it will be read.
    """

    content: Any
    truncated: bool = False
    tokens: int = 0


@dataclass(frozen=True)
class Limits:
    """Largest single inputs; pixels are limited by the settings of the Reco."""

    image_bytes: int
    text_chars: int


class Preparation:
    """Checks, tokenises and decodes."""

    def __init__(self, reco: Reco, limits: Limits) -> None:
        manifest = reco.manifest
        self._image, self._text = manifest.image, manifest.text
        self._dimension, self._max_pixels, self._limits = manifest.dimension, reco.settings.max_pixels, limits
        self._tokenizer = Tokenizer(reco.settings.model / TOKENIZER, manifest.text)

    def __call__(self, items: Sequence[Item], *, truncate: bool) -> list[Ready | Failure]:
        """Make items ready, in order.

        Args:
            items: texts, images and vectors, mixed.
            truncate: False makes a text that is too long fail.

        Raises:
            Refused: nobody waits for the answer any more.
        """
        return [self._one(item, truncate) for item in items]

    def _one(self, item: Item, truncate: bool) -> Ready | Failure:
        still_wanted()
        if isinstance(item.content, str):
            return self._ready_text(item.content, truncate)
        if isinstance(item.content, bytes):
            return self._ready_image(item.content)
        return _ready_vector(item.content, self._dimension)

    def _ready_text(self, text: str, truncate: bool) -> Ready | Failure:
        if len(text) > self._limits.text_chars:
            limit = f"the limit is {self._limits.text_chars:,} (max_text_chars)"
            return Failure(413, "text_too_long", f"a text has {len(text):,} characters, {limit}: shorten it")
        if not is_unicode(text):
            return Failure(400, "invalid_text", "a text holds half of a surrogate pair, which is no character")
        tokens = self._tokenizer([text])
        cut, length = bool(tokens.truncated[0]), self._text.context_length
        if cut and not truncate:
            message = f"a text is longer than the {length} tokens that the encoder reads: shorten it, or let it be cut"
            return Failure(400, "text_too_long", message)
        return Ready(text, cut, _count(tokens.ids[0], self._text))

    def _ready_image(self, data: bytes) -> Ready | Failure:
        if len(data) > self._limits.image_bytes:
            return too_many_bytes(len(data), self._limits.image_bytes)
        try:
            return Ready(_decoded(data, self._image, self._max_pixels))
        except ImageError as error:
            return failure_of(error)


def _decoded(data: bytes, config: ImageConfig, max_pixels: int) -> Any:
    """An image that the encoder's own resizing leaves as it is, bit by bit."""
    from PIL import Image

    return Image.fromarray(images_to_array([data], config, max_pixels)[0])


def _ready_vector(vector: Vectors, dimension: int) -> Ready | Failure:
    try:
        return Ready(check_vectors(vector[None], dimension, "vectors"))
    except VectorError as error:
        return failure_of(error)
    except ValueError as error:  # an InputError: no number at all
        return Failure(400, "invalid_vector", str(error))


def _count(ids: TokenIds, config: TextConfig) -> int:
    """Tokens of one row (L,), start and end included.

    >>> _count(np.array([1, 5, 9, 0], np.int32), TextConfig("clip", 4, "lower", pad_id=0, end_id=9))
    3
    """
    if config.end_id is None:
        return int(np.count_nonzero(ids != config.pad_id))
    return int(np.argmax(ids == config.end_id)) + 1
