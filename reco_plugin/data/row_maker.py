"""Convert rows of named values to pairs, or to errors with their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Pair
from .cells import MISSING, CellError, id_of, image_of, json_object, numbers_of, payload_of, text_of, unit_row
from .parts import ColumnNames, Rejected
from .usual import propose


@dataclass(frozen=True)
class RowMaker:
    """Makes pairs from rows."""

    names: ColumnNames
    folder: Path  # base of image paths
    unfold: bool = False  # whether a column ``payload`` holds a JSON object, as ``reco memory export`` writes it

    def check(self, what: str, columns: list[str]) -> None:
        """Check that the columns are present; the id may be missing unless its name was given.

        Raises:
            DataError: a column is missing; the message lists the columns.
        """
        needed = [self.names.image, self.names.text] + [self.names.id] * (self.names.id != ColumnNames.id)
        if missing := [name for name in needed if name not in columns]:
            raise DataError(
                f"{what} has no column {' and no '.join(map(repr, missing))}; its columns are {columns}. Needed: "
                f"{' and '.join(needed)}; name yours, as in '{propose(what, columns, vars(self.names))}'"
            )

    def make(self, where: str, values: Mapping[str, Any], place: str | None = None) -> Pair | Rejected:
        """Make a pair, or a rejected row with the reason.

        Args:
            where: the row, for messages.
            values: by column; an image or a text may be a vector (D,) or a :class:`CellError`.
            place: id of a row without id and without image path.
        """
        names = self.names
        id_, column = None, names.id
        try:
            own_id = self._id(values, place)
            if own_id is None:  # the image is missing too, so its path is no id
                column = names.image
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
        return Pair(id_, image, text, own | payload)

    def _id(self, values: Mapping[str, Any], place: str | None) -> object:
        own = values.get(self.names.id)
        if own is not None and own != "":
            return own
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
