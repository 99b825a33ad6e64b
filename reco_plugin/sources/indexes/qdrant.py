"""Qdrant: a collection of a server, ``http://host:6333?collection=shop&vector=photo``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from ...errors import ConfigError, EngineError, EngineUnavailable, MemoryTimeout, MemoryUnavailable, RecoError
from ...memory.connection import Server
from ...memory.points import to_payload
from ...settings import MemoryOptions, Settings
from ...values import did_you_mean
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_metric, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclid"}
_SAMPLE = 100
T = TypeVar("T")


class QdrantIndex(OpenIndex[QdrantClient, Description]):
    """A collection of Qdrant; the name of an unnamed vector is ''."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options("collection")
        if "collection" not in address.options:
            raise ConfigError(
                f"{address.place} names no collection: http://HOST:6333?collection=NAME, also https, grpc or grpcs"
            )
        self._name = address.options["collection"]
        options = MemoryOptions(timeout_s=max(1, round(address.timeout_s)), ca_file=address.ca_file)
        key = settings.index_api_key or settings.memory_api_key
        self._server = Server.parse(address.place, key.get_secret_value() if key else None, options)

    def _connect(self) -> QdrantClient:
        return self._server.connect()

    def _call_server(self, action: Callable[[QdrantClient], T]) -> T:
        """Run an action; turn the errors of a memory's server into those of an index."""

        def run(client: QdrantClient) -> T:
            try:
                return self._server.run("read", lambda _: action(client))
            except MemoryTimeout:
                raise self._timeout_error() from None
            except RecoError as error:
                message = str(error).replace("the memory at", "the index at").replace("memory_options.", "")
                kind = EngineUnavailable if isinstance(error, MemoryUnavailable) else EngineError
                raise kind(message.replace("RECO_MEMORY_API_KEY", "RECO_INDEX_API_KEY")) from None

        return self._call(run)

    def _translate(self, error: Exception) -> RecoError | None:
        return None  # `_call_server` translates them

    def _inspect(self) -> Description:
        address = self._address
        if not self._call_server(lambda client: client.collection_exists(self._name)):
            names = [each.name for each in self._call_server(lambda client: client.get_collections()).collections]
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        config = self._call_server(lambda client: client.get_collection(self._name)).config
        given = config.params.vectors
        vectors = given if isinstance(given, dict) else {"": given} if given else {}
        others = {name: kind for name, params in vectors.items() if (kind := _why_unusable(params))}
        others |= dict.fromkeys(config.params.sparse_vectors or {}, "sparse vectors")
        vector = pick_vector(address, [name for name in vectors if name not in others], others, self._name)
        if keys := self._keys():
            check_fields(address, keys, self._name)
        aliases = self._call_server(lambda client: client.get_aliases()).aliases
        return Description(
            engine=self._version(),
            name=next((each.collection_name for each in aliases if each.alias_name == self._name), self._name),
            documents=0,
            vector=vector,
            dimension=vectors[vector].size,
            metric=pick_metric(address, str(vectors[vector].distance.value), _METRICS),
            index=_describe_index(config, vectors[vector]),
            fields=(*vectors, *keys),
            searches_text=self._ranks_text(),
        )

    def _version(self) -> str:
        try:
            return f"Qdrant {self._call_server(lambda client: client.info()).version}"
        except EngineError:  # hidden by a proxy
            return "Qdrant"

    def _keys(self) -> tuple[str, ...]:
        """Keys in the payloads of the first points."""
        points, _ = self._call_server(lambda client: client.scroll(self._name, limit=_SAMPLE, with_payload=True))
        return tuple(dict.fromkeys(name for point in points for name in to_payload(point)[1]))

    def _ranks_text(self) -> bool:
        """Whether the server ranks captions by their words; a query finds out."""
        if self._address.text is None or not hasattr(models, "TextQuery"):
            return False
        try:
            self._run_query({"query": {"text": "a"}, "using": self._address.text, "limit": 1})
        except EngineUnavailable:
            raise
        except EngineError:  # no such index, or an older server
            return False
        return True

    def _count(self) -> int:
        return int(self._call_server(lambda client: client.count(self._name, exact=True)).count)

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; the order is that of the points' ids."""
        name, start = self._description.vector, None
        options: dict[str, Any] = {
            "limit": size,
            "with_payload": True,
            "with_vectors": [name] if vectors and name else vectors,
        }
        while True:
            points, start = self._call_server(lambda client, at=start: client.scroll(self._name, offset=at, **options))  # type: ignore[misc]
            if points:
                yield [self._make_document(point) for point in points]
            if start is None:
                return

    def _make_document(self, point: Any) -> Document:
        id_, payload = to_payload(point)
        known = self._description
        stored = point.vector.get(known.vector) if isinstance(point.vector, dict) else point.vector
        vector = None if stored is None or not len(stored) else np.asarray(stored, np.float32)
        own = id_ if self._address.id is None else value_of(payload, self._address.id)
        return make_document(self._address, own, vector, dict(payload), known.dimension)

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        known = self._description
        sign = -1 if known.metric == "euclid" else 1
        return self._run_search(query, {"query": vector.tolist(), "using": known.vector or None}, sign)

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        return self._run_search(query, {"query": {"text": query.text or ""}, "using": self._address.text})

    def _run_search(self, query: IndexQuery, request: Mapping[str, Any], sign: int = 1) -> list[IndexHit]:
        address, fields = self._address, self._description.fields
        request = {**request, "limit": query.k, "filter": self._filter(query.where)}
        named = (address.id, address.text, address.image)
        paths = [f'"{column_of(name, fields)}"' for name in named if name is not None]  # of any characters
        request["with_payload"] = True if address.id is None else paths  # our own id is in the payload
        hits = []
        for point in self._run_query({name: value for name, value in request.items() if value is not None}):
            id_, payload = to_payload(point)
            own = id_ if address.id is None else value_of(payload, address.id)
            hits.append(make_hit(address, own, sign * float(point.score), payload))
        return hits

    def _run_query(self, request: Mapping[str, Any]) -> list[Any]:
        try:
            parsed = models.QueryRequest.model_validate(request)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{self._address.place}: not a query of Qdrant: {where}: {first['msg']}") from None
        return list(self._call_server(lambda client: client.query_batch_points(self._name, [parsed]))[0].points)

    def _filter(self, where: str | None) -> Any:
        """Parse a filter, which is Qdrant's JSON."""
        try:
            return None if where is None else json.loads(where)
        except ValueError as error:
            raise ConfigError(f"{self._address.place}: the filter is not JSON: {error}") from None


def _why_unusable(params: models.VectorParams) -> str:
    """Why vectors cannot be compared with ours; empty if they can."""
    if params.multivector_config:
        return "several vectors a point"
    return "vectors of uint8" if params.datatype is not None and params.datatype.value == "uint8" else ""


def _describe_index(config: Any, params: Any) -> str:
    """The index and its compression; options of the vector override those of the collection."""
    m, ef = (
        next((value for each in (params.hnsw_config, config.hnsw_config) if (value := getattr(each, name, None))), None)
        for name in ("m", "ef_construct")
    )
    compressed = params.quantization_config or config.quantization_config
    kinds = compressed.model_dump(exclude_none=True) if compressed is not None else {}
    return " ".join([f"hnsw m={m} ef_construct={ef}", *kinds]) if m else EXACT
