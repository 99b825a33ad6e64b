"""Texts, images and vectors as a request writes them, and the bytes of an image.

Images inside JSON are data URIs or bare base64; the declared type is often wrong, so the bytes decide.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Modality
from .failures import Failure, Refused, too_many_bytes

EMPTY = Failure(400, "empty_text", "a text is empty: leave it out")
IMAGE_AS_TEXT = Failure(
    400,
    "image_as_text",
    "a text is the base64 of a picture: send it as an image, which is a data:image/…;base64, string or"
    ' {"image": …} in /v1/embeddings, and elsewhere the field for images (inputImage, image_base64, images)',
)
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]+)*;base64,", re.IGNORECASE)
_HEADER = 256  # characters that hold the header of a data URI, so that no long text is searched
_SHOWN = 40
_PICTURES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_LINE = 60  # characters that the first line of wrapped base64 has


@dataclass(frozen=True)
class Item:
    """One item to embed."""

    content: str | bytes | Sequence[float] | npt.NDArray[np.float32]
    """A text; an image as a data URI, base64 or its bytes; or a CLIP vector (D,) of this encoder, of unit norm."""
    modality: Modality
    """What it is, or what the vector embeds."""

    @property
    def is_picture(self) -> bool:
        """Whether it is an image."""
        return self.modality == "image" and isinstance(self.content, str | bytes)


def is_data_uri(text: str) -> bool:
    """Whether a text is a data URI, of any type: some programs name none for an image.

    >>> is_data_uri("data:;base64,iVBORw0KGgo="), is_data_uri("data: what is it?")
    (True, False)
    """
    return text[:11].lower() == "data:image/" or _DATA_URI.match(text[:_HEADER]) is not None


def is_bare_picture(text: str) -> bool:
    """Whether a text is the base64 of a picture (PNG, JPEG, GIF or WebP), sent where texts are read.

    >>> is_bare_picture("iVBORw0KGgoAAAANSUhEUgAAAAQ"), is_bare_picture("iVBORw0KGgo is how a PNG begins")
    (True, False)
    """
    return text.startswith(_PICTURES) and _BASE64.fullmatch(text[:_LINE].strip()) is not None


def image_bytes(text: str, *, max_bytes: int) -> bytes:
    """Decode a data URI or bare base64, with or without padding, line breaks, or the URL-safe alphabet.

    Raises:
        Refused: a URL (400 ``image_url_forbidden``), not base64 (400 ``image_not_base64``), or too many bytes (413
            ``image_too_large``). What is no image fails later, in the decoder.
    """
    found = _DATA_URI.match(text[:_HEADER])
    encoded = text[found.end() :] if found else text
    if text[:8].lower().startswith(("http://", "https://")):
        message = f"image URLs are not fetched here: send the image as a data URI or base64, not {text[:_SHOWN]!r}"
        raise Refused(Failure(400, "image_url_forbidden", message))
    if len(encoded) > max_bytes * 3 // 2:  # 4/3, and room for line breaks: refused before it is copied
        raise Refused(too_many_bytes(len(encoded) * 3 // 4, max_bytes))
    raw = _decode(encoded) or _decode(_tidy(encoded))
    if not raw:
        message = f"an image must be a data URI or base64, got {text[:_SHOWN]!r} ({len(text):,} characters)"
        raise Refused(Failure(400, "image_not_base64", message))
    return raw


def _decode(encoded: str) -> bytes:
    """The bytes; empty if this is not strictly base64."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _tidy(encoded: str) -> str:
    """The standard alphabet, padded, in one line; words are no base64, though they might be read as such."""
    packed = "".join(line.strip() for line in encoded.splitlines()).rstrip("=").translate(str.maketrans("-_", "+/"))
    return packed + "=" * (-len(packed) % 4)
