"""What a pair says, in 16 hex digits: two rows of one id are compared by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..types import Pair
from .remote import RemoteImage

_DIGITS = 16
"""64 bits, compared only between two rows of one id."""


def digest(pair: Pair) -> str:
    """16 hex digits over all that a pair says: image (bytes, vector, URL or path), text and payload, not the id.

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
        case Path():
            return b"path", str(value).encode("utf-8", "surrogateescape")
        case str():
            return b"text", value.encode(errors="surrogatepass")
    picture = value.convert("RGBA")  # a PIL image, of a data set that decodes itself
    return b"pixels", str(picture.size).encode() + picture.tobytes()
