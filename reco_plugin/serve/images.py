"""Images inside JSON: data URIs and bare base64. The declared type is often wrong, so the bytes decide."""

from __future__ import annotations

import base64
import binascii
import re

from .failures import Failure, Refused

_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]+)*;base64,", re.IGNORECASE)
_HEADER = 256  # characters that hold the header of a data URI, so that no long text is searched
_SHOWN = 40
_PICTURES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_LINE = 60  # characters that the first line of wrapped base64 has
_SNIFFED = 1024
_NO_PIXELS = (
    ((b"<svg", b"<?xml", b"<!doctype svg"), "an SVG or XML file: draw it into a PNG first"),
    ((b"<!doctype html", b"<html"), "a web page: give the image itself"),
    ((b"%pdf",), "a PDF: draw a page of it into a PNG first"),
    ((b"{", b"["), "JSON: give the image itself"),
)


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
        Refused: not base64 (400 ``image_not_base64``), too many bytes (413 ``image_too_large``), or certainly not an
            image (415 ``image_type_unsupported``). Other formats fail later, in the decoder.
    """
    found = _DATA_URI.match(text[:_HEADER])
    encoded = text[found.end() :] if found else text
    if len(encoded) > max_bytes * 3 // 2:  # 4/3, and room for line breaks: refused before it is copied
        raise Refused(too_many_bytes(len(encoded) * 3 // 4, max_bytes))
    raw = _decode(encoded) or _decode(_tidy(encoded))
    if not raw:
        message = f"an image must be a data URI or base64, got {text[:_SHOWN]!r} ({len(text):,} characters)"
        raise Refused(Failure(400, "image_not_base64", message))
    if len(raw) > max_bytes:
        raise Refused(too_many_bytes(len(raw), max_bytes))
    return pixels_expected(raw)


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


def pixels_expected(data: bytes) -> bytes:
    """Return the bytes, unless they begin as a format without pixels.

    Raises:
        Refused: 415 ``image_type_unsupported``, naming the format.
    """
    head = data[:_SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, what in _NO_PIXELS:
        if head.startswith(beginnings):
            raise Refused(Failure(415, "image_type_unsupported", f"this is {what}"))
    return data


def too_many_bytes(size: int, limit: int) -> Failure:
    """The failure of an image with too many bytes."""
    message = f"an image has {size:,} bytes, the limit is {limit:,} (max_image_bytes): shrink it first"
    return Failure(413, "image_too_large", message)
