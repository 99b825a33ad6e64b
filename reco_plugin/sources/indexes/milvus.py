"""A collection of Milvus, of a server or of a file of Milvus Lite: ``milvus://host:19530/products?vector=clip&id=sku``."""

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
from .base import EACH, Description, Document, IndexHit, KnownVectors, OpenIndex, Question, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"COSINE": "cosine", "IP": "dot", "L2": "euclid"}
_EACH = ("", "FLAT", "BRUTE_FORCE")
"""Kinds of index that compare each vector."""
_SAMPLE = 100
_REFUSING = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_NO_ACCESS = ("auth check failure", "privilege", "permission den", "unauthenticated")
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, 2, 8, 103, 106)
"""The numbers are Milvus' own: no connection, too many requests, a collection that is not yet loaded (again)."""
for _name in ("pymilvus.decorators", "pymilvus.client.connection_manager", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # a trace for each error, which is raised as ours anyway


@dataclass(frozen=True)
class _MilvusCollection(KnownVectors):
    """What Milvus says about a collection."""

    fields: Mapping[str, DataType]  # of the schema; some documents may have further ones
    key: str  # field of the primary key
    words: str | None  # field of BM25's vectors of the captions; None: captions are not searched


class MilvusIndex(OpenIndex[MilvusClient, _MilvusCollection]):
    """A collection."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.only("collection", "db")
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
                raise EngineError(f"there is no file {file} that ends in .db, as Milvus Lite asks")
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
        said = " ".join(str(error.message if isinstance(error, MilvusException) else error).split())[:300].rstrip(". ")
        if code in _REFUSING or any(words in said.lower() for words in _NO_ACCESS):
            return EngineError(
                f"{place} refuses: {said}. The token is RECO_INDEX_API_KEY, or set RECO_INDEX_USER and "
                "RECO_INDEX_PASSWORD; privileges to describe, query and search the collection suffice"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._late()
        if code in _PASSING or getattr(error, "retriable", False) or "not ready" in said:
            return EngineUnavailable(f"{place} cannot be reached: {said}")
        if "not loaded" in said:
            said += "; load it first"
        return EngineError(f"{place}: {said}")

    def _look(self) -> _MilvusCollection:
        address = self._address
        if not self._ask(lambda client: client.has_collection(self._name, **self._limit)):
            names = self._ask(lambda client: client.list_collections(**self._limit))
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        said = self._ask(lambda client: client.describe_collection(self._name, **self._limit))
        fields = {field["name"]: DataType(field["type"]) for field in said["fields"]}
        further = self._dynamic(fields) if said.get("enable_dynamic_field") else []
        check_fields(address, (*fields, *further), self._name)
        dense = [name for name, type_ in fields.items() if type_ is DataType.FLOAT_VECTOR]
        others = {name: type_.name.lower().replace("_", " ") for name, type_ in fields.items() if name not in dense}
        vector = pick_vector(address, dense, others, self._name)
        index, metric = self._index(vector)
        version = str(self._ask(lambda client: client.get_server_version()))
        lite = version.startswith("milvus_lite-")
        words = _words(said, address.text)
        described = Description(
            engine=f"Milvus Lite {version.partition('-')[2]}" if lite else f"Milvus {version.removeprefix('v')}",
            name=said["collection_name"],
            documents=0,
            vector=vector,
            dimension=next(int(field["params"]["dim"]) for field in said["fields"] if field["name"] == vector),
            metric=metric,
            index=EACH if index in _EACH else index,
            fields=(*fields, *further),
            searches_text=words is not None,
        )
        key = next(field["name"] for field in said["fields"] if field.get("is_primary"))
        return _MilvusCollection(described, fields, key, words)

    def _dynamic(self, fields: Mapping[str, DataType]) -> list[str]:
        """Fields outside of the schema that the first documents have."""
        rows = self._ask(lambda client: client.query(self._name, "", ["$meta"], limit=_SAMPLE, **self._limit))
        return list(dict.fromkeys(name for row in rows for name in row if name not in fields and name != "$meta"))

    def _index(self, vector: str) -> tuple[str, Similarity]:
        """The kind of index, as in HNSW, and its metric."""
        found: Mapping[str, Any] = {}
        if names := self._ask(lambda client: client.list_indexes(self._name, field_name=vector)):
            found = self._ask(lambda client: client.describe_index(self._name, names[0], **self._limit)) or {}
        metric = str(found.get("metric_type", "COSINE"))
        if metric not in _METRICS:
            raise EngineError(
                f"{self._address.place}: the index of {vector!r} compares by {metric}, not by {', '.join(_METRICS)}"
            )
        return str(found.get("index_type", "")), _METRICS[metric]

    def _count(self) -> int:
        counted = self._ask(lambda client: client.query(self._name, "", ["count(*)"], **self._limit))
        return int(counted[0]["count(*)"])

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """In the order of the primary key."""
        found, after = self._known, ""
        wanted = [name for name, type_ in found.fields.items() if "VECTOR" not in type_.name]
        wanted += [found.said.vector] * vectors + ["$meta"] * (len(found.said.fields) > len(found.fields))
        # as an iterator of Milvus' own asks: the first of these in the order of the key
        how: dict[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True", "limit": size, **self._limit}
        while rows := self._ask(lambda client, after=after: client.query(self._name, after, wanted, **how)):  # type: ignore[misc]
            after = f"{found.key} > {json.dumps(rows[-1][found.key], ensure_ascii=False)}"
            yield [self._document(dict(row)) for row in rows]

    def _document(self, values: dict[str, Any]) -> Document:
        sent = values.pop(self._known.said.vector, None)
        vector = None if sent is None else np.asarray(sent, np.float32)
        if vector is not None and not vector.any():
            vector = None  # so does Milvus Lite store one that is null
        id_ = value_of(values, self._address.id or self._known.key)
        return make_document(self._address, id_, vector, values, self._known.said.dimension)

    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        euclid = self._known.said.metric == "euclid"  # of which Milvus gives the square
        found = self._found(question, vector.tolist(), self._known.said.vector)
        return [self._hit(hit, -(value**0.5) if euclid else value) for hit, value in found]

    def _by_words(self, question: Question) -> list[IndexHit]:
        found = self._found(question, question.text or "", str(self._known.words))
        return [self._hit(hit, abs(value)) for hit, value in found]  # Milvus Lite turns their sign

    def _found(self, question: Question, data: Any, field: str) -> list[tuple[Any, float]]:
        known = (*self._known.said.fields,)
        named = (self._address.id, self._address.text, self._address.image)
        asked: dict[str, Any] = {
            "data": [data],
            "anns_field": field,
            "limit": question.k,
            "filter": question.where or "",
            "output_fields": list(dict.fromkeys(column_of(name, known) for name in named if name is not None)),
            **self._limit,
        }
        (hits,) = self._ask(lambda client: client.search(self._name, **asked))
        return [(hit, float(hit["distance"])) for hit in hits]

    def _hit(self, hit: Any, score: float) -> IndexHit:
        own, key = self._address.id, self._known.key
        id_ = hit.get(key, hit.get("id")) if own in (None, key) else value_of(hit["entity"], own)
        return make_hit(self._address, id_, score, hit["entity"])


def _words(said: Mapping[str, Any], text: str | None) -> str | None:
    """The field that a function of type BM25 fills from the captions."""
    for function in said.get("functions", ()):
        if int(function["type"]) == 1 and text in function["input_field_names"]:  # FunctionType.BM25
            return str(function["output_field_names"][0])
    return None


def _code(error: Exception) -> Any:
    """The code of an error, or of the call that failed within."""
    inner = error if isinstance(error, grpc.RpcError) else error.__cause__
    if isinstance(inner, grpc.RpcError) and hasattr(inner, "code"):
        return inner.code()
    return getattr(error, "code", None)
