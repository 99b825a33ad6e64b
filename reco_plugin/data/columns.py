"""Named arrays in a file, ``.npz`` or ``.parquet``: read, check and write.

Vectors (N, D) are list<float> columns in parquet; other columns have one value per row. A **pair file** holds N pairs::

    id       (N,)    text or whole numbers, each once
    image    (N, D)  unit-norm; list<float> in parquet
    text     (N, D)  unit-norm
    payload  (N,)    optional: a JSON object per row, as `reco memory copy` writes it
    …        (N,)    any other column of texts, numbers or booleans becomes a payload value (caption, group, …)

Missing payload values are null in parquet, NaN or the empty text in npz.

An export also holds what people said of the memory, as JSON in UTF-8: ``reco_feedback``, an array of one text in npz, a
key of the schema's metadata in parquet. It is no column.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError, InputError, need
from ..files import whole_file
from ..types import Records, Vectors
from ..values import check_vectors
from .source import parse_source

ColumnValues: TypeAlias = npt.NDArray[Any]
"""(N, D) vectors, or (N,) numbers, texts or (from parquet) Python objects."""
ColumnArrays: TypeAlias = dict[str, ColumnValues]

SUFFIXES = (".npz", ".parquet")
_FEEDBACK = "reco_feedback"


def is_vectors(source: str | Path) -> bool:
    """Whether a source is a file of precomputed vectors, by its name without options."""
    return parse_source(source).path.suffix.lower() in SUFFIXES


def read_columns(path: Path, needed: Sequence[str]) -> ColumnArrays:
    """Read a whole ``.npz`` as named arrays."""
    with open_npz_file(path) as file:
        columns = {name: file[name] for name in file.files if name != _FEEDBACK}
    for name in needed:
        if name not in columns:
            raise DataError(f"{path} has no array {name!r}; it has {sorted(columns)}. Needed: {', '.join(needed)}")
    return columns


def write_columns(path: Path, columns: Mapping[str, ColumnValues]) -> None:
    """Write named arrays as ``.npz``; atomically."""
    with whole_file(path) as part:
        np.savez(part, allow_pickle=False, **columns)


def _write_parquet(path: Path, batches: Iterator[ColumnArrays], beside: Mapping[str, bytes]) -> int:
    """Write batches of named arrays, all with the same names, one after the other; returns how many rows there are."""
    parquet = need("pyarrow.parquet", "writing parquet")
    rows: int = 0
    with whole_file(path) as part:
        tables = map(_arrow_table, batches)
        first = next(tables)
        schema = first.schema.with_metadata(dict(beside) or None)
        with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)
                rows += table.num_rows
    return rows


def check_side(
    path: Path, name: str, values: ColumnValues, dimension: int | None = None, first_row: int = 0
) -> Vectors:
    """Check the vectors (N, D) of a file from row ``first_row`` on; returns them with exactly unit norm.

    Without a ``dimension``, D is the array's own.
    """
    where = f"{path}: {name}" + (f" (counted from row {first_row})" if first_row else "")
    if values.ndim != 2:
        raise DataError(f"{where} must have shape (N, D), got {values.shape}")
    try:
        return check_vectors(values, values.shape[1] if dimension is None else dimension, where)
    except InputError as error:
        raise DataError(str(error)) from None


def check_rows(path: Path, columns: Mapping[str, ColumnValues], rows: int, names: Iterable[str] | None = None) -> None:
    """Check that columns, (N,) or (N, D), have N = ``rows`` rows: all of them, or those of ``names`` that are there."""
    for name in columns if names is None else [name for name in names if name in columns]:
        if columns[name].ndim == 0 or len(columns[name]) != rows:
            raise DataError(f"{path}: {name} has shape {columns[name].shape}, expected {rows:,} rows as in the others")


def texts_of(path: Path, name: str, values: ColumnValues) -> list[str]:
    """Read a column (N,) of ids or names as texts."""
    items = values.tolist()
    for row, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise DataError(f"{path}: {name}[{row}] is {item!r}, expected a text or a whole number")
    return [str(item) for item in items]


@contextmanager
def open_npz_file(path: Path) -> Iterator[Any]:
    """Open what ``numpy.load`` returns of an ``.npz``, to read arrays from it."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy leaves a bad one open
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:  # TypeError: it is a single array
        why = "it is no zip archive" if not zipfile.is_zipfile(path) else str(error)
        raise DataError(f"{path} is no npz of plain arrays ({why}); save texts with np.array(…, dtype=str)") from None


def open_parquet_file(path: Path) -> Any:
    """Open a ``pyarrow.parquet.ParquetFile``."""
    parquet = need("pyarrow.parquet", "reading parquet")
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path} cannot be read as parquet: {error}") from None


def holds_vectors(kind: Any) -> bool:
    """Whether an arrow type is lists of numbers."""
    types = need("pyarrow", "reading parquet").types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


def _arrow_table(columns: Mapping[str, ColumnValues]) -> Any:
    arrow = need("pyarrow", "writing parquet")
    arrays = {}
    for name, values in columns.items():
        if values.ndim == 2:
            flat = arrow.array(np.ascontiguousarray(values, np.float32).reshape(-1))
            arrays[name] = arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            arrays[name] = arrow.array(values.tolist())
    return arrow.table(arrays)


def read_feedback(source: str | Path) -> list[dict[str, Any]]:
    """What people said of the memory that a pair file was exported from, a record each; empty where nobody did.

    Raises:
        DataError: it cannot be read.
        MissingExtra: parquet without pyarrow.
    """
    path = Path(source)
    if path.suffix.lower() == ".npz":
        with open_npz_file(path) as file:
            stored = file[_FEEDBACK].tobytes() if _FEEDBACK in file.files else b""
    else:
        with open_parquet_file(path) as file:
            stored = (file.schema_arrow.metadata or {}).get(_FEEDBACK.encode(), b"")
    try:
        said = json.loads(stored) if stored else []
    except ValueError as error:
        raise DataError(f"{path}: {_FEEDBACK} is no JSON: {error}") from None
    if not isinstance(said, list) or not all(isinstance(one, dict) and "id" in one for one in said):
        raise DataError(f"{path}: {_FEEDBACK} is no list of records with an id")
    return said


def write_pairs(path: str | Path, records: Iterable[Records], feedback: Sequence[Mapping[str, Any]] = ()) -> int:
    """Write pairs, batches of (B, D) each, as a pair file, with payloads as JSON; parquet is written batch by batch.

    Args:
        path: of the file.
        records: the batches.
        feedback: what people said, as JSON values, see :func:`read_feedback`.

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
    said = json.dumps([dict(one) for one in feedback]).encode() if feedback else b""
    if target.suffix.lower() == ".npz":
        parts = list(columns)
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_columns(target, arrays | ({_FEEDBACK: np.array(said)} if said else {}))
        return sum(len(part["id"]) for part in parts)
    return _write_parquet(target, columns, {_FEEDBACK: said} if said else {})


def _columns(records: Records) -> ColumnArrays:
    payloads = [json.dumps(dict(payload), ensure_ascii=False) for payload in records.payloads]
    texts = {"id": np.array(records.ids, np.str_), "payload": np.array(payloads, np.str_)}
    return texts | {"image": records.image, "text": records.text}
