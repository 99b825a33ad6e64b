"""What the dialects share: their inputs, roles, encodings of a vector, and unsupported fields.

An input is one or more texts and images, for which there is one vector. An empty text beside a picture is left out:
search engines send a document whose title is missing so, and would lose it by an error.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Response
from pydantic import BeforeValidator

from ...types import InputType
from ..embedder import AnswerRow, Embedded, Embedder, EmbedRequest
from ..failures import Failure, Refused
from ..items import EMPTY, Item
from ..request_context import Life
from ..routing import Shape, answering_in
from ..wire import Answer

Cut: TypeAlias = Annotated[
    Literal["NONE", "START", "END"], BeforeValidator(lambda given: given.upper() if isinstance(given, str) else given)
]
"""Where long texts are cut; Elasticsearch writes it in lower case."""
_SIDES: dict[str, InputType | None] = {
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
_SIDES_OF_TASKS: dict[str, InputType] = {".query": "query", ".passage": "document"}
"""How Jina's tasks end: ``code.query``, ``nl2code.passage``."""
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Wanted(EmbedRequest):
    """A request of any dialect; its items are the parts of its inputs."""

    inputs: Mapping[str, Sequence[Item]]
    """By the caller's name, ``input[3]``. Several parts become one vector; none, beside a picture, zeros, which
    leave a mean as it is; else an error."""


def numbered(name: str, inputs: Iterable[Sequence[Item]]) -> dict[str, Sequence[Item]]:
    """The inputs of a list, by their places in it: ``input[3]``."""
    return {f"{name}[{index}]": parts for index, parts in enumerate(inputs)}


async def answer(life: Life, wanted: Wanted, write: Callable[[Embedded], Answer]) -> Response:
    """Embed all parts in one call, combine those of each input, cut their vectors, and write the answer.

    Args:
        life: the request.
        wanted: what it asks for.
        write: makes the answer of one row per input; see :meth:`Life.answer`.

    Raises:
        Refused: the whole request; a bad input is named.
        RecoError: nothing could be embedded.
    """
    inputs = {name: _without_blanks(parts) for name, parts in wanted.inputs.items()}
    items = [part for parts in inputs.values() for part in parts]
    if not any(item.is_picture for item in items):
        for name, parts in inputs.items():
            if not parts:
                raise Refused(EMPTY.at(name))
    alone = wanted.cut is None and all(len(parts) == 1 for parts in inputs.values())

    def write_joined(found: Embedded) -> Answer:
        if alone:
            return write(found)
        zeros, rows = np.zeros(life.edge.embedder.dimension, np.float32), iter(found.rows)
        made = [_join(list(islice(rows, len(parts))), zeros) for parts in inputs.values()]
        return write(replace(found, rows=made if wanted.cut is None else [_cut(row, wanted.cut) for row in made]))

    names = wanted.names or [name for name, parts in inputs.items() for _ in parts]
    return await life.answer(replace(wanted, items=items, names=names), write_joined)


def _without_blanks(parts: Sequence[Item]) -> Sequence[Item]:
    """The parts of an input without empty texts, if there is another part beside them."""
    if len(parts) < 2:
        return parts
    return [part for part in parts if not isinstance(part.content, str) or part.content.strip()] or parts[:1]


def _join(parts: Sequence[AnswerRow], zeros: npt.NDArray[np.float32]) -> AnswerRow:
    """The row of an input: of several parts, the direction of their mean, which does not say how each was refined."""
    if len(parts) < 2:
        return parts[0] if parts else AnswerRow(zeros, zeros)
    return AnswerRow(
        mean_direction([part.vector for part in parts]),
        mean_direction([part.frozen for part in parts]),
        truncated=any(part.truncated for part in parts),
        tokens=sum(part.tokens for part in parts),
    )


def _cut(row: AnswerRow, dimension: int) -> AnswerRow:
    """A row with the first numbers of its vectors (D,), unit-norm; it was refined at full length."""
    vector, frozen = (mean_direction([full[:dimension]]) for full in (row.vector, row.frozen))
    return replace(row, vector=vector, frozen=frozen, scale=None, least=None)


def mean_direction(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Direction of the mean of P unit vectors (D,).

    >>> mean_direction([np.float32([1, 0]), np.float32([0, 1])]).round(3).tolist()
    [0.7070000171661377, 0.7070000171661377]
    """
    mean = np.stack(parts).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), _TINY), np.float32)


def dialect_router(shape: Shape, headers: Callable[[Failure], dict[str, str]] = lambda _: {}) -> APIRouter:
    """Make the router of a dialect, whose failures have this shape, and these headers."""
    failures: dict[int | str, dict[str, Any]] = {
        "4XX": {"description": "refused; the message says why, in the shape of the dialect"},
        "5XX": {"description": "the memory, the model server or the service failed"},
    }
    return APIRouter(route_class=answering_in(shape, headers), tags=["dialects"], responses=failures)


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


def cut_to(embedder: Embedder, **fields: int | None) -> int | None:
    """The dimension that vectors are cut to, None for the model's own; only what the model was trained for.

    Raises:
        Refused: another one, of which the rest would not rank as the whole does.
    """
    native, cuts = embedder.dimension, embedder.reco.manifest.matryoshka
    said = {name: value for name, value in fields.items() if value is not None}
    for name, value in said.items():
        if value != native and value not in cuts:
            has = f"{name} is {value}, the model has {native}"
            message = f"{has} and cannot be cut short: leave it out or say {native}"
            if cuts:
                message = (
                    f"{has}, or cut to {', '.join(map(str, cuts))}, for which it was trained: ask for one of these"
                )
            raise Refused(Failure(400, "unsupported_dimensions", message, name))
    if len(set(said.values())) > 1:
        message = f"{' and '.join(f'{name}={value}' for name, value in said.items())} contradict each other"
        raise Refused(Failure(400, "unsupported_dimensions", message, next(iter(said))))
    return next((value for value in said.values() if value != native), None)


def check_offered(field: str, value: object, offered: Sequence[object]) -> None:
    """Refuse a value that this model cannot follow, instead of ignoring it; None is always accepted.

    Raises:
        Refused: the value is not among those offered.
    """
    if value is not None and value not in offered:
        words = f", and only {' or '.join(json.dumps(one) for one in offered)} is offered here" if offered else ""
        message = f"{field} is {json.dumps(value):.60}{words or ', which is not offered here: leave it out'}"
        raise Refused(Failure(400, f"unsupported_{field}", message, field))


def write_vector(vector: npt.NDArray[np.float32], form: str | None) -> Any:
    """A vector (D,) as its array, or as base64 of its little-endian bytes, as in OpenAI's API.

    >>> write_vector(np.array([1.0, 0.0], np.float32), "base64")
    'AACAPwAAAAA='
    """
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return vector
