"""A collection of a Qdrant server: ``http://host:6333?collection=shop&vector=photo``."""

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
from .base import EACH, Description, Document, IndexHit, KnownVectors, OpenIndex, Question, Similarity
from .documents import check_fields, column_of, make_document, make_hit, pick_vector, value_of

_METRICS: Mapping[str, Similarity] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclid"}
_SAMPLE = 100
T = TypeVar("T")


class QdrantIndex(OpenIndex[QdrantClient, KnownVectors]):
    """A collection. A vector without a name is called ''."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.only("collection")
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

    def _call(self, action: Callable[[QdrantClient], T]) -> T:
        """An action, whose errors are those of a memory's server, as this index's own."""

        def run(client: QdrantClient) -> T:
            try:
                return self._server.run("read", lambda _: action(client))
            except MemoryTimeout:
                raise self._late() from None
            except RecoError as error:
                said = str(error).replace("the memory at", "the index at").replace("memory_options.", "")
                kind = EngineUnavailable if isinstance(error, MemoryUnavailable) else EngineError
                raise kind(said.replace("RECO_MEMORY_API_KEY", "RECO_INDEX_API_KEY")) from None

        return self._ask(run)

    def _translate(self, error: Exception) -> RecoError | None:
        return None  # `_call` has done it

    def _look(self) -> KnownVectors:
        address = self._address
        if not self._call(lambda client: client.collection_exists(self._name)):
            names = [each.name for each in self._call(lambda client: client.get_collections()).collections]
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        config = self._call(lambda client: client.get_collection(self._name)).config
        given = config.params.vectors
        vectors = given if isinstance(given, dict) else {"": given} if given else {}
        others = {name: kind for name, params in vectors.items() if (kind := _odd(params))}
        others |= dict.fromkeys(config.params.sparse_vectors or {}, "sparse vectors")
        vector = pick_vector(address, [name for name in vectors if name not in others], others, self._name)
        if keys := self._keys():
            check_fields(address, keys, self._name)
        metric = str(vectors[vector].distance.value)
        if metric not in _METRICS:
            raise EngineError(
                f"{address.place}: the vectors {vector!r} are compared by {metric}, not by {', '.join(_METRICS)}"
            )
        aliases = self._call(lambda client: client.get_aliases()).aliases
        said = Description(
            engine=self._version(),
            name=next((each.collection_name for each in aliases if each.alias_name == self._name), self._name),
            documents=0,
            vector=vector,
            dimension=vectors[vector].size,
            metric=_METRICS[metric],
            index=_searched(config, vectors[vector]),
            fields=(*vectors, *keys),
            searches_text=self._has_scored_text(),
        )
        return KnownVectors(said)

    def _version(self) -> str:
        try:
            return f"Qdrant {self._call(lambda client: client.info()).version}"
        except EngineError:  # a proxy hides it
            return "Qdrant"

    def _keys(self) -> tuple[str, ...]:
        """Keys of the payload, as the first points have them."""
        points, _ = self._call(lambda client: client.scroll(self._name, limit=_SAMPLE, with_payload=True))
        return tuple(dict.fromkeys(name for point in points for name in to_payload(point)[1]))

    def _has_scored_text(self) -> bool:
        """Whether captions can be ranked by their words: it is tried."""
        if self._address.text is None or not hasattr(models, "TextQuery"):
            return False
        try:
            self._query({"query": {"text": "a"}, "using": self._address.text, "limit": 1})
        except EngineUnavailable:
            raise
        except EngineError:  # no such index, or an older server
            return False
        return True

    def _count(self) -> int:
        return int(self._call(lambda client: client.count(self._name, exact=True)).count)

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """In the order of the points' ids."""
        name, start = self._known.said.vector, None
        asked: dict[str, Any] = {
            "limit": size,
            "with_payload": True,
            "with_vectors": [name] if vectors and name else vectors,
        }
        while True:
            points, start = self._call(lambda client, at=start: client.scroll(self._name, offset=at, **asked))  # type: ignore[misc]
            if points:
                yield [self._document(point) for point in points]
            if start is None:
                return

    def _document(self, point: Any) -> Document:
        id_, payload = to_payload(point)
        said = self._known.said
        stored = point.vector.get(said.vector) if isinstance(point.vector, dict) else point.vector
        vector = None if stored is None or not len(stored) else np.asarray(stored, np.float32)
        own = id_ if self._address.id is None else value_of(payload, self._address.id)
        return make_document(self._address, own, vector, dict(payload), said.dimension)

    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        said = self._known.said
        sign = -1 if said.metric == "euclid" else 1
        return self._found(question, {"query": vector.tolist(), "using": said.vector or None}, sign)

    def _by_words(self, question: Question) -> list[IndexHit]:
        return self._found(question, {"query": {"text": question.text or ""}, "using": self._address.text})

    def _found(self, question: Question, query: Mapping[str, Any], sign: int = 1) -> list[IndexHit]:
        address, fields = self._address, self._known.said.fields
        asked = {**query, "limit": question.k, "filter": self._filter(question.where)}
        named = (address.id, address.text, address.image)
        paths = [f'"{column_of(name, fields)}"' for name in named if name is not None]  # quoted: it may hold anything
        asked["with_payload"] = True if address.id is None else paths  # whole, since our own id is in it
        hits = []
        for point in self._query({name: value for name, value in asked.items() if value is not None}):
            id_, payload = to_payload(point)
            own = id_ if address.id is None else value_of(payload, address.id)
            hits.append(make_hit(address, own, sign * float(point.score), payload))
        return hits

    def _query(self, asked: Mapping[str, Any]) -> list[Any]:
        try:
            request = models.QueryRequest.model_validate(asked)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{self._address.place}: no query of Qdrant's: {where}: {first['msg']}") from None
        return list(self._call(lambda client: client.query_batch_points(self._name, [request]))[0].points)

    def _filter(self, where: str | None) -> Any:
        """A filter is the JSON of Qdrant's."""
        try:
            return None if where is None else json.loads(where)
        except ValueError as error:
            raise ConfigError(f"{self._address.place}: the filter is no JSON: {error}") from None


def _odd(params: models.VectorParams) -> str:
    """Why vectors cannot be compared with ours; empty where they can."""
    if params.multivector_config:
        return "several vectors a point"
    return "vectors of uint8" if params.datatype is not None and params.datatype.value == "uint8" else ""


def _searched(config: Any, params: Any) -> str:
    """The index and its compression; what a vector has of its own stands before what the collection has."""
    m, ef = (
        next((value for each in (params.hnsw_config, config.hnsw_config) if (value := getattr(each, name, None))), None)
        for name in ("m", "ef_construct")
    )
    compressed = params.quantization_config or config.quantization_config
    kinds = compressed.model_dump(exclude_none=True) if compressed is not None else {}
    return " ".join([f"hnsw m={m} ef_construct={ef}", *kinds]) if m else EACH
