"""What all engines do with fields: check their names, pick that of the vectors, make documents of their values."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from ...errors import EngineError
from ...values import did_you_mean
from ..cells import CellError, Vector, payload_of
from .address import IndexAddress
from .base import Document, IndexHit


def check_fields(address: IndexAddress, known: Collection[str], index: str, *, whole: bool = False) -> None:
    """Check that the fields which an address names are there, or lie within one that is there.

    Args:
        address: names them.
        known: names of the fields that there are.
        index: as people call it.
        whole: whether these are all names, also of fields within others.

    Raises:
        EngineError: one is not; names the most similar ones.
    """
    for option in ("id", "text", "image"):
        name = getattr(address, option)
        if name is not None and (name if whole else column_of(name, known)) not in known:
            near = did_you_mean(name, known)
            raise EngineError(f"{address.place}: {option}={name!r} is no field of {index}: {near}")


def pick_vector(address: IndexAddress, dense: Collection[str], others: Mapping[str, str], index: str) -> str:
    """The field of the vectors: the one that the address names, or the only one that there is.

    Args:
        address: whose ``vector`` may be None.
        dense: names of the fields that hold vectors of floats, one a document.
        others: names of all other fields -> what they hold, for messages.
        index: as people call it.

    Raises:
        EngineError: no such field, none or several to choose from, or one that holds something else.
    """
    place, name = address.place, address.vector
    if name is None:
        if len(dense) == 1:
            return next(iter(dense))
        has = f"it has {', '.join(map(repr, dense)) or 'none'}"
        kinds = (f"{other!r} holds {kind}" for other, kind in others.items() if "vector" in kind)
        raise EngineError(
            f"{place}: say which field of {index} holds the vectors, vector=NAME: {'; '.join([has, *kinds])}"
        )
    if name in dense:
        return name
    if name in others:
        raise EngineError(
            f"{place}: the field {name!r} holds {others[name]}, and refined queries are compared with vectors of floats"
        )
    raise EngineError(f"{place}: vector={name!r} is no field of {index}: {did_you_mean(name, dense or others)}")


def column_of(name: str, known: Collection[str]) -> str:
    """The field in which a name with dots lies; else the name.

    >>> column_of("metadata.photo.url", ["metadata"]), column_of("photo.url", ["metadata"])
    ('metadata', 'photo.url')
    """
    return name if name in known else next((column for column in known if name.startswith(f"{column}.")), name)


def value_of(values: Mapping[str, Any], name: str | None) -> Any:
    """A value by its name, or by names with dots between them, one within another; None where it is not there."""
    if name is None or name in values:
        return None if name is None else values[name]
    for column, inner in values.items():
        if isinstance(inner, Mapping) and name.startswith(f"{column}."):
            return value_of(inner, name.removeprefix(f"{column}."))
    return None


def text_or_none(value: object) -> str | None:
    """The value of a caption's field as a text, of several the texts with commas between; None where it is empty."""
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value if item not in (None, ""))
    return None if value is None or value == "" else str(value)


def picture_or_none(value: object) -> str | bytes | None:
    """The value of a picture's field: bytes are the picture itself; None where it is empty.

    As in Parquet, it may be Hugging Face's mapping of bytes and path.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    return bytes(value) or None if isinstance(value, bytes | bytearray | memoryview) else text_or_none(value)


def from_base64(value: Any) -> Any:
    """The bytes of a picture that is sent as base64; anything else as it is."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        return value


def make_document(
    address: IndexAddress, id_: object, vector: Vector | None, values: MutableMapping[str, Any], dimension: int
) -> Document:
    """One document of its fields' values; those of caption and picture are taken out, but for one within another.

    A vector of another length than ``dimension``, or the lack of an id, is its problem.
    """
    text, image = (value_of(values, name) for name in (address.text, address.image))
    for name in (address.text, address.image):
        values.pop(name or "", None)
    problem, payload = None, dict[str, Any]()
    if vector is not None and vector.shape != (dimension,):
        problem, vector = f"its vector has the shape {vector.shape}, others ({dimension},)", None
    try:
        payload = payload_of(values)
    except CellError as error:
        problem = problem or str(error)
    if id_ is None or id_ == "":
        id_, problem = "", problem or f"it has no {address.id or 'id'!r}"
    return Document(str(id_), vector, text_or_none(text), picture_or_none(image), payload, problem)


def make_hit(address: IndexAddress, id_: object, score: float, values: Mapping[str, Any]) -> IndexHit:
    """One hit of its fields' values, of which those of the caption and the picture are shown."""
    text, image = (value_of(values, name) for name in (address.text, address.image))
    return IndexHit(str(id_), score, text_or_none(text), picture_or_none(image))
