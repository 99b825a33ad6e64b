"""Cells of a row: ids, texts, images, vectors, payload values; and a row made into a pair, or into a rejection."""

from __future__ import annotations

import json
import math
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
_SHORTEST = 4  # numbers of a vector; fewer may be a caption such as "[1]"
_LONGEST_PATH = 1000
"""Characters; longer ones are captions in the wrong column, or images in base64."""


class CellError(Exception):
    """An invalid value; the message says why."""


def id_of(value: object) -> str:
    """Parse an id, which may be a whole number or a UUID."""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise CellError(f"expected a text or whole number, got {value!r:.60}")
    return _sound(str(value))


def text_of(value: object) -> str:
    """Parse a caption, without surrounding blanks."""
    if value is not None and not isinstance(value, str):
        raise CellError(f"expected one caption, got {value!r:.60}; write one row per caption")
    text = (value or "").strip()
    if not text:
        raise CellError(MISSING)
    return _sound(text)


def image_of(value: object, folder: Path) -> Image:
    """Parse an image: a path relative to ``folder``, a URL, bytes, or Hugging Face's bytes with a path."""
    if isinstance(value, Mapping):
        if not {"bytes", "path"} & value.keys():
            raise CellError(f"expected the fields bytes or path, has {sorted(value)}")
        return image_of(value.get("bytes") or value.get("path"), folder)
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
    if len(value) > _LONGEST_PATH:
        raise CellError(f"expected the path of an image, got {show(value)}")
    path = folder / _sound(value)
    if not _is_file(path):
        raise CellError(f"{value!r} is not a file at {str(path)!r}; paths are relative to the table")
    return path


def payload_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Make JSON values; empty ones, numbers that are not finite, and bytes are left out."""
    plain = {name: _plain(value, 2) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not None and value != ""}


def json_object(packed: Any, what: str = "payload") -> dict[str, Any]:
    """Parse a payload that is JSON, as ``reco memory copy`` writes it."""
    try:
        payload = json.loads(packed)
    except (TypeError, ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise CellError(f"{what} is {packed!r:.60}, expected a JSON object")
    return payload


def unit_rows(block: npt.NDArray[Any]) -> list[Vector | CellError]:
    """Split vectors (N, D) into rows of exactly unit norm, or the error of each."""
    try:
        return list(check_vectors(block, block.shape[1]))
    except VectorError:
        return [_unit(row) for row in block]


def numbers_of(value: object) -> list[float] | None:
    """The numbers of a vector in a text file: a list in JSON, also as a text.

    >>> numbers_of("[0.6,-8e-1, 1,0]"), numbers_of([0.6, 0.8, 0.0, 1]), numbers_of("[a dog]"), numbers_of(["a", "b"])
    ([0.6, -0.8, 1.0, 0.0], [0.6, 0.8, 0.0, 1.0], None, None)
    """
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or len(value) < _SHORTEST:
        return None
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    return [float(number) for number in value] if plain else None


def unit_row(numbers: Sequence[float]) -> Vector:
    """A vector (D,) of exactly unit norm."""
    (vector,) = unit_rows(np.asarray([numbers], np.float32))
    if isinstance(vector, CellError):
        raise vector
    return vector


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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long: a caption in the wrong column
        return False


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
    has_ids: bool = False  # whether the source has the column of ids, so that each row needs one
    unfold: bool = False  # whether a column ``payload`` holds a JSON object, as ``reco memory copy`` writes it

    def make(self, where: str, values: Mapping[str, Any], place: str | None = None) -> Pair | Rejected:
        """Make a pair, or a rejected row with the reason.

        Args:
            where: the row, for messages.
            values: by column; an image or a text may be a vector (D,) or a :class:`CellError`.
            place: id of a row without id and without image path, where the source has no column of ids.
        """
        names = self.names
        id_, column = None, names.id
        try:
            own_id = self._id(values, place)
            if own_id is None:
                column = names.id if self.has_ids else names.image  # whose path would be the id
                raise CellError(MISSING)
            id_ = id_of(own_id)
            column = names.image
            image = _vector_or(values.get(names.image), partial(image_of, folder=self.folder))
            column = names.text
            text = _vector_or(values.get(names.text), text_of)
            column = ""
            payload = self._payload(values)
            path = _place_of(values.get(names.image), image)
        except CellError as error:
            at = f", column {column!r}" if column else ""
            has = f"; this row has {sorted(values)}" if column not in ("", *values) else ""
            return Rejected(where + at, f"{error}{has}", id_)
        own = {"caption": text} if isinstance(text, str) else {}
        own |= {"image": path} if path not in (None, id_) else {}
        return Pair(id_, image, text, own | payload, where)

    def _id(self, values: Mapping[str, Any], place: str | None) -> object:
        own = values.get(self.names.id)
        if self.has_ids or (own is not None and own != ""):
            return None if own == "" else own
        image = values.get(self.names.image)
        if isinstance(image, Mapping):
            image = image.get("path")
        return image if isinstance(image, str | int) and image != "" else place

    def _payload(self, values: Mapping[str, Any]) -> dict[str, Any]:
        own = (self.names.id, self.names.image, self.names.text)
        rest = {name: value for name, value in values.items() if name not in own}
        packed = rest.pop("payload", None) if self.unfold else None
        return payload_of(rest | json_object(packed) if packed else rest)


def _vector_or(value: object, made: Callable[[object], Any]) -> Any:
    if isinstance(value, CellError):
        raise value
    if isinstance(value, np.ndarray):
        return value
    numbers = numbers_of(value)
    return made(value) if numbers is None else unit_row(numbers)


def _place_of(value: object, image: object) -> str | None:
    """The path of an image file, as in the row; None for other images, since a URL may hold secrets."""
    if not isinstance(image, Path):
        return None
    return str(value["path"] if isinstance(value, Mapping) else value)
