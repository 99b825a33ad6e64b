"""Texts, images and vectors as a request writes them, made to items.

Images inside JSON are data URIs or bare base64; the declared type is often wrong, so the bytes decide.
"""

from __future__ import annotations

import base64
import binascii
import re

from pydantic import Field, model_validator

from ..types import Modality
from .embedder import Item
from .failures import Failure, Refused, too_many_bytes
from .schemas import JsonVector, Strict

EMPTY = Failure(400, "empty_text", "a text is empty: leave it out")
_PICTURE = (
    "a text is the base64 of a picture: send it as an image, which is a data:image/…;base64, string or"
    ' {"image": …} in /v1/embeddings, and elsewhere the field for images (inputImage, image_base64, images)'
)
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]+)*;base64,", re.IGNORECASE)
_HEADER = 256  # characters that hold the header of a data URI, so that no long text is searched
_SHOWN = 40
_PICTURES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_LINE = 60  # characters that the first line of wrapped base64 has


class TextOrImage(Strict):
    """A text or an image."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")

    @model_validator(mode="after")
    def _one_of_both(self) -> TextOrImage:
        if (self.text is None) == (self.image is None):
            raise ValueError("give text or image, and not both")
        return self

    def to_item(self, max_image_bytes: int) -> Item | Failure:
        """The same for the embedder, or why it cannot be read."""
        return text_or_image_item(self.text, self.image, max_image_bytes)


class QueryBody(Strict):
    """A text, an image or a vector."""

    text: str | None = None
    image: str | None = Field(None, description="data URI or base64")
    vector: JsonVector | None = Field(None, description="the plain CLIP vector of the query")
    modality: Modality = Field("text", description="what the vector embeds")

    @model_validator(mode="after")
    def _one(self) -> QueryBody:
        if [self.text, self.image, self.vector].count(None) != 2:
            raise ValueError("give one of text, image and vector")
        return self

    @property
    def kind(self) -> Modality:
        """What it is."""
        return "text" if self.text is not None else "image" if self.image is not None else self.modality

    def to_item(self, max_image_bytes: int) -> Item | Failure:
        """The same for the embedder, or why it cannot be read."""
        if self.vector is not None:
            return Item.vector(self.vector, self.modality)
        return text_or_image_item(self.text, self.image, max_image_bytes)


def text_item(text: str, *, empty: bool = False) -> Item | Failure:
    """A text as an item, or why it is none; ``empty``: also one of blanks."""
    if not (empty or text.strip()):
        return EMPTY
    if is_bare_picture(text):
        return Failure(400, "image_as_text", _PICTURE)
    return Item.text(text)


def is_url(text: str) -> bool:
    """Whether a text is an http(s) URL.

    >>> is_url("HTTPS://example.com/fox.jpg"), is_url("file:///etc/passwd")
    (True, False)
    """
    return text[:8].lower().startswith(("http://", "https://"))


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
    if is_url(text):
        message = f"image URLs are not fetched here: send the image as a data URI or base64, not {text[:_SHOWN]!r}"
        raise Refused(Failure(400, "image_url_forbidden", message))
    if len(encoded) > max_bytes * 3 // 2:  # 4/3, and room for line breaks: refused before it is copied
        raise Refused(too_many_bytes(len(encoded) * 3 // 4, max_bytes))
    raw = _decode(encoded) or _decode(_tidy(encoded))
    if not raw:
        message = f"an image must be a data URI or base64, got {text[:_SHOWN]!r} ({len(text):,} characters)"
        raise Refused(Failure(400, "image_not_base64", message))
    if len(raw) > max_bytes:
        raise Refused(too_many_bytes(len(raw), max_bytes))
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


def image_item(encoded: str, max_bytes: int) -> Item:
    """An image of a data URI or bare base64."""
    return Item.image(image_bytes(encoded, max_bytes=max_bytes))


def text_or_image_item(text: str | None, image: str | None, max_image_bytes: int) -> Item | Failure:
    """The one of both that is given, as an item, or why it is none."""
    if text is not None:
        return text_item(text)
    try:
        return image_item(image or "", max_image_bytes)
    except Refused as refused:
        return refused.failure
