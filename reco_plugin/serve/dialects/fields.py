"""Fields that several dialects have: the role, truncation and dimension; and the refusal of what is not supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter
from pydantic import BeforeValidator

from ...types import InputType
from ..embedder import Embedder
from ..failures import Failure, Refused
from ..routing import Shape, route_class

DIMENSION = "the model's own, or one that it was trained to be cut to"
"""Description of fields for the dimension."""
Truncate: TypeAlias = Annotated[
    Literal["NONE", "START", "END"], BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)
]
"""Where a long text is cut. Elasticsearch writes it in lower case."""
_ROLES: dict[str, InputType | None] = {
    "query": "query",
    "search": "query",
    "search_query": "query",
    "internal_search": "query",  # Elasticsearch's own, of its searches and its indexing
    "internal_ingest": "document",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "ingest": "document",
    "search_document": "document",
    "retrieval.passage": "document",
    "image": "document",  # Cohere's, for the images of an index
    "unspecified": None,
    "classification": None,
    "clustering": None,
    "separation": None,
    "text-matching": None,
}
_ENDS_OF_TASKS: dict[str, InputType] = {".query": "query", ".passage": "document"}
"""How Jina's tasks end: ``code.query``, ``nl2code.passage``."""


def dialect_router(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> APIRouter:
    """Make the router of a dialect. Its failures have this shape, and these headers."""
    failures: dict[int | str, dict[str, Any]] = {
        "4XX": {"description": "refused; the message says why, in the format of this API"},
        "5XX": {"description": "the memory, the model server or the service failed"},
    }
    return APIRouter(route_class=route_class(shape, headers), tags=["dialects"], responses=failures)


def input_type_of(**fields: str | None) -> InputType | None:
    """Return query or document, from the fields that may name it; None without one, and for symmetric tasks.

    >>> input_type_of(input_type="passage", task=None)
    'document'
    """
    given = {name: value for name, value in fields.items() if value is not None}
    roles = {_role(name, value) for name, value in given.items()}
    if len(roles) > 1:
        message = f"{' and '.join(f'{name}={value}' for name, value in given.items())} contradict each other"
        raise Refused(Failure(400, "contradicting_roles", message, next(iter(given))))
    return roles.pop() if roles else None


def _role(name: str, value: str) -> InputType | None:
    if value in _ROLES:
        return _ROLES[value]
    for end, role in _ENDS_OF_TASKS.items():
        if value.endswith(end):
            return role
    message = f"{name} is {value!r:.60}, which is none of {', '.join(_ROLES)}"
    raise Refused(Failure(400, "unknown_role", message, name))


def truncates(**fields: bool | str | None) -> bool:
    """Return whether long texts are cut: True unless a field says otherwise.

    A cut at the start (START) is not supported. It refuses long texts only.

    >>> truncates(truncate="END"), truncates(truncate="START"), truncates(truncate=None, truncation=False)
    (True, False, False)
    """
    return not any(value is False or value in ("NONE", "START") for value in fields.values())


def dimension_of(embedder: Embedder, **fields: int | None) -> int | None:
    """Return the dimension to which vectors are cut; None for the model's own.

    Refuse a dimension for which the model was not trained: such vectors rank differently.
    """
    native, trained = embedder.dimension, embedder.reco.manifest.matryoshka
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if value != native and value not in trained:
            message = f"{name} is {value}, the model has {native} and cannot be cut short: leave it out or say {native}"
            if trained:
                message = (
                    f"{name} is {value}, the model has {native}, or cut to {', '.join(map(str, trained))}, for which it"
                    " was trained: ask for one of these"
                )
            raise Refused(Failure(400, "unsupported_dimensions", message, name))
    if len(set(given.values())) > 1:
        message = f"{' and '.join(f'{name}={value}' for name, value in given.items())} contradict each other"
        raise Refused(Failure(400, "unsupported_dimensions", message, next(iter(given))))
    return next((value for value in given.values() if value != native), None)


def check_supported(field: str, value: object, supported: Sequence[object]) -> None:
    """Refuse a value that this model cannot follow, instead of ignoring it. None is always accepted."""
    if value is not None and value not in supported:
        words = f", and only {' or '.join(json.dumps(one) for one in supported)} is offered here" if supported else ""
        message = f"{field} is {json.dumps(value):.60}{words or ', which is not offered here: leave it out'}"
        raise Refused(Failure(400, f"unsupported_{field}", message, field))
