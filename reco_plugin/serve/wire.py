"""JSON of bodies and of answers, both within limits and outside the event loop where they are large.

A large body is parsed by a thread, one at a time, once its values are counted, see :mod:`.large`. An answer is written
in the thread that computed it, within the deadline, piece by piece, up to a limit. Vectors are written from their
arrays: the shortest numbers that are read as the same float32, without a list of Python's floats between.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from starlette.types import Receive, Scope

from .failures import Failure, Refused
from .large import load_parts
from .pool import Answer, still_wanted

if TYPE_CHECKING:
    from .life import Life

_LARGE = (BaseModel, Iterator, list, np.ndarray)  # what may be written in parts
_SHORT = frozenset((str, int, float, bool))  # what never is: most fields, and asking for the others takes longer
T = TypeVar("T")
Checked = TypeVar("Checked", bound=BaseModel)
SMALL = 64_000
"""Bytes that are parsed faster than a thread starts."""
_VALUE_BYTES = 40  # of a number in two lists: parsed and validated
_WIDEST = 4  # bytes per character of a str with a character beyond U+FFFF
_BEGIN_VALUES = b",[{:"
_PIECE = 65_536  # bytes that are sent at once: a client that reads slowly holds back the rest


class BodyRefused(HTTPException):
    """A body that is not read to its end; an HTTPException, since FastAPI lets only those through while reading."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.status, failure.message)
        self.failure = failure


class JsonRequest(Request):
    """A request whose JSON is parsed within the limits.

    A body counts as JSON whatever ``content-type`` says, since AWS' clients, curl and others send another one or none;
    except with an ``origin``: browsers send other types across sites without a preflight request.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        sent = dict(scope["headers"])
        if b"origin" not in sent and not is_form(sent):
            headers = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        super().__init__(scope, receive)

    async def body(self) -> bytearray:  # type: ignore[override]  # never changed, so not copied to bytes
        """The whole body, in one growing buffer: joining chunks would take twice the memory."""
        if not hasattr(self, "_body"):
            whole = bytearray()
            async for chunk in self.stream():
                whole += chunk
            self._body = whole  # type: ignore[assignment]
        return self._body  # type: ignore[return-value]

    async def json(self) -> Any:
        """See :func:`parse`; the body itself is dropped, which FastAPI would hold until the answer is there."""
        whole, life = await self.body(), self.state.life
        try:
            return await parse(whole, life)
        finally:
            whole.clear()
            life.give_back()


async def read(request: Request, kind: type[Checked]) -> Checked:
    """The body of a request, checked; errors as FastAPI raises them.

    Raises:
        BodyRefused: too large, too slow, or too much at once.
        RequestValidationError: no body, not JSON, or another form.
        HTTPException: 400, it cannot be parsed.
        Refused: by the checks of its fields.
    """
    life: Life = request.state.life
    whole = await life.read()
    if not whole:
        missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
        raise RequestValidationError([missing], body=None)
    given: Any = None

    def check(parsed: Any) -> Checked:
        nonlocal given
        given = parsed
        return kind.model_validate(parsed, from_attributes=True)

    try:
        return await parse(whole, life, check) if _is_json(life.sent) else check(bytes(whole))
    except ValidationError as error:
        errors = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(errors, body=given) from None
    except json.JSONDecodeError as error:
        said = {"type": "json_invalid", "loc": ("body", error.pos), "msg": error.msg, "input": {}}
        raise RequestValidationError([said], body=None) from None
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    finally:
        whole.clear()
        life.give_back()


def is_form(sent: Mapping[bytes, bytes]) -> bool:
    """Whether a body is a form with files, by the headers that were sent; their case says nothing.

    >>> is_form({b"content-type": b"Multipart/Form-Data; boundary=x"})
    True
    """
    return sent.get(b"content-type", b"").lower().startswith(b"multipart/form-data")


def _is_json(sent: Mapping[bytes, bytes]) -> bool:
    """Whether a body counts as JSON, by the headers that were sent, see :class:`JsonRequest`."""
    kind = sent.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if b"origin" not in sent:
        return kind != b"multipart/form-data"
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))


async def parse(body: bytes | bytearray, life: Life, check: Callable[[Any], T] = lambda parsed: parsed) -> T:
    """Parse JSON and check it; a large one by a thread, and what it takes counts as its request's.

    Raises:
        BodyRefused: too many values (413), or too much at once (429).
        Refused: 499, the client left.
        ValueError: not JSON.
        RecursionError: too deep.
    """
    if len(body) <= SMALL:
        return check(load_json(body))
    async with life.turn():  # from now on it is seen if the client leaves
        (values, wide), most = await asyncio.to_thread(look_at, body), life.lives.limits.max_body_values
        if values > most:
            limit = f"the limit is {most:,} (max_body_values): send less at once"
            raise BodyRefused(Failure(413, "body_too_large", f"the body has up to {values:,} values, {limit}"))
        life.take(len(body) * (_WIDEST if wide else 1) + _VALUE_BYTES * values)
        life.check_there()
        parsed = await asyncio.to_thread(load_parts, body, load_json)
        life.check_there()
        if wide:  # mostly a title beside a picture, which is not
            life.give_back(max(0, _WIDEST * len(body) - await asyncio.to_thread(bytes_of_texts, parsed)))
        return await asyncio.to_thread(check, parsed)


def load_json(body: bytes | bytearray) -> Any:
    """Parse JSON as :mod:`json` does, in a sixth of its time.

    >>> load_json(b'{"n": [NaN, 123456789012345678901]}')
    {'n': [nan, 123456789012345678901]}

    Raises:
        ValueError: not JSON.
        RecursionError: too deep.
    """
    try:
        return from_json(body, cache_strings="keys")
    except ValueError:  # also of half a surrogate pair, a byte order mark, hundreds of levels; or it is said where
        return json.loads(body)


def bytes_of_texts(parsed: Any) -> int:
    """Memory of all texts in parsed JSON.

    >>> bytes_of_texts({"a": ["b" * 1000, "ä" * 1000]}) // 1000
    2
    """
    size, left = 0, [parsed]
    while left:
        one = left.pop()
        if isinstance(one, str):
            size += sys.getsizeof(one)
        elif isinstance(one, dict):
            left += one.keys()
            left += one.values()
        elif isinstance(one, list):
            left += one
    return size


def look_at(body: bytes | bytearray) -> tuple[int, bool]:
    """Upper bound of the number of JSON values, and whether texts may have characters beyond ASCII; nothing is parsed.

    Commas and brackets in texts count too. It takes a fortieth of the time of parsing, mostly without Python's lock.

    >>> look_at(b'{"input": ["a", "b"]}')
    (5, False)
    """
    values, whole = 1, np.frombuffer(body, np.uint8)
    for start in range(0, len(whole), _PIECE):
        piece = whole[start : start + _PIECE]
        values += sum(int(np.count_nonzero(piece == sign)) for sign in _BEGIN_VALUES)
    return values, not body.isascii() or (b"\\" in body and b"\\u" in body)  # of which the second takes long


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


def with_nulls(answer: BaseModel) -> dict[str, Any]:
    """An answer of which also the fields that are None are written."""
    return answer.model_dump(mode="json")


def _parts(value: Any) -> Iterator[bytes]:
    """The JSON of a value, item by item where it is long: writing all at once would hold up every other thread."""
    if isinstance(value, BaseModel):
        before, short = b"{", dict[str, Any]()  # fields that are written together
        for name, field in _plain(value).items():
            if type(field) in _SHORT or not isinstance(field, _LARGE):
                short[name] = field
                continue
            if short:
                yield before + write_json(short)[1:-1]
                before, short = b",", {}
            yield b'%s"%s":' % (before, name.encode())
            yield from _parts(field)
            before = b","
        if short:
            yield before + write_json(short)[1:-1]
            before = b","
        yield b"{}" if before == b"{" else b"}"
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
