"""Statuses of a dialect's routes for the OpenAPI document, each with the dialect's own shape."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from ...types import InputType
from ..failures import Failure, Refused
from ..schemas import ERRORS

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


def errors_as(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """All failures that a dialect can answer, in its shape."""
    texts = {status: answer["description"] for status, answer in ERRORS.items()}
    texts |= {424: "the URL of an image could not be fetched"}
    return {status: {"model": model, "description": text} for status, text in texts.items()}


def side_of(**fields: str | None) -> InputType | None:
    """Query or document, by all fields that may say so; None where none does, or where both are alike.

    >>> side_of(input_type="passage", task=None)
    'document'

    Raises:
        Refused: a word that is unknown, or fields that contradict one another.
    """
    said = {name: value for name, value in fields.items() if value is not None}
    for name, value in said.items():
        if value not in _SIDES:
            message = f"{name} is {value!r:.60}, which is none of {', '.join(_SIDES)}"
            raise Refused(Failure(400, "unknown_role", message, name))
    sides = {_SIDES[value] for value in said.values()}
    if len(sides) > 1:
        message = f"{' and '.join(f'{name}={value}' for name, value in said.items())} contradict each other"
        raise Refused(Failure(400, "contradicting_roles", message, next(iter(said))))
    return sides.pop() if sides else None


def truncates(**fields: bool | str | None) -> bool:
    """Whether long texts are cut, which they are unless a field says otherwise.

    Raises:
        Refused: a text shall be cut at its start, which this encoder does not do.
    """
    for name, value in fields.items():
        if value == "START":
            message = f"{name}=START is not offered: texts are cut at their end (END), or refused (NONE)"
            raise Refused(Failure(400, "unsupported_truncation", message, name))
    return not any(value is False or value == "NONE" for value in fields.values())


def check_dimensions(native: int, **fields: int | None) -> None:
    """Accept the model's own number of dimensions only: CLIP vectors cannot be cut short.

    Raises:
        Refused: another one.
    """
    for name, value in fields.items():
        if value is not None and value != native:
            message = f"{name} is {value}, the model has {native} and cannot be cut short: leave it out or say {native}"
            raise Refused(Failure(400, "unsupported_dimensions", message, name))


def check_offered(field: str, value: object, offered: Sequence[object]) -> None:
    """Refuse what would need another model or kind of vector, instead of ignoring it; None is always well.

    Raises:
        Refused: the value is not among those offered.
    """
    if value is not None and value not in offered:
        words = " or ".join(json.dumps(one) for one in offered)
        message = f"{field} is {json.dumps(value):.60}, and only {words} is offered here"
        raise Refused(Failure(400, f"unsupported_{field}", message, field))


def as_base64(vector: npt.NDArray[np.float32]) -> str:
    """A vector as OpenAI writes it: base64 of little-endian float32.

    >>> as_base64(np.array([1.0, 0.0], np.float32))
    'AACAPwAAAAA='
    """
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def written(vector: npt.NDArray[np.float32], form: str | None) -> list[float] | str:
    """A vector as a list or as base64."""
    return as_base64(vector) if form == "base64" else list(map(float, vector))
