"""A collection of Milvus, of a server or of a file of Milvus Lite: ``milvus://host:19530/products?vector=clip&id=sku``."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from ..config import Settings
from ..data.cells import Vector
from ..errors import ConfigError, EngineError, EngineTimeout, EngineUnavailable
from ..values import check_choice, did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, query_of, value_of

_METRICS: Mapping[str, Similarity] = {"COSINE": "cosine", "IP": "dot", "L2": "euclid"}
_DENSE = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR, DataType.BFLOAT16_VECTOR)
_OTHERS = {
    DataType.BINARY_VECTOR: "binary vectors",
    DataType.SPARSE_FLOAT_VECTOR: "sparse vectors",
    DataType.INT8_VECTOR: "vectors of int8",
}
_EACH = ("", "FLAT", "BRUTE_FORCE")
"""Kinds of index that compare each vector."""
_LEVELS = ("strong", "bounded", "session", "eventually")
_SAMPLE = 100
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_REFUSING = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_LATER = (2, 8, 103, 106)
"""Codes of Milvus: no connection, too many requests, a collection that is not yet loaded (again)."""
_NO_ACCESS = ("auth check failure", "privilege", "permission deny", "permission denied", "unauthenticated")
_lite_lock = threading.Lock()
_lite_opened: dict[str, int] = {}
"""Files of Milvus Lite that were opened here -> how often; the last one to close lets go of the file's lock."""
for _name in ("pymilvus.decorators", "pymilvus.client.connection_manager", "milvus_lite"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # a trace for each error, which is raised as ours anyway
T = TypeVar("T")


@dataclass(frozen=True)
class _MilvusCollection:
    """What Milvus says about a collection."""

    said: Description  # but for the engine's version and how many documents there are
    fields: Mapping[str, DataType]  # of the schema; some documents may have further ones
    mappings: tuple[str, ...]  # fields of JSON
    key: str  # field of the primary key
    words: str | None  # field of BM25's vectors of the captions; None: captions are not searched
    zeros: bool  # whether a document without a vector has one of zeros


class MilvusIndex(LooksOnce[_MilvusCollection]):
    """A collection; see :class:`~reco_plugin.engines.base.Engine`."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only("collection", "db", "consistency")
        self._lite = not address.host
        self._name = address.options.get("collection", "" if self._lite else address.path)
        if not self._name or (self._lite and not address.path):
            raise ConfigError(
                f"{address.place} names no collection: milvus://HOST:19530/COLLECTION, or "
                "milvus:FILE.db?collection=NAME for a file of Milvus Lite"
            )
        if "consistency" in address.options:
            check_choice("consistency", address.options["consistency"], _LEVELS)
        self._address, self._settings = address, settings
        self._client: MilvusClient | None = None

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        found = self._known()
        version = str(self._call(lambda client: client.get_server_version()))
        counted = self._call(lambda client: client.query(self._name, "", ["count(*)"], **self._options()))
        lite = version.startswith("milvus_lite-")
        engine = f"Milvus Lite {version.partition('-')[2]}" if lite else f"Milvus {version.removeprefix('v')}"
        return replace(found.said, engine=engine, documents=int(counted[0]["count(*)"]))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`; in the order of the primary key."""
        found, after = self._known(), ""
        wanted = [name for name, type_ in found.fields.items() if type_ not in (*_DENSE, *_OTHERS)]
        wanted += [found.said.vector] * vectors + ["$meta"] * (len(found.said.fields) > len(found.fields))
        while True:

            def read(client: MilvusClient, expression: str = after) -> Any:
                # as an iterator of Milvus' own asks: the first of these in the order of the key
                how = {"iterator": "True", "reduce_stop_for_best": "True", **self._options()}
                return client.query(self._name, expression, wanted, limit=size, **how)

            rows = self._call(read)
            if not rows:
                return
            after = f"{found.key} > {json.dumps(rows[-1][found.key], ensure_ascii=False)}"
            yield Page(tuple(self._document(found, row) for row in rows))

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`."""
        found = self._known()
        if question.vector is None:
            return self._by_words(found, question)
        vector = query_of(self._address, question.vector, found.said.dimension)
        data: Any = vector.tolist()
        if found.fields[found.said.vector] is DataType.FLOAT16_VECTOR:
            data = vector.astype(np.float16)
        elif found.fields[found.said.vector] is DataType.BFLOAT16_VECTOR:
            data = _to_bfloat16(vector)
        hits = self._nearest(found, question, data)
        # Milvus answers with the square of Euclid's distance
        euclid = found.said.metric == "euclid"
        return [
            self._hit(found, hit, -(float(hit["distance"]) ** 0.5) if euclid else float(hit["distance"]))
            for hit in hits
        ]

    def _nearest(self, found: _MilvusCollection, question: Question, data: Any) -> Sequence[Any]:
        """Hits of a search by the vector; those without one are left out, which Milvus Lite stores as zeros."""
        vector = found.said.vector
        if not found.zeros:
            return self._found(question, data, vector)
        wanted = question.k
        while True:
            hits = self._found(replace(question, k=wanted), data, vector, [vector])
            kept = [hit for hit in hits if any(hit["entity"][vector])]
            if len(kept) >= question.k or len(hits) < wanted:
                return kept[: question.k]
            wanted *= 2

    def _by_words(self, found: _MilvusCollection, question: Question) -> list[IndexHit]:
        if found.words is None:
            raise ConfigError(
                f"{self._address.place} cannot be searched by words: the collection has no function of type BM25 over "
                f"{self._address.text or 'a field that text=NAME names'}"
            )
        hits = self._found(question, question.text or "", found.words)
        return [self._hit(found, hit, abs(float(hit["distance"]))) for hit in hits]  # Milvus Lite turns their sign

    def _found(self, question: Question, data: Any, field: str, more: Sequence[str] = ()) -> Sequence[Any]:
        named = (self._address.id, self._address.text, self._address.image)
        shown = list(dict.fromkeys(column_of(name, self._known().mappings) for name in named if name is not None))
        asked = {
            "data": [data],
            "anns_field": field,
            "limit": question.k,
            "filter": question.where or "",
            "output_fields": [*shown, *more],
            **self._options(),
        }
        return cast("Sequence[Any]", self._call(lambda client: client.search(self._name, **asked))[0])

    def _hit(self, found: _MilvusCollection, hit: Any, score: float) -> IndexHit:
        entity, address = hit["entity"], self._address
        id_ = hit.get(found.key, hit.get("id")) if address.id in (None, found.key) else value_of(entity, address.id)
        return make_hit(address, id_, score, entity)

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`; lets go of a file that nothing else here has open."""
        with self._lock:
            if self._client is None:
                return
            self._client.close()
            self._client = None
            if self._lite:
                _release(self._address.path)

    def _options(self) -> dict[str, Any]:
        level = self._address.options.get("consistency")
        return {"timeout": self._address.timeout_s} | ({"consistency_level": level.capitalize()} if level else {})

    def _call(self, action: Callable[[MilvusClient], T]) -> T:
        def run() -> T:
            with self._translated():
                return action(self._connected())

        return ask(run)

    def _connected(self) -> MilvusClient:
        with self._lock:
            if self._client is None:
                self._client = self._open_file() if self._lite else self._connect()
            return self._client

    def _connect(self) -> MilvusClient:
        address, settings = self._address, self._settings
        user, password, key = address.user or settings.index_user, settings.index_password, settings.index_api_key
        token = key.get_secret_value() if key else f"{user}:{password.get_secret_value()}" if user and password else ""
        tls = {"server_pem_path": address.ca_file} if address.ca_file else {}
        if address.ca_file and not Path(address.ca_file).is_file():
            raise ConfigError(f"{address.place}: there is no file {address.ca_file!r}, which ca_file= names")
        return MilvusClient(
            address.url, token=token, db_name=address.options.get("db", ""), timeout=address.timeout_s, **tls
        )

    def _open_file(self) -> MilvusClient:
        file = Path(self._address.path)
        if not file.exists():
            raise EngineError(f"there is no {file}: name a file of Milvus Lite")
        if file.suffix != ".db":
            raise EngineError(f"{file} does not end in .db, which Milvus Lite asks for")
        _hold(self._address.path)
        try:
            client = MilvusClient(self._address.path)
            try:
                client.load_collection(self._name)  # into this process
            except MilvusException:
                if self._name not in (names := client.list_collections()):
                    near = did_you_mean(self._name, names)
                    raise EngineError(f"{self._address.place} has no collection {self._name!r}: {near}") from None
                raise
        except BaseException as error:
            _release(self._address.path)
            if isinstance(error, MilvusException) and error.message == "Open local milvus failed":
                raise EngineError(
                    f"{file} cannot be opened: another process may have it open, or it is damaged"
                ) from None
            raise
        return client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn pymilvus' errors into ours."""
        place = self._address.place
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            code, said = _code(error), _said(error)
            if code in _REFUSING or any(words in said.lower() for words in _NO_ACCESS):
                raise EngineError(
                    f"{place} refuses: {said}. The token is RECO_INDEX_API_KEY, or set RECO_INDEX_USER and "
                    "RECO_INDEX_PASSWORD; privileges to describe, query and search the collection suffice"
                ) from None
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise EngineTimeout(f"{place} did not answer within {self._address.timeout_s:g} s") from None
            if code in (*_PASSING, *_LATER) or getattr(error, "retriable", False) or "not ready" in said:
                raise EngineUnavailable(f"{place} cannot be reached: {said}") from None
            if "not loaded" in said:
                said += "; load it first"
            raise EngineError(f"{place}: {said}") from None

    def _look(self) -> _MilvusCollection:
        address, limit = self._address, {"timeout": self._address.timeout_s}
        names = self._call(lambda client: client.list_collections(**limit)) if not self._lite else []
        if not self._lite and not self._call(lambda client: client.has_collection(self._name, **limit)):
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        said = self._call(lambda client: client.describe_collection(self._name, **limit))
        fields = {field["name"]: DataType(field["type"]) for field in said["fields"]}
        dimensions = {field["name"]: field["params"].get("dim") for field in said["fields"]}
        key = next(field["name"] for field in said["fields"] if field.get("is_primary"))
        dynamic = self._dynamic(fields) if said.get("enable_dynamic_field") else {}
        mappings = tuple(name for name, type_ in fields.items() if type_ is DataType.JSON)
        mappings += tuple(name for name, value in dynamic.items() if isinstance(value, Mapping))
        check_fields(address, (*fields, *dynamic), self._name, mappings=mappings)
        dense = [name for name, type_ in fields.items() if type_ in _DENSE]
        others = {name: _OTHERS.get(type_, type_.name) for name, type_ in fields.items() if type_ not in _DENSE}
        vector = pick_vector(address, dense, others, self._name)
        kind, metric = self._index(vector)
        words = _words(said, address.text)
        described = Description(
            engine="",
            name=said["collection_name"],
            documents=0,
            vector=vector,
            dimension=int(dimensions[vector]),
            metric=metric,
            index="none: each vector is compared" if kind in _EACH else kind,
            fields=(*fields, *dynamic),
            searches_text=words is not None,
        )
        nullable = any(field["name"] == vector and field.get("nullable") for field in said["fields"])
        zeros = self._lite and nullable
        return _MilvusCollection(described, fields, mappings, key, words, zeros)

    def _dynamic(self, fields: Mapping[str, DataType]) -> dict[str, Any]:
        """Fields outside of the schema that the first documents have, each with a value, of JSON where it has one."""
        options = self._options()
        rows = self._call(lambda client: client.query(self._name, "", ["$meta"], limit=_SAMPLE, **options))
        found = dict[str, Any]()
        for row in rows:
            for name, value in row.items():
                if name not in fields and name != "$meta" and not isinstance(found.get(name), Mapping):
                    found[name] = value
        return found

    def _index(self, vector: str) -> tuple[str, Similarity]:
        """The kind of index, as in HNSW, and its metric."""
        limit = {"timeout": self._address.timeout_s}
        names = self._call(lambda client: client.list_indexes(self._name, field_name=vector))
        found: Mapping[str, Any] = {}
        if names:
            found = self._call(lambda client: client.describe_index(self._name, names[0], **limit)) or {}
        kind, metric = str(found.get("index_type", "")), str(found.get("metric_type", "COSINE"))
        if metric not in _METRICS:
            raise EngineError(
                f"{self._address.place}: the index of {vector!r} compares by {metric}, not by {', '.join(_METRICS)}"
            )
        return kind, _METRICS[metric]

    def _document(self, found: _MilvusCollection, row: Mapping[str, Any]) -> Document:
        values, address = dict(row), self._address
        sent = values.pop(found.said.vector, None)
        vector = None if sent is None else _vector(sent, found.fields[found.said.vector])
        if vector is not None and not vector.any():
            vector = None  # so does Milvus Lite store one that is null
        return make_document(address, value_of(values, address.id or found.key), vector, values)


def _words(said: Mapping[str, Any], text: str | None) -> str | None:
    """The field that a function of type BM25 fills from the captions."""
    for function in said.get("functions", ()):
        if int(function["type"]) == 1 and text in function["input_field_names"]:  # FunctionType.BM25
            return str(function["output_field_names"][0])
    return None


def _vector(sent: Any, type_: DataType) -> Vector:
    """A vector (D,) of what pymilvus gives: numbers, or their bytes, also as the only item of a list."""
    if isinstance(sent, list) and len(sent) == 1 and isinstance(sent[0], bytes):
        sent = sent[0]
    if isinstance(sent, bytes):
        if type_ is DataType.BFLOAT16_VECTOR:  # the upper half of a float32
            return (np.frombuffer(sent, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(sent, "<f2").astype(np.float32)
    return np.asarray(sent, np.float32)


def _to_bfloat16(vector: Vector) -> bytes:
    """Rounded to the upper halves of its numbers."""
    bits = vector.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _code(error: Exception) -> Any:
    """The code of an error, or of the call that failed within."""
    inner = error if isinstance(error, grpc.RpcError) else error.__cause__
    if isinstance(inner, grpc.RpcError) and hasattr(inner, "code"):
        return inner.code()
    return getattr(error, "code", None)


def _said(error: Exception) -> str:
    said = error.message if isinstance(error, MilvusException) else getattr(error, "details", lambda: str(error))()
    return " ".join(str(said).split())[:300].rstrip(". ")


def _hold(file: str) -> None:
    from milvus_lite.server_manager import server_manager_instance as servers

    path = str(Path(file).absolute())
    with _lite_lock:
        opened_by_others = path not in _lite_opened and path in getattr(servers, "_servers", {})
        _lite_opened[path] = _lite_opened.get(path, 0) + 1 + opened_by_others


def _release(file: str) -> None:
    from milvus_lite.server_manager import server_manager_instance as servers

    path = str(Path(file).absolute())
    with _lite_lock:
        _lite_opened[path] -= 1
        if not _lite_opened[path]:
            del _lite_opened[path]
            servers.release_server(path)
