"""Rows with the bytes of their images, and the digest by which a row that did not change is known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..data.digest import digest
from ..data.rows import Part, Rejected
from ..errors import InputError
from ..memory.checks import check_ids
from ..types import Pair
from .items import Loaded
from .known import unmarked


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
