"""Answers as JSON, written piece by piece in the thread that computed them: within its deadline, up to a limit.

Used in Triton, too, where there is no FastAPI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import to_json

from .failures import Failure, Refused
from .pool import still_wanted

Answer: TypeAlias = BaseModel | Mapping[str, Any] | Sequence[Any]
"""What a route answers; a list of it may be made :func:`while_written`."""
T = TypeVar("T")
_PIECE = 65_536  # bytes that are sent at once: a client that reads slowly holds back the rest


def while_written(items: Iterator[T]) -> list[T]:
    """Items of a list that are made one at a time, when they are written."""
    return cast("list[T]", items)


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
    elif isinstance(value, Iterator) or (
        isinstance(value, list) and value and isinstance(value[0], BaseModel | list | dict)
    ):
        yield b"["
        for place, item in enumerate(value):
            still_wanted()
            yield b"," if place else b""
            yield to_json(item, exclude_none=True, inf_nan_mode="null")
        yield b"]"
    else:
        yield to_json(value, exclude_none=True, inf_nan_mode="null")
