"""Digests of pairs, to compare two rows with the same id."""

from __future__ import annotations

import hashlib
import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ..types import Pair
from .remote import RemoteImage

_DIGITS = 16
"""64 bits, which suffice to compare two rows with the same id."""
_PLACE_BITS = 48


def digest(pair: Pair) -> str:
    """Digest a pair in 16 hex digits: image (bytes, vector, URL or path), text and payload, not the id.

    >>> digest(Pair("a", b"", "fox")) == digest(Pair("b", b"", "fox")) != digest(Pair("a", b"", "a fox"))
    True
    """
    total = hashlib.sha256()
    payload = json.dumps(dict(pair.payload), sort_keys=True, default=repr).encode(errors="surrogatepass")
    for part in (*_side(pair.image), *_side(pair.text), payload):
        total.update(len(part).to_bytes(8, "little"))  # separates the parts
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
    picture = value.convert("RGBA")  # a PIL image
    return b"pixels", str(picture.size).encode() + picture.tobytes()


class SeenPairs:
    """Digests of the ids and contents of pairs (a file by its path); about 150 bytes for each, whatever its size."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}  # digest of the id -> 8 bytes of the content's digest, and the place

    def before(self, pair: Pair, place: int) -> tuple[int, bool] | None:
        """Look up the pair with this id: its row number, and whether it is equal; None adds a new id, at ``place``."""
        content = int(digest(pair), 16) << _PLACE_BITS
        known = self._known.setdefault(blake2b(pair.id.encode(), digest_size=16).digest(), content | place)
        first = known & ((1 << _PLACE_BITS) - 1)
        return None if first == place else (first, known >> _PLACE_BITS == content >> _PLACE_BITS)
