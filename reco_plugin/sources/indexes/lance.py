"""LanceDB: a table in a folder or an object store, ``lancedb:./shop?table=products&vector=clip&id=sku``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.query import MatchQuery

from ...errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ...settings import Settings
from ...values import check_choice, did_you_mean
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2": "euclid"}
_NAMES = {metric: name for name, metric in _METRICS.items()}
_TUNED = ("nprobes", "refine_factor", "ef")
"""Names of LanceDB's search options."""
_PAGES_PER_REQUEST = 10
_REFRESHED = timedelta(seconds=5)
_TEMPORARY = ("timed out", "timeout", "connection", "503", "slow down", "slowdown", "429", "dns error")
"""Parts of error messages of an object store that may answer later."""


@dataclass(frozen=True, kw_only=True)
class _LanceTable(Description):
    """A table, and the columns to read."""

    key: str  # column of the ids
    columns: tuple[str, ...]  # that a scan reads besides the vectors


class LanceIndex(OpenIndex[Any, _LanceTable]):
    """A table of LanceDB."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options("table", "metric", *_TUNED)
        if "table" not in address.options or not address.path or address.path.startswith("db://"):
            raise ConfigError(f"{address.place} names no table of a folder or a bucket: lancedb:FOLDER?table=NAME")
        if "metric" in address.options:
            check_choice("metric", address.options["metric"], list(_NAMES))
        self._tuned = {name: _whole(address, name) for name in _TUNED if name in address.options}

    def _connect(self) -> Any:
        path, name = self._address.path, self._address.options["table"]
        if "://" not in path and not Path(path).is_dir():  # LanceDB would create it
            raise EngineError(f"there is no folder {path}: lancedb:FOLDER?table=NAME names one of LanceDB")
        database = lancedb.connect(path, read_consistency_interval=_REFRESHED)
        try:
            return database.open_table(name)
        except (ValueError, FileNotFoundError):
            near = did_you_mean(name, [str(table) for table in database.list_tables().tables])
            raise EngineError(f"{self._address.place} has no table {name!r}: {near}") from None

    def _disconnect(self, client: Any) -> None:
        pass

    def _translate(self, error: Exception) -> RecoError | None:
        if not isinstance(error, ValueError | RuntimeError | OSError | pa.ArrowException):
            return None
        message = " ".join(str(error).split("\n")[0].split())[:300]
        temporary = any(words in message.lower() for words in _TEMPORARY)
        kind, what = (EngineUnavailable, " cannot be reached") if temporary else (EngineError, "")
        return kind(f"{self._address.place}{what}: {message}")

    def _inspect(self) -> _LanceTable:
        address, name = self._address, self._address.options["table"]
        schema = self._call(lambda table: table.schema)
        check_fields(address, schema.names, name)
        others = {field.name: _kind(field.type) for field in schema}
        dense = [field for field, kind in others.items() if not kind]
        vector = pick_vector(address, dense, {field: kind for field, kind in others.items() if kind}, name)
        key = address.id or "id"
        if column_of(key, schema.names) not in schema.names:
            raise EngineError(f"{address.place}: name the column of the ids, id=NAME: it has {', '.join(schema.names)}")
        indices = self._call(lambda table: [(index, table.index_stats(index.name)) for index in table.list_indices()])
        columns = (
            field
            for field, kind in others.items()
            if kind and "vector" not in kind and (kind != "bytes" or field == address.image)
        )
        table = _LanceTable(
            engine=f"LanceDB {lancedb.__version__}",
            name=name,
            documents=0,
            vector=vector,
            dimension=int(schema.field(vector).type.list_size),
            metric="euclid",  # LanceDB's default
            index=EXACT,
            fields=tuple(schema.names),
            searches_text=any(
                index.index_type.upper() in ("FTS", "INVERTED") for index in _over(indices, address.text)
            ),
            key=key,
            columns=tuple(columns),
        )
        return self._with_index(table, indices)

    def _with_index(self, described: _LanceTable, indices: Sequence[tuple[Any, Any]]) -> _LanceTable:
        """Add the index over the vectors, and the metric that the address names."""
        wanted = cast("Similarity | None", self._address.options.get("metric"))
        for index in _over(indices, described.vector):
            stats = next(stats for one, stats in indices if one is index)
            metric = _METRICS.get(str(stats.distance_type or "").lower())
            if metric is None or (wanted and metric != wanted):
                raise EngineError(
                    f"{self._address.place}: the index of {described.vector!r} compares by {stats.distance_type}, not "
                    f"by {wanted or ', '.join(_METRICS)}, and LanceDB would compare each vector instead"
                )
            return replace(described, metric=metric, index=str(stats.index_type))
        return replace(described, metric=wanted) if wanted else described

    def _count(self) -> int:
        return int(self._call(lambda table: table.count_rows()))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; reads the version of the table at the time of the call."""
        known, row = self._description, 0
        version = self._call(lambda table: table.version)
        columns = [*known.columns, *[known.vector] * vectors]

        def read(row: int) -> list[pa.RecordBatch]:
            def run(_: Any) -> list[pa.RecordBatch]:
                table = self._connect()  # a handle for this scan alone
                table.checkout(version)  # without a limit, LanceDB reads 2 GiB ahead
                query = table.search().select(columns).offset(row).limit(_PAGES_PER_REQUEST * size)
                return list(query.to_batches(size))

            return self._call(run)

        while batches := read(row):
            for batch in batches:
                row += batch.num_rows
                if batch.num_rows:
                    yield list(self._documents(batch, vectors))

    def _documents(self, batch: pa.RecordBatch, vectors: bool) -> Iterator[Document]:
        known, block = self._description, dict[int, Vector]()
        if vectors:
            column = batch.column(known.vector)
            valid = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            numbers = column.flatten().to_numpy(zero_copy_only=False)  # without nulls
            block = dict(zip(valid.tolist(), numbers.astype(np.float32).reshape(-1, known.dimension), strict=True))
        for place, values in enumerate(batch.select(known.columns).to_pylist()):
            id_ = value_of(values, known.key)
            yield make_document(self._address, id_, block.get(place), values, known.dimension)

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        known = self._description

        def near(table: Any) -> Any:
            search = table.search(vector, vector_column_name=known.vector).distance_type(_NAMES[known.metric])
            for name, value in self._tuned.items():
                search = getattr(search, name)(value)
            return search

        # LanceDB returns 1 minus the cosine or dot product, or the squared Euclidean distance
        def score(distance: float) -> float:
            return -(max(distance, 0.0) ** 0.5) if known.metric == "euclid" else 1 - distance

        return [
            self._make_hit(row, score(float(row["_distance"]))) for row in self._run_search(near, "_distance", query)
        ]

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        match: Any = MatchQuery  # its types make optional arguments required
        words = match(query.text or "", self._address.text)
        rows = self._run_search(lambda table: table.search(words, query_type="fts"), "_score", query)
        return [self._make_hit(row, float(row["_score"])) for row in rows]

    def _run_search(self, search: Callable[[Any], Any], scored: str, query: IndexQuery) -> list[dict[str, Any]]:
        named = (self._description.key, self._address.text, self._address.image)
        fields = self._description.fields
        shown = list(dict.fromkeys(column_of(name, fields) for name in named if name is not None))

        def run(table: Any) -> list[dict[str, Any]]:
            results = search(table).select([*shown, scored]).limit(query.k)
            if query.where:
                results = results.where(query.where)
            return cast("list[dict[str, Any]]", results.to_list())

        return self._call(run)

    def _make_hit(self, row: Mapping[str, Any], score: float) -> IndexHit:
        return make_hit(self._address, value_of(row, self._description.key), score, row)


def _over(indices: Sequence[tuple[Any, Any]], column: str | None) -> list[Any]:
    """The indices over a column; LanceDB quotes names with other characters than letters, digits and underscores."""
    return [index for index, _ in indices if [str(name).strip("`") for name in index.columns] == [column]]


def _kind(type_: pa.DataType) -> str:
    """Describe the values of a column; empty for vectors of floats."""
    if pa.types.is_fixed_size_list(type_):
        return "" if pa.types.is_floating(type_.value_type) else f"vectors of {type_.value_type}"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        nested = pa.types.is_fixed_size_list(type_.value_type) or pa.types.is_floating(type_.value_type)
        return "vectors of any length or number" if nested else str(type_)
    return "bytes" if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) else str(type_)


def _whole(address: IndexAddress, name: str) -> int:
    value = address.options[name]
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise ConfigError(f"{address.place}: option {name}={value!r} must be a whole number above 0")
    return int(value)
