"""A table of LanceDB, in a folder or an object store: ``lancedb:./shop?table=products&vector=clip&id=sku``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.query import MatchQuery

from ..config import Settings
from ..data.cells import Vector
from ..errors import ConfigError, EngineError, EngineUnavailable
from ..values import check_choice, did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, query_of, value_of

_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2": "euclid"}
_NAMES = {metric: name for name, metric in _METRICS.items()}
_AT_ONCE = 10
"""Pages that are read by one request."""
_TUNED = ("nprobes", "refine_factor", "ef")
"""Options of a search, as LanceDB calls them."""
_REFRESHED = timedelta(seconds=5)
_AWAY = ("timed out", "timeout", "connection", "503", "slow down", "slowdown", "429", "dns error")
"""In the words of an object store that may answer later."""
T = TypeVar("T")


@dataclass(frozen=True)
class _LanceTable:
    """What is known of a table."""

    said: Description  # but for how many documents there are
    schema: pa.Schema
    mappings: tuple[str, ...]  # columns of several values each
    key: str  # column of the ids
    read: tuple[str, ...]  # columns of a scan, without the vectors


class LanceIndex(LooksOnce[_LanceTable]):
    """A table; see :class:`~reco_plugin.engines.base.Engine`."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only("table", "metric", *_TUNED)
        if "table" not in address.options or not address.path:
            raise ConfigError(f"{address.place} names no table: lancedb:FOLDER?table=NAME")
        if address.path.startswith("db://"):
            raise ConfigError(
                f"{address.place}: tables of LanceDB's cloud are not read, those of a folder or bucket are"
            )
        if "metric" in address.options:
            check_choice("metric", address.options["metric"], list(_NAMES))
        self._tuned = {name: _whole(address, name) for name in _TUNED if name in address.options}
        self._address = address
        self._opened: Any = None

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        return replace(self._known().said, documents=int(self._call(lambda table: table.count_rows())))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`; it stays at the version of the table where it began."""
        found, row = self._known(), 0
        table = ask(self._open)  # one of its own
        with self._translated():
            table.checkout(table.version)

        def read(row: int) -> list[pa.RecordBatch]:
            query = table.search().select([*found.read, *[found.said.vector] * vectors])
            with self._translated():  # a scan without a limit reads ahead, and holds 2 GiB of it
                return list(query.offset(row).limit(_AT_ONCE * size).to_batches(size))

        while batches := ask(partial(read, row)):
            for batch in batches:
                row += batch.num_rows
                if batch.num_rows:
                    yield Page(tuple(self._documents(found, batch, vectors)))

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`."""
        found, address = self._known(), self._address
        named = (found.key, address.text, address.image)
        shown = list(dict.fromkeys(column_of(name, found.mappings) for name in named if name))
        if question.vector is None:
            if not found.said.searches_text:
                raise ConfigError(
                    f"{address.place} cannot be searched by words: it has no index of type FTS over "
                    f"{address.text or 'a column that text=NAME names'}"
                )
            match: Any = MatchQuery  # its optional arguments are not known to be so
            words = match(question.text or "", address.text)
            rows = self._found(lambda table: table.search(words, query_type="fts"), [*shown, "_score"], question)
            return [make_hit(address, value_of(row, found.key), float(row["_score"]), row) for row in rows]
        said, vector = found.said, query_of(address, question.vector, found.said.dimension)

        def near(table: Any) -> Any:
            query = table.search(vector, vector_column_name=said.vector).distance_type(_NAMES[said.metric])
            for name, value in self._tuned.items():
                query = getattr(query, name)(value)
            return query

        rows = self._found(near, [*shown, "_distance"], question)
        return [
            make_hit(address, value_of(row, found.key), _score(float(row["_distance"]), said.metric), row)
            for row in rows
        ]

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        with self._lock:
            self._opened = None

    def _found(self, search: Callable[[Any], Any], shown: list[str], question: Question) -> list[dict[str, Any]]:
        def run(table: Any) -> list[dict[str, Any]]:
            query = search(table).select(shown).limit(question.k)
            if question.where:
                query = query.where(question.where)
            return cast("list[dict[str, Any]]", query.to_list())

        return self._call(run)

    def _documents(self, found: _LanceTable, batch: pa.RecordBatch, vectors: bool) -> Iterator[Document]:
        block: dict[int, Vector] = {}
        if vectors:
            column = batch.column(found.said.vector)
            there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            numbers = column.flatten().to_numpy(zero_copy_only=False)  # of those that are not null
            rows = numbers.astype(np.float32).reshape(-1, found.said.dimension)
            block = dict(zip(there.tolist(), rows, strict=True))
        for place, values in enumerate(batch.select(found.read).to_pylist()):
            yield make_document(self._address, value_of(values, found.key), block.get(place), values)

    def _call(self, action: Callable[[Any], T]) -> T:
        def run() -> T:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                table = self._opened
            with self._translated():
                return action(table)

        return ask(run)

    def _open(self) -> Any:
        path, name = self._address.path, self._address.options["table"]
        if "://" not in path and not Path(path).is_dir():  # LanceDB would make it
            raise EngineError(f"there is no folder {path}: lancedb:FOLDER?table=NAME names one of LanceDB")
        with self._translated():
            database = lancedb.connect(path, read_consistency_interval=_REFRESHED)
            try:
                return database.open_table(name)
            except (ValueError, FileNotFoundError):
                near = did_you_mean(name, [str(table) for table in database.list_tables().tables])
                raise EngineError(f"{self._address.place} has no table {name!r}: {near}") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn LanceDB's errors into ours."""
        try:
            yield
        except (ValueError, RuntimeError, OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split("\n")[0].split())[:300]
            if any(words in said.lower() for words in _AWAY):
                raise EngineUnavailable(f"{self._address.place} cannot be reached: {said}") from None
            raise EngineError(f"{self._address.place}: {said}") from None

    def _look(self) -> _LanceTable:
        address, name = self._address, self._address.options["table"]
        schema = self._call(lambda table: table.schema)
        mappings = tuple(field.name for field in schema if pa.types.is_struct(field.type))
        within = [part for one in mappings for part in _within(schema.field(one).type, one)]
        check_fields(address, (*schema.names, *within), name)
        others = {field.name: _kind(field.type) for field in schema}
        dense = [field for field, kind in others.items() if not kind]
        vector = pick_vector(address, dense, {field: kind for field, kind in others.items() if kind}, name)
        key = address.id or "id"
        if column_of(key, mappings) not in schema.names:
            raise EngineError(f"{address.place}: name the column of the ids, id=NAME: it has {', '.join(schema.names)}")
        read = tuple(
            field for field, kind in others.items()
            if kind and "vector" not in kind and (kind != "bytes" or field == address.image)
        )  # fmt: skip
        type_ = schema.field(vector).type
        indices = self._call(lambda table: [(index, table.index_stats(index.name)) for index in table.list_indices()])
        words = any(_is_words(index.index_type) and _columns(index) == [address.text] for index, _ in indices)
        said = Description(
            engine=f"LanceDB {lancedb.__version__}",
            name=name,
            documents=0,
            vector=vector,
            dimension=int(type_.list_size),
            metric="euclid",  # what LanceDB does by itself
            index="none: each vector is compared",
            fields=(*schema.names, *within),
            searches_text=words,
        )
        return _LanceTable(self._with_index(said, indices), schema, mappings, key, read)

    def _with_index(self, said: Description, indices: Sequence[tuple[Any, Any]]) -> Description:
        """The same with the index over the vectors, and the metric that the address names."""
        wanted = cast("Similarity | None", self._address.options.get("metric"))
        for index, stats in indices:
            metric = str(getattr(stats, "distance_type", "") or "").lower()
            if _columns(index) != [said.vector] or not metric:
                continue
            if metric not in _METRICS:
                raise EngineError(f"{self._address.place}: the index of {said.vector!r} compares by {metric}")
            if wanted and _METRICS[metric] != wanted:
                raise EngineError(
                    f"{self._address.place}: metric={wanted} is not that of the index, {_METRICS[metric]}, so that "
                    "LanceDB would compare each vector instead"
                )
            return replace(said, metric=_METRICS[metric], index=str(stats.index_type))
        return replace(said, metric=wanted) if wanted else said


def _within(type_: pa.DataType, above: str) -> Iterator[str]:
    """Names of what a column of several values holds, with dots between."""
    for part in type_:
        name = f"{above}.{part.name}"
        yield from _within(part.type, name) if pa.types.is_struct(part.type) else [name]


def _kind(type_: pa.DataType) -> str:
    """What a column holds; empty for vectors of floats."""
    if pa.types.is_fixed_size_list(type_):
        return "" if pa.types.is_floating(type_.value_type) else f"vectors of {type_.value_type}"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = type_.value_type
        if pa.types.is_fixed_size_list(inner):
            return "several vectors a row"
        return "vectors of any length" if pa.types.is_floating(inner) else str(type_)
    is_bytes = pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)
    return "bytes" if is_bytes else str(type_)


def _columns(index: Any) -> list[str]:
    """What an index is over: LanceDB quotes a name that is more than letters, digits and underlines."""
    return [str(name).strip("`") for name in index.columns]


def _is_words(kind: str) -> bool:
    return kind.upper() in ("FTS", "INVERTED")


def _whole(address: IndexAddress, name: str) -> int:
    value = address.options[name]
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 1_000_000:
        raise ConfigError(f"{address.place}: option {name}={value!r} must be a whole number above 0")
    return int(value)


def _score(distance: float, metric: Similarity) -> float:
    """LanceDB gives 1 less the cosine or the dot product, or the square of Euclid's distance."""
    return -(max(distance, 0.0) ** 0.5) if metric == "euclid" else 1 - distance
