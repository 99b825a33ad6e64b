"""PostgreSQL with pgvector: a table, ``postgresql://user@host/shop?table=products&vector=clip&id=sku``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias, cast

import numpy as np
import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row

from ...errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ...settings import Settings
from ...values import check_choice, did_you_mean
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector

_Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
_TYPE = re.compile(r"(?P<type>vector|halfvec|bit|sparsevec)(?:\((?P<dimension>\d+)\))?$")
_METRICS: Mapping[str, tuple[Similarity, str]] = {  # operator class, without its type -> metric, operator
    "cosine": ("cosine", "<=>"),
    "ip": ("dot", "<#>"),
    "l2": ("euclid", "<->"),
}
_OPERATORS = dict(_METRICS.values())
_MAX_COUNTED = 10_000_000
"""Rows. If the planner estimates more, its estimate is used instead of a count."""
_REFUSED = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")
"""Parts of error messages of a server that refuses a connection; a retry does not help."""


@dataclass(frozen=True)
class _VectorIndex:
    """The index over the vectors."""

    expression: str  # that the index is over, as SQL with the column's name in it
    metric: Similarity
    operator: str
    text: str  # its kind and options, for people


@dataclass(frozen=True, kw_only=True)
class _PostgresTable(Description):
    """A table, its columns and its index."""

    table: sql.Composable  # its name, quoted and with its schema
    columns: Mapping[str, str]  # name -> type
    key: str  # column of the ids
    vector_index: _VectorIndex


class PostgresIndex(OpenIndex[_Connection, _PostgresTable]):
    """A table, a view or a materialised view; one connection, used by one caller at a time."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options("table", "host", "metric")
        if "table" not in address.options or not address.path:
            raise ConfigError(
                f"{address.place} names no table: postgresql://USER@HOST/DATABASE?table=NAME, or table=SCHEMA.NAME"
            )
        if "metric" in address.options:
            check_choice("metric", address.options["metric"], list(_OPERATORS))

    def _connect(self) -> _Connection:
        address = self._address
        parameters: dict[str, Any] = {
            "host": address.options.get("host", address.host),
            "port": address.port,
            "dbname": address.path,
            "user": self._user,
            "password": self._password or None,
            "connect_timeout": max(2, round(address.timeout_s)),
            "application_name": "reco",
            "options": f"-c default_transaction_read_only=on -c statement_timeout={round(address.timeout_s * 1000)}",
        }
        if address.tls:
            parameters |= {"sslmode": "verify-full", "sslrootcert": address.ca_file or "system"}
        given = {name: value for name, value in parameters.items() if value is not None}
        # a pooler may not support prepared statements
        connection = psycopg.connect(**given, autocommit=True, row_factory=dict_row, prepare_threshold=None)
        return cast("_Connection", connection)

    def _translate(self, error: Exception) -> RecoError | None:
        if not isinstance(error, psycopg.Error):
            return None
        place, message = self._address.place, str(error).strip().split("\n")[0]
        if isinstance(error, errors.QueryCanceled):
            return self._timeout_error()
        if isinstance(error, errors.InsufficientPrivilege):
            return EngineError(f"{place}: {message}; the user needs SELECT on the table, no more")
        if not isinstance(error, psycopg.OperationalError):
            return EngineError(f"{place}: {message}")
        if any(words in message for words in _REFUSED):
            return EngineError(f"{place} refuses: {message}. Set RECO_INDEX_USER and RECO_INDEX_PASSWORD")
        return EngineUnavailable(f"{place} cannot be reached: {message}")

    def _run(self, statement: Any, values: Any = None, *, binary: bool = False) -> list[dict[str, Any]]:
        def run(connection: _Connection) -> list[dict[str, Any]]:
            with connection.cursor(binary=binary) as cursor:
                return cursor.execute(statement, values or {}).fetchall()

        with self._lock:
            return self._call(run)

    def _inspect(self) -> _PostgresTable:
        """Read columns, key and index of the table from the catalogue."""
        wanted = self._address.options["table"]
        name = sql.Identifier(*wanted.split("."))
        (oid,) = self._run("SELECT to_regclass(%s)::oid AS oid", (name.as_string(),))[0].values()
        if oid is None:
            raise EngineError(f"{self._address.place} has no table {wanted!r}: {self._similar(wanted)}")
        rows = self._run(
            "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (oid,),
        )
        columns = {row["attname"]: row["type"] for row in rows}
        check_fields(self._address, columns, wanted)
        kinds = {column: match for column, type_ in columns.items() if (match := _TYPE.match(type_.rpartition(".")[2]))}
        dense = [column for column, match in kinds.items() if match["type"] in ("vector", "halfvec")]
        others = {column: type_ for column, type_ in columns.items() if column not in dense}
        vector = pick_vector(self._address, dense, others, wanted)
        index = self._index(oid, vector)
        version = self._run(
            "SELECT current_setting('server_version') AS server, extversion FROM pg_extension WHERE extname = 'vector'"
        )[0]
        return _PostgresTable(
            engine=f"PostgreSQL {version['server'].split()[0]}, pgvector {version['extversion']}",
            name=wanted,
            documents=0,
            vector=vector,
            dimension=int(kinds[vector]["dimension"] or self._read_dimension(name, vector)),
            metric=index.metric,
            index=index.text,
            fields=tuple(columns),
            searches_text=self._address.text is not None,
            table=_verbatim(name.as_string()),
            columns=columns,
            key=self._id_column(oid, wanted, columns),
            vector_index=index,
        )

    def _similar(self, wanted: str) -> str:
        names = self._run(
            "SELECT CASE WHEN pg_table_is_visible(oid) THEN '' ELSE relnamespace::regnamespace || '.' END || relname "
            "AS name FROM pg_class WHERE relkind = ANY('{r,p,v,m,f}') AND NOT relispartition AND NOT relnamespace = "
            "ANY('{pg_catalog,information_schema,pg_toast}'::regnamespace[]) ORDER BY name"
        )
        return did_you_mean(wanted, [str(row["name"]) for row in names])

    def _id_column(self, oid: int, table: str, columns: Mapping[str, str]) -> str:
        if (name := self._address.id) is not None and name in columns:
            return name
        keys = self._run(
            "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
            "WHERE indrelid = %s AND indisprimary",
            (oid,),
        )
        if name is not None or len(keys) != 1:
            raise EngineError(
                f"{self._address.place}: name the column of {table} that holds its ids, id=NAME "
                f"({did_you_mean(name or 'id', columns)})"
            )
        return str(keys[0]["attname"])

    def _index(self, oid: int, vector: str) -> _VectorIndex:
        """The index over the vectors: of the metric that the address names, else the first."""
        rows = self._run(
            "SELECT amname, opcname, pg_get_indexdef(indexrelid, 1, true) AS expression, reloptions, "
            "indpred IS NOT NULL AS partial "
            "FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = c.relam "
            "JOIN pg_opclass o ON o.oid = indclass[0] "
            "WHERE indrelid = %s AND indisvalid AND amname IN ('hnsw', 'ivfflat') ORDER BY indexrelid",
            (oid,),
        )
        wanted = self._address.options.get("metric")
        for row in rows:
            metric = row["opcname"].removesuffix("_ops").rpartition("_")[2]
            if metric not in _METRICS or (wanted and _METRICS[metric][0] != wanted):
                continue
            if _mentions(vector).search(row["expression"]):
                words = [row["amname"], row["opcname"], *(row["reloptions"] or ()), *(["partial"] * row["partial"])]
                return _VectorIndex(row["expression"], *_METRICS[metric], " ".join(words))
        similarity = cast("Similarity", wanted or "cosine")
        return _VectorIndex(sql.Identifier(vector).as_string(), similarity, _OPERATORS[similarity], EXACT)

    def _read_dimension(self, table: sql.Composable, vector: str) -> int:
        """The dimension of a stored vector, if the column's type has none."""
        statement = sql.SQL("SELECT vector_dims({0}) AS d FROM {1} WHERE {0} IS NOT NULL LIMIT 1")
        rows = self._run(statement.format(sql.Identifier(vector), table))
        if not rows:
            raise EngineError(f"{self._address.place}: no row of the table has a vector in {vector!r}")
        return int(rows[0]["d"])

    def _count(self) -> int:
        table = self._description.table
        statement = sql.SQL("SELECT reltuples::bigint AS n FROM pg_class WHERE oid = to_regclass({})")
        estimate = int(self._run(statement.format(sql.Literal(table.as_string())))[0]["n"])
        if estimate > _MAX_COUNTED:
            return estimate
        return int(self._run(sql.SQL("SELECT count(*) AS n FROM {}").format(table))[0]["n"])

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; the order is that of the ids, and rows of one id are in one page."""
        known = self._description
        key, kind = _column(known.key), _verbatim(known.columns[known.key])
        wanted: list[sql.Composable] = [_column(name) for name in known.columns if name != known.vector]
        if vectors:  # pgvector's binary format, several times as fast to read as text
            wanted.append(sql.SQL("vector_send({}::vector) AS reco_vector").format(_column(known.vector)))
        condition: sql.Composable = sql.SQL("{} IS NOT NULL").format(key)
        values = dict[str, Any]()
        while True:
            statement = sql.SQL(
                "SELECT {}, CAST({} AS text) AS reco_id FROM {} WHERE {} ORDER BY {} FETCH FIRST {} ROWS WITH TIES"
            ).format(sql.SQL(", ").join(wanted), key, known.table, condition, key, sql.Literal(size))
            rows = self._run(statement, values, binary=vectors)
            if not rows:
                return
            condition = sql.SQL("{} > CAST(%(after)s AS {})").format(key, kind)
            values = {"after": rows[-1]["reco_id"]}
            yield [self._make_document(row) for row in rows]

    def _make_document(self, row: dict[str, Any]) -> Document:
        id_, stored = row.pop("reco_id"), row.pop("reco_vector", None)
        # pgvector's binary format: two numbers of 16 bits, then D of float32, big-endian
        vector = None if stored is None else np.frombuffer(bytes(stored), ">f4", offset=4).astype(np.float32)
        return make_document(self._address, id_, vector, row, self._description.dimension)

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        """Compare by the expression that the index is over; PostgreSQL would not use the index otherwise."""
        index, column = self._description.vector_index, self._description.vector
        stored = index.expression.replace("%", "%%")
        wanted = _mentions(column.replace("%", "%%")).sub("%(vector)s::vector", stored)
        distance = sql.SQL(_trusted(f"{stored} {index.operator} ({wanted})"))
        rows = self._run_search(query, distance, distance, (), {"vector": str(vector.tolist())})
        cosine = index.metric == "cosine"
        scored = [(row, float(row["reco_score"])) for row in rows if row["reco_score"] is not None]  # null: no vector
        return [self._make_hit(row, 1 - value if cosine else -value) for row, value in scored if not np.isnan(value)]

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        document = sql.SQL("to_tsvector(coalesce({}, ''))").format(self._shown(str(self._address.text)))
        words = sql.SQL("websearch_to_tsquery(%(text)s)")
        rank = sql.SQL("ts_rank_cd({}, {})").format(document, words)
        matches = sql.SQL("{} @@ {}").format(document, words)
        rows = self._run_search(query, rank, sql.SQL("reco_score DESC"), (matches,), {"text": query.text or ""})
        return [self._make_hit(row, float(row["reco_score"])) for row in rows]

    def _run_search(
        self,
        query: IndexQuery,
        score: sql.Composable,
        order: sql.Composable,
        conditions: Sequence[sql.Composable],
        values: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        named = {"reco_id": self._description.key, "reco_text": self._address.text, "reco_image": self._address.image}
        shown = [
            sql.SQL("{} AS {}").format(self._shown(column), sql.Identifier(name))
            for name, column in named.items()
            if column is not None
        ]
        all_ = [*([_verbatim(f"({query.where}\n)")] if query.where else []), *conditions]
        where = sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(all_)) if all_ else sql.SQL("")
        statement = sql.SQL("SELECT {}, {} AS reco_score FROM {}{} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join(shown), score, self._description.table, where, order, sql.Literal(query.k)
        )
        return self._run(statement, values)

    def _make_hit(self, row: Mapping[str, Any], score: float) -> IndexHit:
        own = {self._address.text: row.get("reco_text"), self._address.image: row.get("reco_image")}
        return make_hit(self._address, row["reco_id"], score, {name: value for name, value in own.items() if name})

    def _shown(self, column: str) -> sql.Composable:
        """A column as text: arrays joined, fields in JSON by their path; bytes stay bytes."""
        columns = self._description.columns
        if column not in columns:
            whole = column_of(column, columns)
            path = column.removeprefix(f"{whole}.").split(".")
            return sql.SQL("{} #>> {}").format(_column(whole), sql.Literal([part.replace("%", "%%") for part in path]))
        if columns[column] == "bytea":
            return _column(column)
        cast_to_text = "array_to_string({}, ', ')" if columns[column].endswith("[]") else "CAST({} AS text)"
        return sql.SQL(_trusted(cast_to_text)).format(_column(column))


def _mentions(column: str) -> re.Pattern[str]:
    """Matches a column's name in SQL, quoted or not, but not a part of a longer name nor a type of that name."""
    quoted = sql.Identifier(column).as_string()
    return re.compile(rf"(?<![\w\":]){re.escape(column)}(?![\w\"])|{re.escape(quoted)}")


def _column(name: str) -> sql.Identifier:
    """Quote a column's name; a percent sign in it starts no placeholder."""
    return sql.Identifier(name.replace("%", "%%"))


def _verbatim(text: str) -> sql.SQL:
    """SQL of the user or of the catalogue; a percent sign in it starts no placeholder."""
    return sql.SQL(_trusted(text.replace("%", "%%")))


def _trusted(text: str) -> LiteralString:
    """SQL from the user's own address or filter, or from the database's catalogue, for the type checker."""
    return text
