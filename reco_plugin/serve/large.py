"""JSON, parsed part by part where it is large: while a parser in C runs, no other thread does, and probes wait.

Where the parts are is seen in arrays: brackets, commas and colons outside of texts, and how deep each is. What is not
as simple as that is parsed as a whole, which also says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Places: TypeAlias = npt.NDArray[np.int32]
Load: TypeAlias = Callable[[bytes | bytearray], Any]
_PART = 131_072  # bytes that are parsed at once, in a millisecond or two
_LEVELS = 3  # of lists and objects, of which the parts are looked for
_LOOKED_AT = 1_048_576  # bytes of which arrays are made at once
_MOST_SIGNS, _MOST_ESCAPES = 2_000_000, 100_000  # of one body, which take memory
_QUOTE, _COMMA, _COLON = b'",:'
_CLOSED_BY = dict(zip(b"[{", b"]}", strict=True))
_ESCAPED = re.compile(rb'\\(?<!\\\\)\\*"')  # from the first backslash of a run on: from each, one takes its square


def load_parts(body: bytes | bytearray, load: Load) -> Any:
    """Parse JSON by calls of a parser with parts of it, or with all of it, whose errors are raised as they are.

    >>> load_parts(b'{"n": [1, 12]}', len)
    14
    """
    if len(body) > _PART:
        try:
            return _load(body, 0, len(body), _LEVELS, load)
        except ValueError:
            pass
    return load(body)


def _load(body: bytes | bytearray, start: int, stop: int, levels: int, load: Load) -> Any:
    """Parse what is between two places; also what JSON does not allow there is a ValueError."""
    if stop - start <= _PART or not levels or body[start : start + _PART].lstrip()[:1] not in (b"[", b"{"):
        return load(body[start:stop])
    opens, closes, commas, colons = _outline(body, start, stop)
    values, fields = list[Any](), dict[str, Any]()
    for first, last, alone in _parts(body, opens + 1, closes, commas):
        large = alone and last - first > _PART
        if body[opens] == ord("[") and large:
            values.append(_load(body, first, last, levels - 1, load))
        elif body[opens] == ord("["):
            values += load(b"".join((b"[", body[first:last], b"]")))
        elif large:
            after = int(np.searchsorted(colons, first))
            colon = int(colons[after]) if after < len(colons) else last
            (name,) = load(b"".join((b"{", body[first:colon], b":0}")))
            fields[name] = _load(body, colon + 1, last, levels - 1, load)
        else:
            fields |= load(b"".join((b"{", body[first:last], b"}")))
    return values if body[opens] == ord("[") else fields


def _parts(body: bytes | bytearray, first: int, stop: int, commas: Places) -> Iterator[tuple[int, int, bool]]:
    """Where parts begin and end, and whether each is one item: of as many as fit into a part.

    Raises:
        ValueError: one is empty, as after a last comma.
    """
    ends = np.append(commas, np.int32(stop))
    at = 0
    while at < len(ends):
        farthest = max(at, int(np.searchsorted(ends, first + _PART, "right")) - 1)
        last = int(ends[farthest])
        if len(ends) > 1 and not body[first:last].strip():
            raise ValueError("an item is missing")
        yield first, last, farthest == at
        first, at = last + 1, farthest + 1


def _outline(body: bytes | bytearray, start: int, stop: int) -> tuple[int, int, Places, Places]:
    """The brackets of a list or an object, and the commas and colons directly in it.

    Raises:
        ValueError: it is neither, not all of it, or has too many signs.
    """
    at = _signs(body, start, stop)
    signs = np.frombuffer(body, np.uint8)[at]
    outside = (np.cumsum(signs == _QUOTE, dtype=np.int32) & 1 == 0) & (signs != _QUOTE)
    at, signs = at[outside], signs[outside]
    steps = np.isin(signs, [*b"[{"]).astype(np.int8) - np.isin(signs, [*b"]}"]).astype(np.int8)
    depth = np.cumsum(steps, dtype=np.int32)
    if len(at) < 2 or depth[-1] or depth[:-1].min() < 1 or _CLOSED_BY.get(int(signs[0])) != signs[-1]:
        raise ValueError("no list, and no object")
    opens, closes = int(at[0]), int(at[-1])
    if body[start:opens].strip() or body[closes + 1 : stop].strip():
        raise ValueError("there is something around it")
    return opens, closes, at[(signs == _COMMA) & (depth == 1)], at[(signs == _COLON) & (depth == 1)]


def _signs(body: bytes | bytearray, start: int, stop: int) -> Places:
    """Places of brackets, commas, colons and quotes, but for quotes that are escaped."""
    found, number = list[Places](), 0
    for first in range(start, stop, _LOOKED_AT):
        piece = np.frombuffer(body, np.uint8, min(_LOOKED_AT, stop - first), first)
        is_sign = piece == _QUOTE
        for sign in b"[{]},:":
            is_sign |= piece == sign
        found.append(np.flatnonzero(is_sign).astype(np.int32) + np.int32(first))
        if (number := number + len(found[-1])) > _MOST_SIGNS:
            raise ValueError("too many signs")
    at, escaped = np.concatenate(found), list[int]()
    if body.find(b"\\", start, stop) >= 0:
        for run in _ESCAPED.finditer(body, start, stop):
            if len(run[0]) % 2 == 0:  # an odd number of backslashes
                escaped.append(run.end() - 1)
            if len(escaped) > _MOST_ESCAPES:
                raise ValueError("too many escapes")
    return at[~np.isin(at, escaped)] if escaped else at
