"""Entity sets of vectors: ``.npz``, or a folder of ``.npy`` where the candidates exceed the RAM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import Vectors
from .columns import ColumnArrays, ColumnValues, check_rows, check_side, map_array, read_columns, texts_of
from .entities import EntitySet
from .labelled import check_labels
from .labelled_vectors import check_unseen

_NEEDED = ("image", "label", "entities")
_OPTIONAL = ("unseen", "names", "query_id")


@dataclass(frozen=True)
class EntityVectors:
    """Entities with a vector each; arrays may be mapped from disk."""

    path: Path  # their source, for messages
    array: ColumnValues  # (C, D), unit-norm, of any float type; checked while reading
    texts: ColumnValues | None = None  # (C,) names; None: their numbers
    unseen: npt.NDArray[np.bool_] | None = None  # (C,) True for unseen ones, or None

    def __len__(self) -> int:
        return len(self.array)

    def vectors(self, batch_size: int) -> Iterator[Vectors]:
        """The vectors as float32 of exactly unit norm, in batches (B, D).

        Raises:
            DataError: NaN, or not unit-norm; the message names the row.
        """
        for start in range(0, len(self), batch_size):
            part = np.asarray(self.array[start : start + batch_size])
            yield check_side(self.path, "entities", part, first_row=start)

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """The names, in batches."""
        for start in range(0, len(self), batch_size):
            yield self._names(start, min(start + batch_size, len(self)))

    def name(self, row: int) -> str:
        """The name of one entity."""
        return self._names(row, row + 1)[0]

    def _names(self, start: int, stop: int) -> list[str]:
        if self.texts is None:
            return [str(row) for row in range(start, stop)]
        return texts_of(self.path, "names", np.asarray(self.texts[start:stop]))


def read_entity_vectors(path: Path) -> EntitySet:
    """Read an ``.npz``, or a folder of ``.npy``, which are memory-mapped except for the queries.

    Raises:
        DataError: an array is missing or damaged, or arrays do not belong together.
    """
    columns = _map_arrays(path) if path.is_dir() else read_columns(path, _NEEDED)
    image = check_side(path, "image", columns["image"])
    entities: ColumnValues = columns["entities"]
    if entities.ndim != 2 or entities.shape[1] != image.shape[1] or entities.dtype.kind != "f" or not len(entities):
        got = f"{entities.shape} of {entities.dtype}"
        raise DataError(f"{path}: entities must be (C, {image.shape[1]}) floating point, as image is; got {got}")
    check_rows(path, columns, len(image), [name for name in ("label", "query_id") if name in columns])
    check_rows(path, columns, len(entities), [name for name in ("names",) if name in columns])
    unseen = check_unseen(path, columns["unseen"], len(entities)) if "unseen" in columns else None
    labels = check_labels(f"{path}: label", columns["label"].tolist(), len(entities))
    return EntitySet(
        name=path.name,
        images=image,
        labels=labels,
        entities=EntityVectors(path, entities, columns.get("names"), unseen),
        unseen=None if unseen is None else unseen[labels],
        query_ids=tuple(texts_of(path, "query_id", columns["query_id"])) if "query_id" in columns else None,
    )


def _map_arrays(folder: Path) -> ColumnArrays:
    found: ColumnArrays = {}
    for name in (*_NEEDED, *_OPTIONAL):
        file = folder / f"{name}.npy"
        if name in _NEEDED and not file.is_file():
            raise DataError(f"{file} does not exist; needed: {', '.join(f'{needed}.npy' for needed in _NEEDED)}")
        if file.is_file():
            found[name] = map_array(file)
    return found
