"""Parse the cells of a row (id, text, image, vector, payload), and make a pair or a rejected row of them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ..errors import VectorError
from ..types import Pair
from ..values import PAYLOAD_LEVELS, check_vectors, is_unicode, show
from .images import RemoteImage
from .location import ColumnNames
from .rows import Rejected

Vector: TypeAlias = npt.NDArray[np.float32]
"""A vector (D,), unit-norm."""
Image: TypeAlias = "Path | bytes | RemoteImage"

_URL = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MISSING = "missing or empty"
_MIN_NUMBERS = 4  # of a vector; a shorter list may be a caption such as "[1]"
_MAX_PATH = 1000  # characters; longer texts are captions in the wrong column, or images in base64


class CellError(Exception):
    """An invalid value; the message says why."""


def parse_id(value: object) -> str:
    """Parse an id: a text, a whole number or a UUID."""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise CellError(f"expected a text or whole number, got {value!r:.60}")
    return _sound(str(value))


def parse_text(value: object) -> str:
    """Parse a caption, and strip blanks."""
    if value is not None and not isinstance(value, str):
        raise CellError(f"expected one caption, got {value!r:.60}; write one row per caption")
    text = (value or "").strip()
    if not text:
        raise CellError(MISSING)
    return _sound(text)


def parse_image(value: object, folder: Path) -> Image:
    """Parse an image: a path relative to ``folder``, a URL, bytes, or Hugging Face's mapping of bytes and path."""
    if isinstance(value, Mapping):
        if not {"bytes", "path"} & value.keys():
            raise CellError(f"expected the fields bytes or path, has {sorted(value)}")
        return parse_image(value.get("bytes") or value.get("path"), folder)
    if value is None or value in ("", b""):
        raise CellError(MISSING)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        several = "; write one row per image" if isinstance(value, Sequence) and len(value) > 1 else ""
        raise CellError(f"expected the path of an image, got {value!r:.60}{several}")
    if _URL.match(value):
        return RemoteImage(_sound(value))
    if scheme := _SCHEME.match(value):
        raise CellError(f"{scheme[0]} is not supported: give paths, http:// or https://, or fetch the images first")
    if len(value) > _MAX_PATH:
        raise CellError(f"expected the path of an image, got {show(value)}")
    path = folder / _sound(value)
    if not os.path.isfile(path):  # noqa: PTH113 - also False if the name is too long
        raise CellError(f"{value!r} is not a file at {str(path)!r}; paths are relative to the table")
    return path


def make_payload(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to JSON values; drop bytes, empty values, and numbers that are not finite."""
    plain = {name: _plain(value, 2) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not None and value != ""}


def parse_json_object(packed: Any, what: str = "payload") -> dict[str, Any]:
    """Parse a payload in JSON, as ``reco memory copy`` writes it."""
    try:
        payload = json.loads(packed)
    except (TypeError, ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise CellError(f"{what} is {packed!r:.60}, expected a JSON object")
    return payload


def unit_rows(block: npt.NDArray[Any]) -> list[Vector | CellError]:
    """Split vectors (N, D) into rows (D,) of exactly unit norm; a bad row becomes its error."""
    try:
        return list(check_vectors(block, block.shape[1]))
    except VectorError:
        return [_unit(row) for row in block]


def parse_numbers(value: object) -> list[float] | None:
    """Parse the numbers of a vector: a list, or a list in JSON. None if the value is something else.

    >>> parse_numbers("[0.6,-8e-1, 1,0]"), parse_numbers([0.6, 0.8, 0.0, 1]), parse_numbers("[a dog]")
    ([0.6, -0.8, 1.0, 0.0], [0.6, 0.8, 0.0, 1.0], None)
    """
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or len(value) < _MIN_NUMBERS:
        return None
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    return [float(number) for number in value] if plain else None


def _unit(row: npt.NDArray[Any]) -> Vector | CellError:
    try:
        vector: Vector = check_vectors(row[None], row.shape[0], "vector")[0]
    except VectorError as error:
        return CellError(str(error).removeprefix("vector[0] "))
    return vector


def _sound(text: str) -> str:
    if not is_unicode(text):
        raise CellError(f"{text!r:.60} is not Unicode: half of a surrogate pair")
    return text


def _plain(value: Any, level: int) -> Any:
    plain: Any = None
    if level > PAYLOAD_LEVELS and isinstance(value, (Mapping, list, tuple)):
        raise CellError(f"payload is nested deeper than {PAYLOAD_LEVELS} levels: make it flatter, or keep it as a text")
    match value:
        case None | bool() | int():
            plain = value
        case float() | Decimal():
            plain = float(value) if math.isfinite(value) else None
        case str():
            plain = _sound(value)
        case bytes():
            pass
        case Mapping():
            plain = {str(name): _plain(inner, level + 1) for name, inner in value.items()}
        case list() | tuple():
            plain = [_plain(inner, level + 1) for inner in value]
        case date() | time():
            plain = value.isoformat()
        case _:
            plain = _sound(str(value))
    return plain


@dataclass(frozen=True)
class RowMaker:
    """Makes pairs from rows."""

    names: ColumnNames
    folder: Path  # base of image paths
    has_ids: bool = False  # whether the source has a column of ids; then each row needs an id
    has_packed_payload: bool = False  # whether the column ``payload`` is JSON, as ``reco memory copy`` writes it

    def make(self, where: str, values: Mapping[str, Any], place: str | None = None) -> Pair | Rejected:
        """Make a pair, or a rejected row with the reason.

        Args:
            where: name of the row, for messages.
            values: by column; an image or a text may be a vector (D,) or a :class:`CellError`.
            place: the id of a row without an id and an image path, if the source has no column of ids.
        """
        names = self.names
        id_, column = None, names.id
        try:
            cell = self._id_cell(values, place)
            if cell is None:
                column = names.id if self.has_ids else names.image  # its path would be the id
                raise CellError(MISSING)
            id_ = parse_id(cell)
            column = names.image
            image = _vector_or(values.get(names.image), partial(parse_image, folder=self.folder))
            column = names.text
            text = _vector_or(values.get(names.text), parse_text)
            column = ""
            payload = self._payload(values)
            path = _path_in_row(values.get(names.image), image)
        except CellError as error:
            at = f", column {column!r}" if column else ""
            has = f"; this row has {sorted(values)}" if column not in ("", *values) else ""
            return Rejected(where + at, f"{error}{has}", id_)
        shown = {"caption": text} if isinstance(text, str) else {}
        shown |= {"image": path} if path not in (None, id_) else {}
        return Pair(id_, image, text, shown | payload, where)

    def _id_cell(self, values: Mapping[str, Any], place: str | None) -> object:
        cell = values.get(self.names.id)
        if self.has_ids or (cell is not None and cell != ""):
            return None if cell == "" else cell
        image = values.get(self.names.image)
        if isinstance(image, Mapping):
            image = image.get("path")
        return image if isinstance(image, str | int) and image != "" else place

    def _payload(self, values: Mapping[str, Any]) -> dict[str, Any]:
        used = (self.names.id, self.names.image, self.names.text)
        rest = {name: value for name, value in values.items() if name not in used}
        packed = rest.pop("payload", None) if self.has_packed_payload else None
        return make_payload(rest | parse_json_object(packed) if packed else rest)


def _vector_or(value: object, parse: Callable[[object], Any]) -> Any:
    if isinstance(value, CellError):
        raise value
    if isinstance(value, np.ndarray):
        return value
    numbers = parse_numbers(value)
    return parse(value) if numbers is None else _vector_or(_unit(np.asarray(numbers, np.float32)), parse)


def _path_in_row(value: object, image: object) -> str | None:
    """The path of an image file as the row states it; None for other images, because a URL may contain secrets."""
    if not isinstance(image, Path):
        return None
    return str(value["path"] if isinstance(value, Mapping) else value)
