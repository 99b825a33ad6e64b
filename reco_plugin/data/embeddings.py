"""Files of precomputed vectors: ``.npz`` and ``.parquet``.

A **pair file** holds N pairs as columns::

    id       (N,)    text or whole numbers, each once
    image    (N, D)  unit-norm; list<float> in parquet
    text     (N, D)  unit-norm
    payload  (N,)    optional: a JSON object per row, as `reco memory export` writes it
    …        (N,)    any other column of texts, numbers or booleans becomes a payload value (caption, group, …)

Missing payload values are null in parquet, NaN or the empty text in npz.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..defaults import SCROLL_BATCH
from ..errors import DataError
from ..types import Payload, Records
from .cells import CellError, json_object
from .columns import (
    ColumnArrays,
    check_rows,
    check_side,
    is_vectors,
    read_batches,
    texts_of,
    write_batches,
    write_columns,
)

_NEEDED = ("id", "image", "text")


def read_records(source: str | Path, batch_size: int = SCROLL_BATCH) -> Iterator[Records]:
    """Read the pairs of a pair file, in batches of (B, D) each, checked.

    Raises:
        DataError: a missing column, a repeated id, or vectors that are not unit-norm; the message names file and row.
        MissingExtra: parquet without pyarrow.
    """
    path = Path(source)
    if not is_vectors(path):
        raise DataError(f"{path} is no pair file of vectors (.npz, .parquet); a memory takes others by reco memory add")
    row, seen, dimension = 0, set[str](), None
    for columns in read_batches(path, batch_size, _NEEDED):
        records = _records(path, columns, row, dimension)
        for offset, id_ in enumerate(records.ids):
            if id_ in seen:
                raise DataError(f"{path}: id[{row + offset}] is {id_!r}, which came before: make ids unique")
            seen.add(id_)
        row, dimension = row + len(records), records.image.shape[1]
        yield records
    if row == 0:
        raise DataError(f"{path} holds no pairs")


def write_pairs(path: str | Path, records: Iterable[Records]) -> int:
    """Write pairs, batches of (B, D) each, as a pair file, with payloads as JSON; parquet is written batch by batch.

    Returns:
        The number of pairs.

    Raises:
        DataError: nothing to write, a name without .npz or .parquet, or the file cannot be written.
        MissingExtra: parquet without pyarrow.
    """
    target = Path(path)
    if not is_vectors(target):
        raise DataError(f"{target} must end in .npz or .parquet")
    batches = iter(records)
    first = next(batches, None)
    if first is None:
        raise DataError(f"{target} was not written: there are no pairs to write")
    columns = (_columns(batch) for batch in chain([first], batches))
    if target.suffix.lower() == ".npz":
        parts = list(columns)
        write_columns(target, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        return sum(len(part["id"]) for part in parts)
    return write_batches(target, columns)


def _columns(records: Records) -> ColumnArrays:
    payloads = [json.dumps(dict(payload), ensure_ascii=False) for payload in records.payloads]
    texts = {"id": np.array(records.ids, np.str_), "payload": np.array(payloads, np.str_)}
    return texts | {"image": records.image, "text": records.text}


def _records(path: Path, columns: ColumnArrays, first_row: int, dimension: int | None) -> Records:
    ids = texts_of(path, "id", columns["id"])
    check_rows(path, columns, len(ids))
    image = check_side(path, "image", columns["image"], dimension, first_row)
    text = check_side(path, "text", columns["text"], image.shape[1], first_row)
    extra = {name: values for name, values in columns.items() if name not in _NEEDED}
    return Records(ids, image, text, _payloads(path, extra, len(ids)))


def _payloads(path: Path, columns: ColumnArrays, rows: int) -> list[Payload]:
    out: list[dict[str, Any]] = [{} for _ in range(rows)]
    for name, values in columns.items():
        if values.ndim != 1:
            raise DataError(f"{path}: {name} has shape {values.shape}; a payload column has one value per row")
        for row, value in enumerate(values.tolist()):
            if name == "payload":
                try:
                    out[row] |= json_object(value or "{}", f"{path}: payload[{row}]")
                except CellError as error:
                    raise DataError(str(error)) from None
            elif value is not None and value != "" and not (isinstance(value, float) and math.isnan(value)):
                out[row][name] = value
    return list(out)
