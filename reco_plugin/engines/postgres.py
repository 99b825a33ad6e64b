"""A table of PostgreSQL with a column of pgvector: ``postgresql://user@host/shop?table=products&vector=clip&id=sku``."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import numpy as np
import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row

from ..config import Settings
from ..data.cells import Vector
from ..errors import ConfigError, EngineError, EngineTimeout, EngineUnavailable
from ..values import check_choice, did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, Page, Question, Similarity
from .documents import check_fields, column_of, make_document, pick_vector, picture_or_none, query_of, text_or_none

_TYPE = re.compile(r"(?P<type>vector|halfvec|bit|sparsevec)(?:\((?P<dimension>\d+)\))?$")
_METRICS: Mapping[str, tuple[Similarity, str]] = {  # operator class, without its type -> metric, operator
    "cosine": ("cosine", "<=>"),
    "ip": ("dot", "<#>"),
    "l2": ("euclid", "<->"),
}
_OPERATORS = dict(_METRICS.values())
_COUNTED = 10_000_000
"""Rows up to which they are counted; beyond, the planner's estimate is used."""
_REFUSED = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")
"""In the words of a server that refuses a connection: asking again does not help."""


@dataclass(frozen=True)
class _Index:
    """How a table is searched."""

    compared: str  # the expression that the index is over, as SQL with the column's name in it
    metric: Similarity
    operator: str
    words: str  # of the index, for people


@dataclass(frozen=True)
class _Table:
    """What the database says about a table."""

    name: str  # quoted and with its schema
    columns: Mapping[str, str]  # name -> type
    key: str  # column of the ids
    vector: str  # column of the vectors
    dimension: int
    index: _Index


class PostgresIndex:
    """A table, a view or a materialised view; see :class:`~reco_plugin.engines.base.Engine`."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        address.only("table", "host", "metric", "language")
        if "table" not in address.options or not address.path:
            raise ConfigError(
                f"{address.place} names no table: postgresql://USER@HOST/DATABASE?table=NAME, or table=SCHEMA.NAME"
            )
        if "metric" in address.options:
            check_choice("metric", address.options["metric"], list(_OPERATORS))
        self._address, self._settings = address, settings
        self._lock = threading.RLock()  # one connection, used by one caller at a time
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._table: _Table | None = None

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        with self._lock:
            table = self._known()
            return ask(lambda: self._describe(table))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`; rows of one id stay together in a page."""
        table = self._known()
        key, kind = _column(table.key), _as_it_is(table.columns[table.key])
        wanted: list[sql.Composable] = [_column(name) for name in table.columns if name != table.vector]
        if vectors:  # its own form for the wire: several times as fast to read as text
            wanted.append(sql.SQL("vector_send({}::vector) AS reco_vector").format(_column(table.vector)))
        if without := self._without_id(table):
            problem = f"{without:,} rows have no {table.key!r}"
            yield Page((Document("", problem=problem),))
        conditions, values = [sql.SQL("{} IS NOT NULL").format(key)], dict[str, Any]()
        while True:
            query = sql.SQL(
                "SELECT {}, CAST({} AS text) AS reco_id FROM {} WHERE {} ORDER BY {} FETCH FIRST {} ROWS WITH TIES"
            ).format(
                sql.SQL(", ").join(wanted), key, _as_it_is(table.name), sql.SQL(" AND ").join(conditions), key,
                sql.Literal(size),
            )  # fmt: skip
            with self._lock:
                rows = ask(lambda query=query, values=values: self._run(query, values, binary=vectors))  # type: ignore[misc]
            if not rows:
                return
            if not values:
                conditions.append(sql.SQL("{} > CAST(%(after)s AS {})").format(key, kind))
            values = {"after": rows[-1]["reco_id"]}
            yield Page(tuple(self._document(table, row, vectors) for row in rows))

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`."""
        table = self._known()
        vector = ""
        if question.vector is not None:
            vector = str(query_of(self._address, question.vector, table.dimension).tolist())
        shown = [
            sql.SQL("{} AS {}").format(_shown(table, column), sql.Identifier(name))
            for name, column in (
                ("reco_id", table.key),
                ("reco_text", self._address.text),
                ("reco_image", self._address.image),
            )
            if column is not None
        ]
        score: sql.Composable
        order: sql.Composable
        conditions: list[sql.Composable] = [_as_it_is(f"({question.where}\n)")] if question.where else []
        if question.vector is None:
            score, found = self._by_text(table)
            conditions, order = [*conditions, found], sql.SQL("reco_score DESC")
        else:
            score = order = sql.SQL(self._distance(table))
        where = sql.Composed([sql.SQL(" WHERE "), sql.SQL(" AND ").join(conditions)] if conditions else [])
        query = sql.SQL("SELECT {}, {} AS reco_score FROM {}{} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join(shown), score, _as_it_is(table.name), where, order, sql.Literal(question.k)
        )
        values = {"vector": vector, "text": question.text or ""}
        rows = ask(lambda: self._run(query, values))
        return [
            IndexHit(
                row["reco_id"],
                self._score(table, question, row),
                text_or_none(row.get("reco_text")),
                picture_or_none(row.get("reco_image")),
            )
            for row in rows
            if row["reco_score"] is not None
            and not math.isnan(row["reco_score"])  # of no vector, and of zeros: both last
        ]

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _by_text(self, table: _Table) -> tuple[sql.Composable, sql.Composable]:
        """The rank of a row by its words, and whether it has them."""
        if self._address.text is None:
            raise ConfigError(f"{self._address.place} names no field of texts: add text=NAME to search it by words")
        language = self._address.options.get("language")
        first: sql.Composable = sql.SQL("{}, ").format(sql.Literal(language)) if language else sql.SQL("")
        column = self._address.text
        as_text = (
            sql.SQL("CAST({} AS text)").format(_column(column)) if column in table.columns else _shown(table, column)
        )
        document = sql.SQL("to_tsvector({}coalesce({}, ''))").format(first, as_text)
        asked = sql.SQL("websearch_to_tsquery({}%(text)s)").format(first)
        return sql.SQL("ts_rank_cd({}, {})").format(document, asked), sql.SQL("{} @@ {}").format(document, asked)

    @staticmethod
    def _distance(table: _Table) -> LiteralString:
        """Of the column from the question, in the form that the index is over, or it would not be used."""
        compared = table.index.compared.replace("%", "%%")
        asked = _named(table.vector.replace("%", "%%")).sub("%(vector)s::vector", compared)
        return _sure(f"{compared} {table.index.operator} ({asked})")

    @staticmethod
    def _score(table: _Table, question: Question, row: Mapping[str, Any]) -> float:
        value = float(row["reco_score"])
        if question.vector is None:
            return value
        return 1 - value if table.index.metric == "cosine" else -value

    def _run(self, query: Any, values: Any = None, *, binary: bool = False) -> list[dict[str, Any]]:
        with self._lock, self._connected() as connection, connection.cursor(binary=binary) as cursor:
            return cursor.execute(query, values).fetchall()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """The connection, made now if there is none; the driver's errors become ours."""
        place = self._address.place
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            yield self._connection
        except errors.QueryCanceled:
            raise EngineTimeout(
                f"{place} did not answer within {self._address.timeout_s:g} s: give timeout_s= more"
            ) from None
        except errors.InsufficientPrivilege as error:
            raise EngineError(f"{place}: {_first_line(error)}; the user needs SELECT on the table, no more") from None
        except psycopg.OperationalError as error:
            said = _first_line(error)
            if any(word in said for word in _REFUSED):
                raise EngineError(
                    f"{place} refuses: {said}. The user is RECO_INDEX_USER or in the address, the password is "
                    "RECO_INDEX_PASSWORD"
                ) from None
            self.close()
            raise EngineUnavailable(f"{place} cannot be reached: {said}") from None
        except psycopg.Error as error:
            raise EngineError(f"{place}: {_first_line(error)}") from None

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        address, settings = self._address, self._settings
        said: dict[str, Any] = {
            "host": address.options.get("host", address.host),
            "port": address.port,
            "dbname": address.path,
            "user": address.user or settings.index_user,
            "password": settings.index_password.get_secret_value() if settings.index_password else None,
            "connect_timeout": max(2, round(address.timeout_s)),
            "application_name": "reco",
            "options": f"-c default_transaction_read_only=on -c statement_timeout={round(address.timeout_s * 1000)}",
        }
        if address.tls:
            said |= {"sslmode": "verify-full", "sslrootcert": address.ca_file or "system"}
        given = {name: value for name, value in said.items() if value is not None}
        # a pooler between may know no prepared statements
        connection = psycopg.connect(**given, autocommit=True, row_factory=dict_row, prepare_threshold=None)
        return cast("psycopg.Connection[dict[str, Any]]", connection)

    def _known(self) -> _Table:
        with self._lock:
            if self._table is None:
                self._table = ask(self._look)
            return self._table

    def _look(self) -> _Table:
        """Columns, key and index of the table, as the catalogue has them."""
        place, wanted = self._address.place, self._address.options["table"]
        quoted = sql.Identifier(*wanted.split(".")).as_string()
        found = self._run("SELECT to_regclass(%s)::text AS name, to_regclass(%s)::oid AS oid", (quoted, quoted))
        if found[0]["oid"] is None:
            names = self._run(
                "SELECT CASE WHEN pg_table_is_visible(oid) THEN '' ELSE (SELECT nspname FROM pg_namespace n "
                "WHERE n.oid = relnamespace) || '.' END || relname AS name FROM pg_class "
                "WHERE relkind = ANY('{r,p,v,m,f}') AND NOT relispartition AND NOT relnamespace = "
                "ANY('{pg_catalog,information_schema,pg_toast}'::regnamespace[]) ORDER BY name"
            )
            known = [str(row["name"]) for row in names]
            elsewhere = [name for name in known if name.rpartition(".")[2] == wanted]
            near = did_you_mean(wanted, elsewhere or known)
            raise EngineError(f"{place} has no table {wanted!r}: {near}")
        oid = found[0]["oid"]
        rows = self._run(
            "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (oid,),
        )
        columns = {row["attname"]: row["type"] for row in rows}
        check_fields(self._address, columns, wanted, mappings=_of_json(columns), inner=("text", "image"))
        vector, kind, dimension = self._vector(wanted, columns)
        index = self._index(oid, vector, kind)
        if dimension is None:
            dimension = self._measured(quoted, vector)
        return _Table(quoted, columns, self._key(oid, wanted, columns), vector, dimension, index)

    def _vector(self, table: str, columns: Mapping[str, str]) -> tuple[str, str, int | None]:
        """The column of the vectors, its type and its dimension, if that says one."""
        kinds = {column: match for column, type_ in columns.items() if (match := _TYPE.match(type_.rpartition(".")[2]))}
        dense = [column for column, match in kinds.items() if match["type"] in ("vector", "halfvec")]
        others = {column: type_ for column, type_ in columns.items() if column not in dense}
        name = pick_vector(self._address, dense, others, table)
        size = kinds[name]["dimension"]
        return name, kinds[name]["type"], int(size) if size else None

    def _key(self, oid: int, table: str, columns: Mapping[str, str]) -> str:
        if (name := self._address.id) is not None:
            return name
        keys = self._run(
            "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
            "WHERE indrelid = %s AND indisprimary",
            (oid,),
        )
        if len(keys) != 1:
            raise EngineError(
                f"{self._address.place}: {table} has no key of one column: name the column of its ids, id=NAME "
                f"({did_you_mean('id', columns)})"
            )
        return str(keys[0]["attname"])

    def _index(self, oid: int, vector: str, kind: str) -> _Index:
        """The index over the vectors: the one of the metric that was asked for, or the first."""
        rows = self._run(
            "SELECT amname, opcname, pg_get_indexdef(indexrelid, 1, true) AS compared, reloptions, "
            "indpred IS NOT NULL AS partial "
            "FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam "
            "JOIN pg_opclass o ON o.oid = indclass[0] "
            "WHERE indrelid = %s AND indisvalid AND amname IN ('hnsw', 'ivfflat') ORDER BY indexrelid",
            (oid,),
        )
        column, wanted = sql.Identifier(vector).as_string(), self._address.options.get("metric")
        for row in rows:
            metric = row["opcname"].removesuffix("_ops").rpartition("_")[2]
            if metric not in _METRICS or (wanted and _METRICS[metric][0] != wanted):
                continue
            if not _named(vector).search(row["compared"]):
                continue
            words = " ".join(
                [row["amname"], row["opcname"], *(row["reloptions"] or ()), *(["partial"] * row["partial"])]
            )
            return _Index(row["compared"], *_METRICS[metric], words)
        metric_ = cast("Similarity", wanted or "cosine")
        return _Index(column, metric_, _OPERATORS[metric_], "none: each vector is compared")

    def _measured(self, table: str, vector: str) -> int:
        column = sql.Identifier(vector)
        query = sql.SQL("SELECT vector_dims({}) AS d FROM {} WHERE {} IS NOT NULL LIMIT 1").format(
            column, sql.SQL(_sure(table)), column
        )
        rows = self._run(query)
        if not rows:
            raise EngineError(f"{self._address.place}: no row of the table has a vector in {vector!r}")
        return int(rows[0]["d"])

    def _without_id(self, table: _Table) -> int:
        query = sql.SQL("SELECT count(*) AS n FROM {} WHERE {} IS NULL").format(
            sql.SQL(_sure(table.name)), sql.Identifier(table.key)
        )
        with self._lock:
            return int(ask(lambda: self._run(query))[0]["n"])

    def _document(self, table: _Table, row: dict[str, Any], vectors: bool) -> Document:
        id_, sent = row.pop("reco_id"), row.pop("reco_vector", None)
        vector = None if sent is None else _vector(bytes(sent))
        problem = None
        if vector is not None and len(vector) != table.dimension:
            problem = f"its vector has {len(vector)} dimensions, others have {table.dimension}"
            vector = None
        return make_document(self._address, id_, vector, row, problem)

    def _describe(self, table: _Table) -> Description:
        place = sql.SQL(_sure(table.name))
        version = self._run(
            "SELECT current_setting('server_version') AS server, extversion FROM pg_extension WHERE extname = 'vector'"
        )
        estimate = self._run("SELECT reltuples::bigint AS n FROM pg_class WHERE oid = to_regclass(%s)", (table.name,))[
            0
        ]["n"]
        rows = (
            estimate
            if estimate > _COUNTED
            else self._run(sql.SQL("SELECT count(*) AS n FROM {}").format(place))[0]["n"]
        )
        server = version[0]["server"].split()[0]
        return Description(
            engine=f"PostgreSQL {server}, pgvector {version[0]['extversion']}",
            name=self._address.options["table"],
            documents=int(rows),
            vector=table.vector,
            dimension=table.dimension,
            metric=table.index.metric,
            index=table.index.words,
            fields=tuple(table.columns),
            searches_text=self._address.text is not None,
        )


def _vector(sent: bytes) -> Vector:
    """A vector (D,) from pgvector's form for the wire: two numbers of 16 bits, then D of float32, big-endian."""
    return np.frombuffer(sent, ">f4", offset=4).astype(np.float32)


def _named(column: str) -> re.Pattern[str]:
    """Where SQL names the column, quoted or not: not within a longer name, and not as a type of that name."""
    quoted = sql.Identifier(column).as_string()
    return re.compile(rf"(?<![\w\":]){re.escape(column)}(?![\w\"])|{re.escape(quoted)}")


def _column(name: str) -> sql.Identifier:
    """Of a query that has values: a percent sign in it opens none."""
    return sql.Identifier(name.replace("%", "%%"))


def _of_json(columns: Mapping[str, str]) -> list[str]:
    return [column for column, type_ in columns.items() if type_ in ("json", "jsonb")]


def _shown(table: _Table, column: str) -> sql.Composable:
    """A column as a text, of several texts all; pictures in it as they are."""
    if column not in table.columns:  # within JSON
        whole = column_of(column, _of_json(table.columns))
        path = column.removeprefix(f"{whole}.").split(".")
        return sql.SQL("{} #>> {}").format(_column(whole), sql.Literal([part.replace("%", "%%") for part in path]))
    type_ = table.columns[column]
    if type_ == "bytea":
        return _column(column)
    return sql.SQL("array_to_string({}, ', ')" if type_.endswith("[]") else "CAST({} AS text)").format(_column(column))


def _as_it_is(text: str) -> sql.SQL:
    """SQL of the user or of the catalogue, within a query that has values: a percent sign in it opens none."""
    return sql.SQL(_sure(text.replace("%", "%%")))


def _sure(text: str) -> LiteralString:
    """A text that is SQL: of the user's own address or filter, or of the database's catalogue."""
    return text  # the checker of types takes it for any text


def _first_line(error: psycopg.Error) -> str:
    return f"{error}".strip().split("\n")[0]
