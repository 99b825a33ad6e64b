"""JSON of answers: vectors are written from their arrays, without a list of Python's floats between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
from fastapi import Response
from pydantic import BaseModel
from pydantic_core import to_json

from ..types import Vectors

Answer: TypeAlias = BaseModel | Mapping[str, Any] | Sequence[Any] | Vectors
"""What a route answers."""


def answer_json(written: bytes) -> Response:
    """An answer that is written already."""
    return Response(written, media_type="application/json")


def with_nulls(answer: BaseModel) -> dict[str, Any]:
    """An answer of which also the fields that are None are written."""
    return answer.model_dump(mode="json")


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
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not written as JSON")
