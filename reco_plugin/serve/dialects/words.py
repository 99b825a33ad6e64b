"""Shared by the dialects: roles, encodings of a vector, unsupported fields, and failures in the OpenAPI document."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator

from ...types import InputType
from ..failures import Failure, Refused
from ..routes import Shape, answering_in
from ..schemas import ERRORS

DTYPES = ("float", "int8", "uint8", "binary", "ubinary")
"""Precisions of a vector, see :func:`quantise`."""
RANGE = 20.0
"""Largest component in int8, in units of 1/√D, the root mean square: CLIP has a dimension at 14 to 19 that all images
share, and clipping it costs a third of the neighbours (docs/measurements/quantised.md)."""
Cut: TypeAlias = Annotated[
    Literal["NONE", "START", "END"], BeforeValidator(lambda given: given.upper() if isinstance(given, str) else given)
]
"""Where long texts are cut; Elasticsearch writes it in lower case."""
_SIDES: dict[str, InputType | None] = {
    "query": "query",
    "search": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "ingest": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "image": "document",  # Cohere's, for the images of an index
    "classification": None,
    "clustering": None,
    "separation": None,
    "text-matching": None,
}
_SIDES_OF_TASKS: dict[str, InputType] = {".query": "query", ".passage": "document"}
"""How Jina's tasks end: ``code.query``, ``nl2code.passage``."""


def dialect_router(
    error: type[BaseModel], shape: Shape | None = None, headers: Callable[[Failure], dict[str, str]] = lambda _: {}
) -> APIRouter:
    """Make the router of a dialect, whose failures are ``error``; without ``shape``, the message is its one field."""
    (name, *_) = error.model_fields
    route = answering_in(shape or (lambda failure: {name: failure.message}), headers)
    return APIRouter(route_class=route, tags=["dialects"], responses=errors_as(error))


def errors_as(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """All failures that a dialect can answer, in its shape."""
    texts = {status: answer["description"] for status, answer in ERRORS.items()}
    texts |= {424: "the URL of an image could not be fetched"}
    return {status: {"model": model, "description": text} for status, text in texts.items()}


def side_of(**fields: str | None) -> InputType | None:
    """Query or document, from all fields that may give it; None if none does, or for symmetric tasks.

    >>> side_of(input_type="passage", task=None)
    'document'

    Raises:
        Refused: an unknown value, or fields that contradict one another.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    sides = {_side(name, value) for name, value in given.items()}
    if len(sides) > 1:
        message = f"{' and '.join(f'{name}={value}' for name, value in given.items())} contradict each other"
        raise Refused(Failure(400, "contradicting_roles", message, next(iter(given))))
    return sides.pop() if sides else None


def _side(name: str, value: str) -> InputType | None:
    if value in _SIDES:
        return _SIDES[value]
    for end, side in _SIDES_OF_TASKS.items():
        if value.endswith(end):
            return side
    message = f"{name} is {value!r:.60}, which is none of {', '.join(_SIDES)}"
    raise Refused(Failure(400, "unknown_role", message, name))


def truncates(**fields: bool | str | None) -> bool:
    """Whether long texts are cut; True unless a field says otherwise.

    START, a cut at the start, is not offered: a text that is too long is refused then, and the others are not.

    >>> truncates(truncate="END"), truncates(truncate="START"), truncates(truncate=None, truncation=False)
    (True, False, False)
    """
    return not any(value is False or value in ("NONE", "START") for value in fields.values())


def check_dimensions(native: int, **fields: int | None) -> None:
    """Accept only the model's own number of dimensions: CLIP vectors cannot be truncated.

    Raises:
        Refused: another one.
    """
    for name, value in fields.items():
        if value is not None and value != native:
            message = f"{name} is {value}, the model has {native} and cannot be cut short: leave it out or say {native}"
            raise Refused(Failure(400, "unsupported_dimensions", message, name))


def check_offered(field: str, value: object, offered: Sequence[object]) -> None:
    """Refuse a value that this model cannot follow, instead of ignoring it; None is always accepted.

    Raises:
        Refused: the value is not among those offered.
    """
    if value is not None and value not in offered:
        words = f", and only {' or '.join(json.dumps(one) for one in offered)} is offered here" if offered else ""
        message = f"{field} is {json.dumps(value):.60}{words or ', which is not offered here: leave it out'}"
        raise Refused(Failure(400, f"unsupported_{field}", message, field))


def quantise(vectors: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Unit vectors (..., D) with less precision, in the forms of Cohere and Voyage.

    int8 and uint8 (shifted by 128): 127 is a component of 20/√D, or 1. The range is the same for every component,
    vector and memory, so dot products keep their order and an existing index still fits. binary and ubinary
    (..., D/8): the signs, eight to a byte, the first in the highest bit; binary is shifted by -128.

    >>> quantise(np.array([[1, 0, 0, 0, 0, 0, 0, -1]], np.float32) / np.float32(2**0.5), "ubinary").tolist()
    [[128]]
    """
    if dtype == "float":
        return vectors
    if dtype in ("binary", "ubinary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    scale = 127 * max(1.0, vectors.shape[-1] ** 0.5 / RANGE)
    whole: npt.NDArray[np.float32] = np.clip(np.rint(vectors * scale), -127, 127)
    return whole.astype(np.int8) if dtype == "int8" else (whole + 128).astype(np.uint8)


def write_vector(
    vector: npt.NDArray[np.float32], form: str | None, dtype: str | None = None
) -> list[float] | list[int] | str:
    """A vector (D,) as a list, or as base64 of its little-endian bytes, as in OpenAI's API.

    >>> write_vector(np.array([1.0, 0.0], np.float32), "base64")
    'AACAPwAAAAA='
    """
    numbers = quantise(vector, dtype or "float")
    if form == "base64":
        return base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode("ascii")
    plain: list[float] | list[int] = numbers.tolist()
    return plain
