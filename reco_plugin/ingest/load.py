"""Rows with the bytes of their images, and the digest by which a row that did not change is known."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data.remote import RemoteImage
from ..data.rows import Part, Rejected
from ..errors import InputError
from ..memory.checks import check_ids
from ..types import Pair
from .items import Loaded
from .marks import unmarked

_DIGITS = 16
"""Hex digits of a digest: 64 bits, compared only between two rows of one id."""


def numbered(parts: Iterable[Part]) -> Iterator[tuple[str, Pair] | Rejected]:
    """The rows of all parts in order, each pair with its place in the source."""
    for part in parts:
        for number, row in enumerate(part.read(), 1):
            yield row if isinstance(row, Rejected) else (f"row {number} of {part.name}", row)


def load(row: tuple[str, Pair] | Rejected) -> Loaded | Rejected:
    """Read a row's image file and take its digest; a remote image is not fetched."""
    if isinstance(row, Rejected):
        return row
    where, pair = row
    try:
        check_ids([pair.id], "its id")
    except InputError as error:
        return Rejected(where, str(error))
    image: Any = pair.image
    if isinstance(image, str | os.PathLike):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            return Rejected(where, f"its image {str(pair.image)!r} cannot be read: {error.strerror or error}", pair.id)
    ours = Pair(pair.id, image, pair.text, unmarked(pair.payload))
    return Loaded(where, ours, digest(ours))


def digest(pair: Pair) -> str:
    """16 hex digits over all that a row says: image (its bytes, vector or URL), text and payload, not the id.

    >>> digest(Pair("a", b"", "fox")) == digest(Pair("b", b"", "fox")) != digest(Pair("a", b"", "a fox"))
    True
    """
    total = hashlib.sha256()
    payload = json.dumps(dict(pair.payload), sort_keys=True, default=repr).encode(errors="surrogatepass")
    for part in (*_side(pair.image), *_side(pair.text), payload):
        total.update(len(part).to_bytes(8, "little"))  # so that parts cannot flow into one another
        total.update(part)
    return total.hexdigest()[:_DIGITS]


def _side(value: Any) -> tuple[bytes, bytes]:
    """Kind and content of one side."""
    match value:
        case np.ndarray():
            return b"vector", np.ascontiguousarray(value, np.float32).tobytes()
        case RemoteImage():
            return b"url", value.url.encode(errors="surrogatepass")
        case bytes():
            return b"bytes", value
        case str():
            return b"text", value.encode(errors="surrogatepass")
    picture = value.convert("RGBA")  # a PIL image, of a data set that decodes itself
    return b"pixels", str(picture.size).encode() + picture.tobytes()
