"""Fields of an index: check their names, pick the vector field, and make documents and hits from their values."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

from ...errors import EngineError
from ...values import did_you_mean
from ..cells import CellError, Vector, make_payload
from .address import IndexAddress
from .base import Document, IndexHit, Similarity


def check_fields(address: IndexAddress, known: Collection[str], index: str, *, whole: bool = False) -> None:
    """Check that the index has the fields that an address names, as fields or inside of fields.

    ``known`` are the names of its fields; with ``whole``, also of those inside of fields.

    Raises:
        EngineError: a field does not exist; the message suggests similar names.
    """
    for option in ("id", "text", "image"):
        name = getattr(address, option)
        if name is not None and (name if whole else column_of(name, known)) not in known:
            near = did_you_mean(name, known)
            raise EngineError(f"{address.place}: {option}={name!r} is no field of {index}: {near}")


def pick_vector(address: IndexAddress, dense: Collection[str], others: Mapping[str, str], index: str) -> str:
    """The vector field that the address names, or the only one of the index.

    Args:
        address: of the index.
        dense: names of the fields that hold one vector of floats per document.
        others: names of all other fields -> their content, for messages.
        index: name of the index, for messages.

    Raises:
        EngineError: the field does not exist or holds something else; or there is no such field, or several.
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
    """The field that contains a dotted name; the name itself if no field does.

    >>> column_of("metadata.photo.url", ["metadata"]), column_of("photo.url", ["metadata"])
    ('metadata', 'photo.url')
    """
    return name if name in known else next((column for column in known if name.startswith(f"{column}.")), name)


def value_of(values: Mapping[str, Any], name: str | None) -> Any:
    """The value of a field, or of a dotted path into nested fields; None if there is none."""
    if name is None or name in values:
        return None if name is None else values[name]
    for column, inner in values.items():
        if isinstance(inner, Mapping) and name.startswith(f"{column}."):
            return value_of(inner, name.removeprefix(f"{column}."))
    return None


def pick_metric(address: IndexAddress, name: str, known: Mapping[str, Similarity]) -> Similarity:
    """Translate the engine's name of a metric.

    Raises:
        EngineError: we do not compare by it.
    """
    if name not in known:
        raise EngineError(f"{address.place}: its vectors are compared by {name}, not by {', '.join(known)}")
    return known[name]


def text_or_none(value: object) -> str | None:
    """A caption field as a text; a list is joined by commas, an empty value is None."""
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value if item not in (None, ""))
    return None if value is None or value == "" else str(value)


def picture_or_none(value: object) -> str | bytes | None:
    """A picture field: bytes of an image file, or its path or URL; an empty value is None.

    Hugging Face's mapping of bytes and path is accepted, as in Parquet.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    return bytes(value) or None if isinstance(value, bytes | bytearray | memoryview) else text_or_none(value)


def from_base64(value: Any) -> Any:
    """Decode base64; any other value is returned unchanged."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        return value


def make_document(
    address: IndexAddress, id_: object, vector: Vector | None, values: MutableMapping[str, Any], dimension: int
) -> Document:
    """Make a document from the values of its fields; caption and picture are removed from ``values``.

    A vector of another length than ``dimension``, or a missing id, becomes its ``problem``.
    """
    text, image = (value_of(values, name) for name in (address.text, address.image))
    for name in (address.text, address.image):
        values.pop(name or "", None)
    problem, payload = None, dict[str, Any]()
    if vector is not None and vector.shape != (dimension,):
        problem, vector = f"its vector has the shape {vector.shape}, others ({dimension},)", None
    try:
        payload = make_payload(values)
    except CellError as error:
        problem = problem or str(error)
    if id_ is None or id_ == "":
        id_, problem = "", problem or f"it has no {address.id or 'id'!r}"
    return Document(str(id_), vector, text_or_none(text), picture_or_none(image), payload, problem)


def make_hit(address: IndexAddress, id_: object, score: float, values: Mapping[str, Any]) -> IndexHit:
    """Make a hit from the values of its fields."""
    text, image = (value_of(values, name) for name in (address.text, address.image))
    return IndexHit(str(id_), score, text_or_none(text), picture_or_none(image))
