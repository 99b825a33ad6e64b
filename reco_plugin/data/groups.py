"""Groups of pairs that show the same thing."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

from ..errors import DataError
from ..types import Pair, Payload, Records
from ..values import did_you_mean
from .rows import Rejected, Rows


def check_column(rows: Rows, column: str) -> str:
    """Check, before anything is encoded, that pairs have a value in this column; reads rows up to the first.

    Returns:
        Its key in the payload: that of the caption for the column of texts.

    Raises:
        DataError: none has one; the message names the columns that the first pair has.
    """
    column = payload_key(rows, column)
    known: list[str] | None = None
    for row in chain.from_iterable(part.read() for part in rows.parts):
        if isinstance(row, Rejected):
            continue
        if not _is_empty(row.payload.get(column)):
            return column
        known = [*row.payload] if known is None else known
    if known is not None:
        raise DataError(f"{rows.name}: no pair has a {column!r} to group by; {did_you_mean(column, known)}")
    return column


def payload_key(rows: Rows, column: str) -> str:
    """Key of a table's column in the payload: the column of texts becomes the caption."""
    return "caption" if rows.columns is not None and column == rows.columns.text else column


def groups_of(pairs: Records, column: str | None = None) -> list[str]:
    """The group of each of N pairs: a payload column, the caption without one; a pair with an empty one is its own.

    Raises:
        DataError: no pair has a value in this column.
    """
    if column is not None and all(_is_empty(payload.get(column)) for payload in pairs.payloads):
        first = f", the first is {pairs.ids[0]!r}" if len(pairs) else ""
        raise DataError(f"{len(pairs)} pairs have no {column!r} to group by{first}")
    return [_group(id_, payload, column) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)]


def group_of(pair: Pair, column: str | None) -> str:
    """The group of a pair of a reader, which puts the caption into the payload; as :func:`groups_of`."""
    return _group(pair.id, pair.payload, column)


def _group(id_: str, payload: Payload, column: str | None) -> str:
    value = payload.get(column or "caption")
    return f"\0{id_}" if _is_empty(value) else str(value)  # which no value of the column begins with


def _is_empty(value: Any) -> bool:
    """Whether a value is null, NaN or blank."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())
