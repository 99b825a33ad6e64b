"""Which ids came before, in few bytes each."""

from __future__ import annotations

from hashlib import blake2b

from ..types import Pair
from .digest import digest

_PLACE_BITS = 48


class Seen:
    """Digests of the ids and contents of pairs (a file by its path); about 150 bytes for each, whatever its size."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}  # digest of the id -> 8 bytes of the content's digest, and the place

    def before(self, pair: Pair, place: int) -> tuple[int, bool] | None:
        """Where the same id came first, and whether all of the pair is the same; None: it is new, and noted.

        Args:
            pair: to look up.
            place: its number among all rows.
        """
        content = int(digest(pair), 16) << _PLACE_BITS
        known = self._known.setdefault(blake2b(pair.id.encode(), digest_size=16).digest(), content | place)
        first = known & ((1 << _PLACE_BITS) - 1)
        return None if first == place else (first, known >> _PLACE_BITS == content >> _PLACE_BITS)
