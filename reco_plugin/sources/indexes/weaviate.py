"""Weaviate: a collection, ``weaviate://host:8080/Product?vector=default&text=title&image=image&id=sku``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import weaviate
from weaviate import WeaviateClient, exceptions
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.query import MetadataQuery

from ...errors import ConfigError, EngineError, EngineUnavailable, RecoError
from ...settings import Settings
from ...values import did_you_mean
from ..cells import Vector
from .address import IndexAddress
from .base import EXACT, Description, Document, IndexHit, IndexQuery, OpenIndex, Similarity
from .documents import check_fields, from_base64, make_document, make_hit, pick_metric, pick_vector

_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2-squared": "euclid"}
_BUSY = (429, 502, 503, 504)
_SAMPLE = 100


@dataclass(frozen=True, kw_only=True)
class _WeaviateCollection(Description):
    """A collection and its properties; the name of an unnamed vector is "default"."""

    types: Mapping[str, str]  # property -> its data type
    is_named: bool  # whether the vector has a name


class WeaviateIndex(OpenIndex[WeaviateClient, _WeaviateCollection]):
    """A collection of Weaviate."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.check_options("grpc_host", "grpc_port", "tenant")
        if not address.path or "/" in address.path:
            raise ConfigError(f"{address.place} names no collection: weaviate://HOST:{address.port}/COLLECTION")
        port = address.options.get("grpc_port", "50051")
        if address.ca_file or not port.isdigit():
            raise ConfigError(f"{address.place}: grpc_port={port} must be a number, and SSL_CERT_FILE is its ca_file")
        self._grpc_port = int(port)

    def _connect(self) -> WeaviateClient:
        address, seconds = self._address, self._address.timeout_s
        auth: Any = None
        if self._user:
            auth = Auth.client_password(self._user, self._password)
        elif self._key:
            auth = Auth.api_key(self._key)
        return weaviate.connect_to_custom(
            address.host,
            address.port,
            address.tls,
            address.options.get("grpc_host", address.host),
            self._grpc_port,
            address.tls,
            auth_credentials=auth,
            additional_config=AdditionalConfig(timeout=Timeout(init=seconds, query=seconds, insert=seconds)),
            skip_init_checks=True,
        )

    def _translate(self, error: Exception) -> RecoError | None:
        if not isinstance(error, exceptions.WeaviateBaseError):
            return None
        place = self._address.place
        message = (str(getattr(error, "message", "") or error).strip().split("\n") or [""])[0][:300]
        status = getattr(error, "status_code", None)
        unstarted = isinstance(error, exceptions.WeaviateStartUpError | exceptions.WeaviateConnectionError)
        if (
            isinstance(error, exceptions.InsufficientPermissionsError | exceptions.AuthenticationFailedError)
            or status in (401, 403)
            or (unstarted and any(word in str(error) for word in ("401", "403", "nauthorized")))
        ):
            return EngineError(f"{place} refuses: {message}. Set RECO_INDEX_API_KEY to the key of a user who may read")
        if isinstance(error, exceptions.WeaviateTimeoutError) or "DEADLINE_EXCEEDED" in message:
            return self._timeout_error()
        if "UNAVAILABLE" in message or "failed to connect" in message:
            return EngineUnavailable(f"{place} cannot be reached by gRPC, grpc_port={self._grpc_port}: {message}")
        if unstarted or isinstance(error, exceptions.WeaviateClosedClientError) or status in _BUSY:
            return EngineUnavailable(f"{place} cannot be reached: {message}. Does it speak TLS? tls=1")
        return EngineError(f"{place}: {message}")

    def _inspect(self) -> _WeaviateCollection:
        """Read the configuration, and the dimension of a stored vector."""
        place, wanted = self._address.place, self._address.path
        names = self._call(lambda client: list(client.collections.list_all(simple=True)))
        name = wanted[:1].upper() + wanted[1:]
        if name not in names:
            raise EngineError(f"{place} has no collection {name!r}: {did_you_mean(name, names)}")
        config = self._call(lambda client: client.collections.get(name).config.get())
        if config.multi_tenancy_config.enabled and "tenant" not in self._address.options:
            raise EngineError(f"{place}: {name} has tenants: add tenant=NAME")
        kinds = {one.name: str(one.data_type.value) for one in config.properties}
        check_fields(self._address, kinds, name)
        named = config.vector_config or {}
        indexes: dict[str, Any] = {key: one.vector_index_config for key, one in named.items()}
        indexes = indexes or {"default": config.vector_index_config}
        dense = [key for key, index in indexes.items() if getattr(index, "multi_vector", None) is None]
        others = {key: "several vectors an object" for key in indexes if key not in dense} | kinds
        vector = pick_vector(self._address, dense, others, name)
        return _WeaviateCollection(
            engine=f"Weaviate {self._call(lambda client: client.get_meta())['version']}",
            name=name,
            documents=0,
            vector=vector,
            dimension=self._read_dimension(name, vector, bool(named)),
            metric=pick_metric(self._address, str(indexes[vector].distance_metric.value), _METRICS),
            index=_describe_index(indexes[vector]),
            fields=tuple(kinds),
            searches_text=self._address.text is not None,
            types=kinds,
            is_named=bool(named),
        )

    def _read_dimension(self, name: str, vector: str, is_named: bool) -> int:
        options: dict[str, Any] = {"limit": _SAMPLE, "return_properties": []}
        options["include_vector"] = [vector] if is_named else True
        for one in self._call(lambda client: self._collection(client, name).query.fetch_objects(**options)).objects:
            if one.vector.get(vector):
                return len(one.vector[vector])
        raise EngineError(f"{self._address.place}: none of the first objects of {name} has a vector {vector!r}")

    def _collection(self, client: WeaviateClient, name: str | None = None) -> Any:
        collection: Any = client.collections.get(name or self._description.name)
        tenant = self._address.options.get("tenant")
        return collection.with_tenant(tenant) if tenant else collection

    def _count(self) -> int:
        return int(
            self._call(lambda client: self._collection(client).aggregate.over_all(total_count=True)).total_count or 0
        )

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """See :meth:`Engine.scan`; reads no nested objects, and of blobs only the picture."""
        known, image = self._description, self._address.image
        shown = [
            name
            for name, kind in known.types.items()
            if name == image or (kind != "blob" and not kind.startswith("object"))
        ]
        options: dict[str, Any] = {"limit": size, "return_properties": shown}
        options["include_vector"] = ([known.vector] if known.is_named else True) if vectors else False
        position = None
        while objects := self._call(
            lambda client, after=position: self._collection(client).query.fetch_objects(after=after, **options)  # type: ignore[misc]
        ).objects:
            position = str(objects[-1].uuid)
            yield [self._make_document(one) for one in objects]

    def _make_document(self, one: Any) -> Document:
        known, values = self._description, self._values(one)
        stored = one.vector.get(known.vector) if isinstance(one.vector, dict) else one.vector
        vector = None if stored is None or len(stored) == 0 else np.asarray(stored, np.float32)
        id_ = values.get(self._address.id) if self._address.id else one.uuid
        return make_document(self._address, id_, vector, values, known.dimension)

    def _values(self, one: Any) -> dict[str, Any]:
        values, image = dict(one.properties), self._address.image
        if image is not None and self._description.types[image] == "blob":
            values[image] = from_base64(values.get(image))
        return values

    def _search_vector(self, query: IndexQuery, vector: Vector) -> list[IndexHit]:
        known = self._description
        options = self._search_options(query) | {"return_metadata": MetadataQuery(distance=True)}
        options["target_vector"] = known.vector if known.is_named else None
        answer = self._call(lambda client: self._collection(client).query.near_vector(vector.tolist(), **options))
        metric = known.metric

        def score(distance: float) -> float:
            return (
                1 - distance if metric == "cosine" else -distance if metric == "dot" else -math.sqrt(max(0.0, distance))
            )

        return [self._make_hit(one, score(float(one.metadata.distance))) for one in answer.objects]

    def _search_text(self, query: IndexQuery) -> list[IndexHit]:
        options = self._search_options(query) | {"return_metadata": MetadataQuery(score=True)}
        options["query_properties"] = [str(self._address.text)]
        answer = self._call(lambda client: self._collection(client).query.bm25(query.text or "", **options))
        return [self._make_hit(one, float(one.metadata.score or 0)) for one in answer.objects]

    def _search_options(self, query: IndexQuery) -> dict[str, Any]:
        if query.where:
            raise ConfigError(f"{self._address.place}: an index of Weaviate is searched without a filter")
        named = (self._address.id, self._address.text, self._address.image)
        return {"limit": query.k, "return_properties": [name for name in named if name in self._description.types]}

    def _make_hit(self, one: Any, score: float) -> IndexHit:
        values = self._values(one)
        return make_hit(self._address, values.get(self._address.id or "") or one.uuid, score, values)


def _describe_index(index: Any) -> str:
    kind = type(index).__name__.removeprefix("_VectorIndexConfig").lower()
    quantizer = getattr(index, "quantizer", None)
    if quantizer is None:
        return EXACT if kind == "flat" else kind
    return f"{kind} {type(quantizer).__name__.strip('_').removesuffix('Config')}"
