"""Answers as JSON, piece by piece: in the thread that computed them, within the deadline, up to a limit.

Vectors are written from their arrays: the shortest numbers that are read as the same float32, without a list of
Python's floats between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from pydantic import BaseModel
from pydantic_core import to_json

from .failures import Failure, Refused
from .pool import Answer, still_wanted

_PIECE = 65_536  # bytes that are sent at once: a client that reads slowly holds back the rest


def written(answer: Answer, most: int) -> list[bytes]:
    """An answer as JSON in pieces; fields of models that are None are left out.

    Raises:
        Refused: it has more bytes than ``most``; or nobody waits for it any more.
    """
    pieces, size, piece = list[bytes](), 0, bytearray()
    for part in _parts(answer):
        piece += part
        size += len(part)
        if size > most:
            limit = f"the limit is {most:,} (max_answer_bytes): send less at once, or ask for fewer pairs (k)"
            raise Refused(Failure(413, "answer_too_large", f"the answer has more than {size:,} bytes, {limit}"))
        if len(piece) >= _PIECE:
            pieces.append(bytes(piece))
            piece.clear()
    return [*pieces, bytes(piece)]


def _parts(value: Any) -> Iterator[bytes]:
    """The JSON of a value, item by item where it is long: writing all at once would hold up every other thread."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        yield b"{"
        for place, (name, field) in enumerate((n, f) for n, f in fields.items() if f is not None):
            yield b'%s"%s":' % (b"," if place else b"", name.encode())
            yield from _parts(field)
        yield b"}"
    elif isinstance(value, Iterator) or _is_long(value):
        yield b"["
        for place, item in enumerate(value):
            still_wanted()
            yield b"," if place else b""
            yield write_json(item)
        yield b"]"
    else:
        yield write_json(value)


def _is_long(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 1
    return isinstance(value, list) and bool(value) and isinstance(value[0], BaseModel | list | dict)


def write_json(value: Any) -> bytes:
    """JSON of what an answer holds; fields of models that are None are left out, numbers that JSON lacks are null.

    >>> write_json({"vector": np.array([0.1, 1.0], np.float32), "score": float("nan")})
    b'{"vector":[0.1,1.0],"score":null}'
    """
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a payload's: numbers beyond 64 bits, hundreds of levels, half a surrogate pair
        plain = _plain(value) if isinstance(value, BaseModel) else value
        return to_json(plain, exclude_none=True, inf_nan_mode="null", fallback=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return {name: field for name, field in fields.items() if field is not None}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not written as JSON")
