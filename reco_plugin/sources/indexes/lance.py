"""A table of LanceDB, in a folder or an object store: ``lancedb:./shop?table=products&vector=clip&id=sku``."""

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
from .base import EACH, Description, Document, IndexHit, KnownVectors, OpenIndex, Question, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2": "euclid"}
_NAMES = {metric: name for name, metric in _METRICS.items()}
_TUNED = ("nprobes", "refine_factor", "ef")
"""Options of a search, as LanceDB calls them."""
_AT_ONCE = 10
"""Pages that are read by one request."""
_REFRESHED = timedelta(seconds=5)
_AWAY = ("timed out", "timeout", "connection", "503", "slow down", "slowdown", "429", "dns error")
"""In the words of an object store that may answer later."""


@dataclass(frozen=True)
class _LanceTable(KnownVectors):
    """What is known of a table."""

    key: str  # column of the ids
    read: tuple[str, ...]  # columns of a scan, without the vectors


class LanceIndex(OpenIndex[Any, _LanceTable]):
    """A table."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.only("table", "metric", *_TUNED)
        if "table" not in address.options or not address.path or address.path.startswith("db://"):
            raise ConfigError(f"{address.place} names no table of a folder or a bucket: lancedb:FOLDER?table=NAME")
        if "metric" in address.options:
            check_choice("metric", address.options["metric"], list(_NAMES))
        self._tuned = {name: _whole(address, name) for name in _TUNED if name in address.options}

    def _connect(self) -> Any:
        path, name = self._address.path, self._address.options["table"]
        if "://" not in path and not Path(path).is_dir():  # LanceDB would make it
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
        said = " ".join(str(error).split("\n")[0].split())[:300]
        away = any(words in said.lower() for words in _AWAY)
        kind, words = (EngineUnavailable, " cannot be reached") if away else (EngineError, "")
        return kind(f"{self._address.place}{words}: {said}")

    def _look(self) -> _LanceTable:
        address, name = self._address, self._address.options["table"]
        schema = self._ask(lambda table: table.schema)
        check_fields(address, schema.names, name)
        others = {field.name: _kind(field.type) for field in schema}
        dense = [field for field, kind in others.items() if not kind]
        vector = pick_vector(address, dense, {field: kind for field, kind in others.items() if kind}, name)
        key = address.id or "id"
        if column_of(key, schema.names) not in schema.names:
            raise EngineError(f"{address.place}: name the column of the ids, id=NAME: it has {', '.join(schema.names)}")
        indices = self._ask(lambda table: [(index, table.index_stats(index.name)) for index in table.list_indices()])
        words = any(index.index_type.upper() in ("FTS", "INVERTED") for index in _over(indices, address.text))
        said = Description(
            engine=f"LanceDB {lancedb.__version__}",
            name=name,
            documents=0,
            vector=vector,
            dimension=int(schema.field(vector).type.list_size),
            metric="euclid",  # what LanceDB does by itself
            index=EACH,
            fields=tuple(schema.names),
            searches_text=words,
        )
        read = (
            field
            for field, kind in others.items()
            if kind and "vector" not in kind and (kind != "bytes" or field == address.image)
        )
        return _LanceTable(self._with_index(said, indices), key, tuple(read))

    def _with_index(self, said: Description, indices: Sequence[tuple[Any, Any]]) -> Description:
        """The same with the index over the vectors, and the metric that the address names."""
        wanted = cast("Similarity | None", self._address.options.get("metric"))
        for index in _over(indices, said.vector):
            stats = next(stats for one, stats in indices if one is index)
            metric = _METRICS.get(str(stats.distance_type or "").lower())
            if metric is None or (wanted and metric != wanted):
                raise EngineError(
                    f"{self._address.place}: the index of {said.vector!r} compares by {stats.distance_type}, not by "
                    f"{wanted or ', '.join(_METRICS)}, so that LanceDB would compare each vector instead"
                )
            return replace(said, metric=metric, index=str(stats.index_type))
        return replace(said, metric=wanted) if wanted else said

    def _count(self) -> int:
        return int(self._ask(lambda table: table.count_rows()))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """At the version of the table where it began."""
        found, row = self._known, 0
        version = self._ask(lambda table: table.version)
        columns = [*found.read, *[found.said.vector] * vectors]

        def read(row: int) -> list[pa.RecordBatch]:
            def run(_: Any) -> list[pa.RecordBatch]:
                table = self._connect()  # one of its own
                table.checkout(version)  # a scan without a limit would read ahead, and hold 2 GiB of it
                query = table.search().select(columns).offset(row).limit(_AT_ONCE * size)
                return list(query.to_batches(size))

            return self._ask(run)

        while batches := read(row):
            for batch in batches:
                row += batch.num_rows
                if batch.num_rows:
                    yield list(self._documents(batch, vectors))

    def _documents(self, batch: pa.RecordBatch, vectors: bool) -> Iterator[Document]:
        found, block = self._known, dict[int, Vector]()
        if vectors:
            column = batch.column(found.said.vector)
            there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            numbers = column.flatten().to_numpy(zero_copy_only=False)  # of those that are not null
            block = dict(zip(there.tolist(), numbers.astype(np.float32).reshape(-1, found.said.dimension), strict=True))
        for place, values in enumerate(batch.select(found.read).to_pylist()):
            id_ = value_of(values, found.key)
            yield make_document(self._address, id_, block.get(place), values, found.said.dimension)

    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        said = self._known.said

        def near(table: Any) -> Any:
            query = table.search(vector, vector_column_name=said.vector).distance_type(_NAMES[said.metric])
            for name, value in self._tuned.items():
                query = getattr(query, name)(value)
            return query

        # LanceDB gives 1 less the cosine or the dot product, or the square of Euclid's distance
        def score(distance: float) -> float:
            return -(max(distance, 0.0) ** 0.5) if said.metric == "euclid" else 1 - distance

        return [self._hit(row, score(float(row["_distance"]))) for row in self._found(near, "_distance", question)]

    def _by_words(self, question: Question) -> list[IndexHit]:
        match: Any = MatchQuery  # its optional arguments are not known to be so
        words = match(question.text or "", self._address.text)
        rows = self._found(lambda table: table.search(words, query_type="fts"), "_score", question)
        return [self._hit(row, float(row["_score"])) for row in rows]

    def _found(self, search: Callable[[Any], Any], scored: str, question: Question) -> list[dict[str, Any]]:
        named = (self._known.key, self._address.text, self._address.image)
        fields = self._known.said.fields
        shown = list(dict.fromkeys(column_of(name, fields) for name in named if name is not None))

        def run(table: Any) -> list[dict[str, Any]]:
            query = search(table).select([*shown, scored]).limit(question.k)
            if question.where:
                query = query.where(question.where)
            return cast("list[dict[str, Any]]", query.to_list())

        return self._ask(run)

    def _hit(self, row: Mapping[str, Any], score: float) -> IndexHit:
        return make_hit(self._address, value_of(row, self._known.key), score, row)


def _over(indices: Sequence[tuple[Any, Any]], column: str | None) -> list[Any]:
    """The indices over a column: LanceDB quotes a name that is more than letters, digits and underlines."""
    return [index for index, _ in indices if [str(name).strip("`") for name in index.columns] == [column]]


def _kind(type_: pa.DataType) -> str:
    """What a column holds; empty for vectors of floats."""
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
