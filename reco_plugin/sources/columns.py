"""Columns in ``.npz`` and ``.parquet`` files: read, check and write pairs.

Vectors (N, D) are list<float> columns in parquet; other columns have one value per row. A vector file holds N pairs::

    id       (N,)    text or whole numbers, each once
    image    (N, D)  unit-norm; list<float> in parquet
    text     (N, D)  unit-norm
    payload  (N,)    optional: a JSON object per row, as `reco memory copy` writes it
    …        (N,)    any other column of texts, numbers or booleans becomes a payload value (caption, group, …)

Missing payload values are null in parquet, NaN or an empty text in npz.

An export also holds the memory's feedback, as JSON in UTF-8 named ``reco_feedback``: an array of one text in npz, a key
of the schema's metadata in parquet.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError, need
from ..files import whole_file
from ..types import Pair, Records
from .cells import CellError, RowMaker, Vector, unit_rows
from .location import ColumnNames, Location, check_columns, describe_missing_ids, parse_source
from .rows import FilePart, Rejected, Rows, stamp_of

ColumnValues: TypeAlias = npt.NDArray[Any]
"""(N, D) vectors, or (N,) numbers, texts or (from parquet) Python objects."""
ColumnArrays: TypeAlias = dict[str, ColumnValues]

SUFFIXES = (".npz", ".parquet")
_FEEDBACK = "reco_feedback"
_BATCH = 256


def is_vector_file(source: str | Path) -> bool:
    """Whether a source is a file with columns, ``.npz`` or ``.parquet``, by its name without options."""
    return parse_source(source).path.suffix.lower() in SUFFIXES


def _write_parquet(path: Path, batches: Iterator[ColumnArrays], metadata: Mapping[str, bytes]) -> int:
    """Write batches of arrays with the same names; returns the number of rows."""
    parquet = need("pyarrow.parquet", "writing parquet")
    rows: int = 0
    with whole_file(path) as part:
        tables = map(_arrow_table, batches)
        first = next(tables)
        schema = first.schema.with_metadata(dict(metadata) or None)
        with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in chain([first], tables):
                writer.write_table(table)
                rows += table.num_rows
    return rows


@contextmanager
def open_npz_file(path: Path) -> Iterator[Any]:
    """Open an ``.npz`` by ``numpy.load``."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy does not close a bad file
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:  # TypeError: a single array
        why = "not a zip archive" if not zipfile.is_zipfile(path) else str(error)
        raise DataError(
            f"{path} is not an npz of plain arrays ({why}); save texts with np.array(…, dtype=str)"
        ) from None


def open_parquet_file(path: Path) -> Any:
    """Open a ``pyarrow.parquet.ParquetFile``."""
    parquet = need("pyarrow.parquet", "reading parquet")
    try:
        return parquet.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path} cannot be read as parquet: {error}") from None


def is_vector_type(kind: Any) -> bool:
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
    """Read the feedback in a vector file that was exported from a memory, one record each.

    Raises:
        DataError: the file cannot be read.
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
        feedback = json.loads(stored) if stored else []
    except ValueError as error:
        raise DataError(f"{path}: {_FEEDBACK} is not JSON: {error}") from None
    if not isinstance(feedback, list) or not all(isinstance(one, dict) and "id" in one for one in feedback):
        raise DataError(f"{path}: {_FEEDBACK} is not a list of records with an id")
    return feedback


def write_pairs(path: str | Path, records: Iterable[Records], feedback: Sequence[Mapping[str, Any]] = ()) -> int:
    """Write pairs, in batches of (B, D), as a vector file with payloads as JSON; parquet is written batch by batch.

    ``feedback`` is that of :func:`read_feedback`. Returns the number of pairs.

    Raises:
        DataError: there are no pairs, the name does not end in .npz or .parquet, or the file cannot be written.
        MissingExtra: parquet without pyarrow.
    """
    target = Path(path)
    if not is_vector_file(target):
        raise DataError(f"{target} must end in .npz or .parquet")
    batches = iter(records)
    first = next(batches, None)
    if first is None:
        raise DataError(f"{target} was not written: there are no pairs to write")
    columns = (_columns(batch) for batch in chain([first], batches))
    packed = json.dumps([dict(one) for one in feedback]).encode() if feedback else b""
    if target.suffix.lower() == ".npz":
        parts = list(columns)
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        with whole_file(target) as part:
            np.savez(part, allow_pickle=False, **arrays, **({_FEEDBACK: np.array(packed)} if packed else {}))
        return sum(len(part["id"]) for part in parts)
    return _write_parquet(target, columns, {_FEEDBACK: packed} if packed else {})


def _columns(records: Records) -> ColumnArrays:
    payloads = [json.dumps(dict(payload), ensure_ascii=False) for payload in records.payloads]
    texts = {"id": np.array(records.ids, np.str_), "payload": np.array(payloads, np.str_)}
    return texts | {"image": records.image, "text": records.text}


def open_npz(path: Path, names: ColumnNames) -> Rows:
    """Open a vector file ``.npz``, as one part."""
    with open_npz_file(path) as file:
        columns = list(file.files)
    if names.id not in columns:
        raise DataError(f"{path} has no array {names.id!r}; it has {sorted(columns)}")
    check_columns(str(path), columns, names.needed)
    maker = RowMaker(names, path.parent, has_ids=True, has_packed_payload=True)
    return Rows(str(path), (FilePart(str(path), partial(_read_npz, path, maker)),), folders=(path.parent,))


def _read_npz(path: Path, maker: RowMaker) -> Iterator[Pair | Rejected]:
    names = maker.names
    with open_npz_file(path) as file:
        columns = {name: file[name] for name in file.files if name != _FEEDBACK}
    rows = columns[names.id].size
    for name, column in columns.items():
        if column.ndim == 0 or len(column) != rows:
            raise DataError(f"{path}: {name} has shape {column.shape}, expected {rows:,} rows as in the others")
        if column.ndim != 1 and name not in (names.image, names.text):
            raise DataError(f"{path}: {name} has shape {column.shape}; a payload column has one value per row")
    for number, values in enumerate(_rows(columns, rows), 1):
        yield maker.make(f"{path}, row {number}", values)


def open_parquet(paths: Sequence[Path], names: ColumnNames, where: Location) -> Rows:
    """Open the rows of files, a part for each row group.

    Image paths are relative to the folder of the option ``images``, by default to that of the file.
    """
    parts, total, note = list[FilePart](), 0, ""
    stamps, folders = {path: stamp_of(path) for path in paths}, [where.images or path.parent for path in paths]
    for path, base in zip(paths, folders, strict=True):
        with open_parquet_file(path) as file:
            schema, sizes = file.schema_arrow, [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        check_columns(str(path), schema.names, names.needed)
        vectors = all(is_vector_type(schema.field(name).type) for name in (names.image, names.text))
        maker, before = RowMaker(names, base, names.id in schema.names, has_packed_payload=vectors), 0
        note = note if parts else describe_missing_ids(str(path), schema.names, names)
        for group, rows in enumerate(sizes):
            name = f"{path}, after row {before}" if before else str(path)
            parts.append(FilePart(name, partial(_read_parquet, path, group, before, maker)))
            before += rows
        total += before
    return Rows(
        str(paths[0]),
        tuple(parts),
        total,
        note=note,
        folders=tuple(dict.fromkeys(folders)),
        stamps=stamps,
        columns=names,
    )


def _read_parquet(path: Path, group: int, before: int, maker: RowMaker) -> Iterator[Pair | Rejected]:
    for number, values in enumerate(_read_group(path, group, maker.names), before + 1):
        yield maker.make(f"{path}, row {number}", values, f"{path.name}#{number}")


def _read_group(path: Path, group: int, names: ColumnNames) -> Iterator[dict[str, Any]]:
    """Read rows as values by column; lists of numbers in the image and text columns are checked as vectors."""
    with open_parquet_file(path) as file:
        try:
            for batch in file.iter_batches(_BATCH, row_groups=[group]):
                lists = {
                    name: _vectors(column)
                    if name in (names.image, names.text) and is_vector_type(column.type)
                    else column.to_pylist()
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for row in range(batch.num_rows):
                    yield {name: values[row] for name, values in lists.items()}
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from None


def _vectors(column: Any) -> list[Vector | CellError | None]:
    """Convert lists to vectors (D,), each checked; a list of another length than most is an error."""
    lengths = np.array([len(item) if item.is_valid else 0 for item in column])
    usual = int(np.bincount(lengths[lengths > 0]).argmax()) if lengths.any() else 0
    vectors: list[Vector | CellError | None] = [
        CellError(f"has {length} numbers, others have {usual}") if length else None for length in lengths.tolist()
    ]
    good = np.flatnonzero(lengths == usual) if usual else np.array([], np.int64)
    if len(good):
        flat = column.take(good).flatten().to_numpy(zero_copy_only=False)
        for row, vector in zip(good.tolist(), unit_rows(flat.reshape(len(good), usual)), strict=True):
            vectors[row] = vector
    return vectors


def _rows(columns: ColumnArrays, count: int) -> Iterator[dict[str, Any]]:
    """Split columns, (N,) or vectors (N, D), into rows as values by column; vectors are checked."""
    for first in range(0, count, _BATCH):
        some = {name: values[first : first + _BATCH] for name, values in columns.items()}
        cells = {name: unit_rows(part) if part.ndim == 2 else part.tolist() for name, part in some.items()}
        for values in zip(*cells.values(), strict=True):
            yield dict(zip(cells, values, strict=True))
