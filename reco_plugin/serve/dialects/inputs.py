"""Inputs of all dialects: one or more texts and images per input, one vector per input."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from fastapi import Response

from ..answers import Answer
from ..edge import Caller
from ..embedding import AnswerRow, Embedded, EmbedRequest, Item
from ..failures import Failure, Refused, too_many_items
from ..images import image_bytes, is_bare_picture, is_url
from ..schemas import most_items


@dataclass(frozen=True)
class Picture:
    """An image as a request writes it: a data URI, bare base64, or a URL."""

    source: str


InputPart: TypeAlias = "str | Picture"
"""A text or an image."""
_PICTURE = (
    "a text is the base64 of a picture: send it as an image, which is a data:image/…;base64, string or"
    ' {"image": …} in /v1/embeddings, and elsewhere the field for images (inputImage, image_base64, images)'
)
_TINY = 1e-12
_LARGE = 500_000  # characters, whose decoding would block the event loop for a millisecond or more


@dataclass(frozen=True, kw_only=True)
class Wanted(EmbedRequest):
    """A request of any dialect, whose items are not read yet."""

    inputs: Mapping[str, Sequence[InputPart]]  # by the caller's name, ``input[3]``; several parts become one vector
    empty_texts: bool = False  # embed an empty text instead of refusing it


def numbered(name: str, inputs: Iterable[Sequence[InputPart]]) -> dict[str, Sequence[InputPart]]:
    """The inputs of a list, by their places in it: ``input[3]``."""
    return {f"{name}[{index}]": parts for index, parts in enumerate(inputs)}


async def answer(caller: Caller, wanted: Wanted, write: Callable[[Embedded], Answer]) -> Response:
    """Read all parts, embed them in one call, combine those of each input, and write the answer.

    Args:
        caller: the request.
        wanted: what it asks for.
        write: makes the answer of one row per input, whose failure names it; see :meth:`Caller.answer`.

    Raises:
        Refused: the whole request; one bad input fails in its row.
        RecoError: nothing could be embedded.
    """
    parts = [part for parts in wanted.inputs.values() for part in parts]
    if len(parts) > most_items.get():  # of all inputs together
        raise Refused(too_many_items(len(parts), most_items.get()))
    items = await asyncio.gather(*(read(part, caller, empty_texts=wanted.empty_texts) for part in parts))

    def write_joined(found: Embedded) -> Answer:
        rows = iter(found.rows)
        joined = [_join(list(islice(rows, len(some))), name) for name, some in wanted.inputs.items()]
        return write(replace(found, rows=joined))

    return await caller.answer(replace(wanted, items=items), write_joined)


async def read(part: InputPart, caller: Caller, *, empty_texts: bool = False) -> Item | Failure:
    """A part as an item, or why it cannot be read."""
    if isinstance(part, str):
        if not part and not empty_texts:
            return Failure(400, "empty_text", "a text is empty: leave it out")
        if is_bare_picture(part):
            return Failure(400, "image_as_text", _PICTURE)
        return Item.text(part)
    try:
        return Item.image(await _bytes(part.source, caller))
    except Refused as refused:
        return refused.failure


async def _bytes(source: str, caller: Caller) -> bytes:
    if not is_url(source):
        if len(source) < _LARGE:
            return image_bytes(source, max_bytes=caller.settings.max_image_bytes)
        return await asyncio.to_thread(image_bytes, source, max_bytes=caller.settings.max_image_bytes)
    if caller.fetch is None:
        message = "image URLs are not fetched here (image_urls is off): send the image as a data URI or base64"
        raise Refused(Failure(400, "image_url_forbidden", message))
    return await caller.fetch(source)


def _join(parts: Sequence[AnswerRow], name: str) -> AnswerRow:
    """The row of an input: of several parts, the direction of their mean, which does not say how each was refined."""
    for part in parts:
        if part.failure is not None:
            zeros = np.zeros_like(part.vector)
            return AnswerRow(zeros, zeros, failure=part.failure.at(name))
    if len(parts) == 1:
        return parts[0]
    return AnswerRow(
        mean_direction([part.vector for part in parts]),
        mean_direction([part.frozen for part in parts]),
        truncated=any(part.truncated for part in parts),
        tokens=sum(part.tokens for part in parts),
    )


def mean_direction(parts: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Direction of the mean of P unit vectors (D,).

    >>> mean_direction([np.float32([1, 0]), np.float32([0, 1])]).round(3).tolist()
    [0.7070000171661377, 0.7070000171661377]
    """
    mean = np.stack(parts).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), _TINY), np.float32)
