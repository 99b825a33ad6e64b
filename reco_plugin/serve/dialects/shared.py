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
from ..edge import Caller
from ..embedder import AnswerRow, Embedded, Embedder, EmbedRequest, Item
from ..failures import Failure, Refused, too_many_items
from ..items import EMPTY, text_item, text_or_image_item
from ..routes import Shape, answering_in
from ..schemas import most_items
from ..wire import Answer, as_written

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
InputPart: TypeAlias = "str | Picture"
"""A text or an image."""
_TINY = 1e-12


@dataclass(frozen=True)
class Picture:
    """An image as a request writes it: a data URI or bare base64."""

    source: str


@dataclass(frozen=True, kw_only=True)
class Wanted(EmbedRequest):
    """A request of any dialect, whose items are not read yet."""

    inputs: Mapping[str, Sequence[InputPart]]
    """By the caller's name, ``input[3]``. Several parts become one vector; none, beside a picture, zeros, which
    leave a mean as it is; else an error."""
    part_names: Sequence[str] = ()  # of the parts of an input, where the caller names them
    empty_texts: bool = False  # embed an empty text instead of refusing it


def numbered(name: str, inputs: Iterable[Sequence[InputPart]]) -> dict[str, Sequence[InputPart]]:
    """The inputs of a list, by their places in it: ``input[3]``."""
    return {f"{name}[{index}]": parts for index, parts in enumerate(inputs)}


async def answer(
    caller: Caller, wanted: Wanted, write: Callable[[Embedded], Answer], cut: int | None = None
) -> Response:
    """Read all parts, embed them in one call, combine those of each input, cut their vectors, and write the answer.

    Args:
        caller: the request.
        wanted: what it asks for.
        write: makes the answer of one row per input, whose failure names it; see :meth:`Caller.answer`.
        cut: dimension that the answer's vectors are cut to; None: what ``wanted`` says.

    Raises:
        Refused: the whole request; one bad input fails in its row.
        RecoError: nothing could be embedded.
    """
    cut = wanted.cut if cut is None else cut
    inputs = {name: _without_blanks(parts) for name, parts in wanted.inputs.items()}
    parts = [part for parts in inputs.values() for part in parts]
    if len(parts) > most_items.get():  # of all inputs together
        raise Refused(too_many_items(len(parts), most_items.get()))
    most = caller.settings.max_image_bytes

    def read(part: InputPart) -> Item | Failure:
        if isinstance(part, str):
            return text_item(part, empty=wanted.empty_texts)
        return text_or_image_item(None, part.source, most)

    items = await caller.make(lambda: [read(part) for part in parts])
    alone = cut is None and all(len(some) == 1 for some in inputs.values())

    def write_joined(found: Embedded) -> Answer:
        if alone and all(row.failure is None for row in found.rows):
            return write(found)
        zeros = np.zeros(caller.embedder.dimension, np.float32)
        nothing = AnswerRow(zeros, zeros, failure=None if any(isinstance(part, Picture) for part in parts) else EMPTY)
        rows = iter(found.rows)
        taken = {name: list(islice(rows, len(some))) or [nothing] for name, some in inputs.items()}
        rows_of = [_join(some, name, wanted.part_names) for name, some in taken.items()]
        return write(replace(found, rows=rows_of if cut is None else [_cut(row, cut) for row in rows_of]))

    return await caller.answer(replace(wanted, items=items, cut=cut), write_joined)


def _without_blanks(parts: Sequence[InputPart]) -> Sequence[InputPart]:
    """The parts of an input without empty texts, if there is another part beside them."""
    if len(parts) < 2:
        return parts
    return [part for part in parts if not isinstance(part, str) or part.strip()] or parts[:1]


def _join(parts: Sequence[AnswerRow], name: str, part_names: Sequence[str]) -> AnswerRow:
    """The row of an input: of several parts, the direction of their mean, which does not say how each was refined."""
    for number, part in enumerate(parts):
        if part.failure is not None:
            zeros = np.zeros_like(part.vector)
            return AnswerRow(zeros, zeros, failure=part.failure.at(part_names[number] if part_names else name))
    if len(parts) == 1:
        return parts[0]
    return AnswerRow(
        mean_direction([part.vector for part in parts]),
        mean_direction([part.frozen for part in parts]),
        truncated=any(part.truncated for part in parts),
        tokens=sum(part.tokens for part in parts),
    )


def _cut(row: AnswerRow, dimension: int) -> AnswerRow:
    """A row with the first numbers of its vectors (D,), unit-norm; it was refined at full length."""
    vector, frozen = (mean_direction([full[:dimension]]) for full in (row.vector, row.frozen))
    return replace(row, vector=vector, frozen=frozen, scale=None)


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
    """A vector (D,) as its array, see :func:`.as_written`, or as base64 of its little-endian bytes, as in OpenAI's API.

    >>> write_vector(np.array([1.0, 0.0], np.float32), "base64")
    'AACAPwAAAAA='
    """
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return as_written(vector)
