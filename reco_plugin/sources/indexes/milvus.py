"""Milvus: a collection of a server or of a Milvus Lite file, ``milvus://host:19530/products?vector=clip&id=sku``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from ...errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ...settings import Settings
from ...values import did_you_mean
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_metric, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"COSINE": "cosine", "IP": "dot", "L2": "euclid"}
_EXACT_KINDS = ("", "FLAT", "BRUTE_FORCE")
_SAMPLE = 100
_REFUSING = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_NO_ACCESS = ("auth check failure", "privilege", "permission den", "unauthenticated")
_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, 2, 8, 103, 106)
"""gRPC and Milvus codes of errors that pass: no connection, too many requests, a collection that is still loading."""
for _name in ("pymilvus.decorators", "pymilvus.client.connection_manager", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they log a trace of each error, which we raise


@dataclass(frozen=True, kw_only=True)
class _MilvusCollection(Description):
    """A collection and its schema."""

    types: Mapping[str, DataType]  # of the fields in the schema; documents may have more fields
    key: str  # field of the primary key
    bm25: str | None  # field of the captions' BM25 vectors; None: captions are not searched


class MilvusIndex(OpenIndex[MilvusClient, _MilvusCollection]):
    """A collection of Milvus."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options("collection", "db")
        self._lite = not address.host
        self._name = address.options.get("collection", "" if self._lite else address.path)
        if not self._name or (self._lite and not address.path):
            raise ConfigError(
                f"{address.place} names no collection: milvus://HOST:19530/COLLECTION, or "
                "milvus:FILE.db?collection=NAME for a file of Milvus Lite"
            )
        self._limit = {"timeout": address.timeout_s}

    def _connect(self) -> MilvusClient:
        address, file = self._address, Path(self._address.path)
        if self._lite:
            if not file.exists() or file.suffix != ".db":
                raise EngineError(f"there is no file {file} that ends in .db, as Milvus Lite needs")
            client = MilvusClient(address.path)
            if client.has_collection(self._name):
                client.load_collection(self._name)  # into this process
            return client
        if address.ca_file and not Path(address.ca_file).is_file():
            raise ConfigError(f"{address.place}: there is no file {address.ca_file!r}, which ca_file= names")
        token = self._key or (f"{self._user}:{self._password}" if self._user and self._password else "")
        tls = {"server_pem_path": address.ca_file} if address.ca_file else {}
        return MilvusClient(address.url, token=token, db_name=address.options.get("db", ""), **self._limit, **tls)

    def _translate(self, error: Exception) -> RecoError | None:
        if not isinstance(error, MilvusException | grpc.RpcError):
            return None
        place, code = self._address.place, _code(error)
        message = str(error.message if isinstance(error, MilvusException) else error)
        message = " ".join(message.split())[:300].rstrip(". ")
        if code in _REFUSING or any(words in message.lower() for words in _NO_ACCESS):
            return EngineError(
                f"{place} refuses: {message}. The token is RECO_INDEX_API_KEY, or set RECO_INDEX_USER and "
                "RECO_INDEX_PASSWORD; privileges to describe, query and search the collection suffice"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._timeout_error()
        if code in _TEMPORARY or getattr(error, "retriable", False) or "not ready" in message:
            return EngineUnavailable(f"{place} cannot be reached: {message}")
        if "not loaded" in message:
            message += "; load it first"
        return EngineError(f"{place}: {message}")

    def _inspect(self) -> _MilvusCollection:
        address = self._address
        if not self._call(lambda client: client.has_collection(self._name, **self._limit)):
            names = self._call(lambda client: client.list_collections(**self._limit))
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        schema = self._call(lambda client: client.describe_collection(self._name, **self._limit))
        types = {field["name"]: DataType(field["type"]) for field in schema["fields"]}
        dynamic = self._dynamic_fields(types) if schema.get("enable_dynamic_field") else []
        check_fields(address, (*types, *dynamic), self._name)
        dense = [name for name, type_ in types.items() if type_ is DataType.FLOAT_VECTOR]
        others = {name: type_.name.lower().replace("_", " ") for name, type_ in types.items() if name not in dense}
        vector = pick_vector(address, dense, others, self._name)
        index, metric = self._index(vector)
        version = str(self._call(lambda client: client.get_server_version()))
        lite = version.startswith("milvus_lite-")
        bm25 = _bm25_field(schema, address.text)
        return _MilvusCollection(
            engine=f"Milvus Lite {version.partition('-')[2]}" if lite else f"Milvus {version.removeprefix('v')}",
            name=schema["collection_name"],
            documents=0,
            vector=vector,
            dimension=next(int(field["params"]["dim"]) for field in schema["fields"] if field["name"] == vector),
            metric=metric,
            index=EXACT if index in _EXACT_KINDS else index,
            fields=(*types, *dynamic),
            searches_text=bm25 is not None,
            types=types,
            key=next(field["name"] for field in schema["fields"] if field.get("is_primary")),
            bm25=bm25,
        )

    def _dynamic_fields(self, types: Mapping[str, DataType]) -> list[str]:
        """Fields of the first documents that are not in the schema."""
        rows = self._call(lambda client: client.query(self._name, "", ["$meta"], limit=_SAMPLE, **self._limit))
        return list(dict.fromkeys(name for row in rows for name in row if name not in types and name != "$meta"))

    def _index(self, vector: str) -> tuple[str, Similarity]:
        """The kind of index, such as HNSW, and its metric."""
        index: Mapping[str, Any] = {}
        if names := self._call(lambda client: client.list_indexes(self._name, field_name=vector)):
            index = self._call(lambda client: client.describe_index(self._name, names[0], **self._limit)) or {}
        metric = pick_metric(self._address, str(index.get("metric_type", "COSINE")), _METRICS)
        return str(index.get("index_type", "")), metric

    def _count(self) -> int:
        counted = self._call(lambda client: client.query(self._name, "", ["count(*)"], **self._limit))
        return int(counted[0]["count(*)"])

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; the order is that of the primary key."""
        known, after = self._description, ""
        wanted = [name for name, type_ in known.types.items() if "VECTOR" not in type_.name]
        wanted += [known.vector] * vectors + ["$meta"] * (len(known.fields) > len(known.types))
        # what pymilvus' iterator sends: the first rows in the order of the key
        options: dict[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True", "limit": size, **self._limit}
        while rows := self._call(lambda client, after=after: client.query(self._name, after, wanted, **options)):  # type: ignore[misc]
            after = f"{known.key} > {json.dumps(rows[-1][known.key], ensure_ascii=False)}"
            yield [self._make_document(dict(row)) for row in rows]

    def _make_document(self, values: dict[str, Any]) -> Document:
        stored = values.pop(self._description.vector, None)
        vector = None if stored is None else np.asarray(stored, np.float32)
        if vector is not None and not vector.any():
            vector = None  # Milvus Lite stores a null vector as zeros
        id_ = value_of(values, self._address.id or self._description.key)
        return make_document(self._address, id_, vector, values, self._description.dimension)

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        euclid = self._description.metric == "euclid"  # Milvus returns its square
        hits = self._run_search(query, vector.tolist(), self._description.vector)
        return [self._make_hit(hit, -(value**0.5) if euclid else value) for hit, value in hits]

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        hits = self._run_search(query, query.text or "", str(self._description.bm25))
        return [self._make_hit(hit, abs(value)) for hit, value in hits]  # Milvus Lite flips their sign

    def _run_search(self, query: IndexQuery, data: Any, field: str) -> list[tuple[Any, float]]:
        known = self._description.fields
        named = (self._address.id, self._address.text, self._address.image)
        options: dict[str, Any] = {
            "data": [data],
            "anns_field": field,
            "limit": query.k,
            "filter": query.where or "",
            "output_fields": list(dict.fromkeys(column_of(name, known) for name in named if name is not None)),
            **self._limit,
        }
        (hits,) = self._call(lambda client: client.search(self._name, **options))
        return [(hit, float(hit["distance"])) for hit in hits]

    def _make_hit(self, hit: Any, score: float) -> IndexHit:
        own, key = self._address.id, self._description.key
        id_ = hit.get(key, hit.get("id")) if own in (None, key) else value_of(hit["entity"], own)
        return make_hit(self._address, id_, score, hit["entity"])


def _bm25_field(schema: Mapping[str, Any], text: str | None) -> str | None:
    """The field that a function of type BM25 fills from the captions."""
    for function in schema.get("functions", ()):
        if int(function["type"]) == 1 and text in function["input_field_names"]:  # FunctionType.BM25
            return str(function["output_field_names"][0])
    return None


def _code(error: Exception) -> Any:
    """The code of an error, or of the gRPC error that caused it."""
    inner = error if isinstance(error, grpc.RpcError) else error.__cause__
    if isinstance(inner, grpc.RpcError) and hasattr(inner, "code"):
        return inner.code()
    return getattr(error, "code", None)
