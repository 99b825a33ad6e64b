"""Which ids came before, in few bytes each."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..types import Pair
from .remote import RemoteImage

_DIGEST_BYTES = 16
_PLACE_BITS = 48


class Seen:
    """Digests of the ids and contents of pairs; about 150 bytes for each pair, whatever its size."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}  # digest of the id -> 8 bytes of the content's digest, and the place

    def before(self, pair: Pair, place: int) -> tuple[int, bool] | None:
        """Where the same id came first, and whether all of the pair is the same; None: it is new, and noted.

        Args:
            pair: to look up.
            place: its number among all rows.
        """
        content = int.from_bytes(_content(pair)[:8]) << _PLACE_BITS
        known = self._known.setdefault(_digest(pair.id.encode()), content | place)
        first = known & ((1 << _PLACE_BITS) - 1)
        return None if first == place else (first, known >> _PLACE_BITS == content >> _PLACE_BITS)


def _digest(*parts: bytes) -> bytes:
    state = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8))
        state.update(part)
    return state.digest()


def _content(pair: Pair) -> bytes:
    payload = json.dumps(pair.payload, sort_keys=True, default=str).encode()
    return _digest(_side(pair.image), _side(pair.text), payload)


def _side(value: Any) -> bytes:
    """Bytes that tell a side from others; a file by its path."""
    match value:
        case bytes():
            return value
        case str() | Path():
            return str(value).encode("utf-8", "surrogateescape")
        case RemoteImage():
            return value.url.encode("utf-8", "surrogateescape")
    pixels: bytes = value.tobytes()  # a vector, or a PIL image
    return pixels
