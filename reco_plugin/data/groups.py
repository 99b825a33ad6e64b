"""What pairs show: which of them belong together."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DataError
from ..types import Pair, Payload, Records

_ITSELF = "\0"
"""Before an id that stands for a group, so that it is not taken for a value of the column."""


def groups_of(pairs: Records, column: str | None = None) -> list[str]:
    """What each of N pairs shows: a payload column, the caption without one, else the pair itself.

    Raises:
        DataError: no pair has a value in this column, so that its name must be wrong.
    """
    if column is not None and all(_is_empty(payload.get(column)) for payload in pairs.payloads):
        first = f", the first is {pairs.ids[0]!r}" if len(pairs) else ""
        raise DataError(f"{len(pairs)} pairs have no {column!r} to group by{first}")
    return [group for _, group in ids_and_groups(pairs, column)]


def ids_and_groups(pairs: Records, column: str | None) -> list[tuple[str, str]]:
    """Id and group of each pair; where the column is empty, a pair shows only itself."""
    return [(id_, _group(id_, payload, column)) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)]


def group_of(pair: Pair, column: str | None) -> str:
    """What a pair of a reader shows, which puts the caption into the payload; as :func:`ids_and_groups`."""
    return _group(pair.id, pair.payload, column)


def _group(id_: str, payload: Payload, column: str | None) -> str:
    value = payload.get(column or "caption")
    return _ITSELF + id_ if _is_empty(value) else str(value)


def is_itself(group: str) -> bool:
    """Whether a group stands for a pair of which nothing was said."""
    return group.startswith(_ITSELF)


def _is_empty(value: Any) -> bool:
    """Null, NaN or blank, which says nothing of what a pair shows."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())
