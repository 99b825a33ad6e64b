"""A collection of Weaviate: ``weaviate://host:8080/Product?vector=default&text=title&image=image&id=sku``."""

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
from .base import EACH, Description, Document, IndexHit, KnownVectors, OpenIndex, Question, Similarity
from .documents import check_fields, from_base64, make_document, make_hit, pick_vector

_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2-squared": "euclid"}
_BUSY = (429, 502, 503, 504)
_SAMPLE = 100


@dataclass(frozen=True)
class _WeaviateCollection(KnownVectors):
    """What Weaviate says of a collection; a vector without a name is called "default"."""

    kinds: Mapping[str, str]  # property -> its data type
    named: bool  # whether the vector has a name


class WeaviateIndex(OpenIndex[WeaviateClient, _WeaviateCollection]):
    """A collection."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__(address, settings)
        address.only("grpc_host", "grpc_port", "tenant")
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
        said = (str(getattr(error, "message", "") or error).strip().split("\n") or [""])[0][:300]
        status = getattr(error, "status_code", None)
        unstarted = isinstance(error, exceptions.WeaviateStartUpError | exceptions.WeaviateConnectionError)
        if (
            isinstance(error, exceptions.InsufficientPermissionsError | exceptions.AuthenticationFailedError)
            or status in (401, 403)
            or (unstarted and any(word in str(error) for word in ("401", "403", "nauthorized")))
        ):
            return EngineError(f"{place} refuses: {said}. RECO_INDEX_API_KEY is the key of a user who may read")
        if isinstance(error, exceptions.WeaviateTimeoutError) or "DEADLINE_EXCEEDED" in said:
            return self._late()
        if "UNAVAILABLE" in said or "failed to connect" in said:
            return EngineUnavailable(f"{place} cannot be reached by gRPC, grpc_port={self._grpc_port}: {said}")
        if unstarted or isinstance(error, exceptions.WeaviateClosedClientError) or status in _BUSY:
            return EngineUnavailable(f"{place} cannot be reached: {said}. Does it speak TLS? tls=1")
        return EngineError(f"{place}: {said}")

    def _look(self) -> _WeaviateCollection:
        """The collection as its configuration has it, and the dimension of a vector in it."""
        place, wanted = self._address.place, self._address.path
        names = self._ask(lambda client: list(client.collections.list_all(simple=True)))
        name = wanted[:1].upper() + wanted[1:]
        if name not in names:
            raise EngineError(f"{place} has no collection {name!r}: {did_you_mean(name, names)}")
        config = self._ask(lambda client: client.collections.get(name).config.get())
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
        metric = str(indexes[vector].distance_metric.value)
        if metric not in _METRICS:
            raise EngineError(f"{place}: its vectors are compared by {metric}, not by {', '.join(_METRICS)}")
        said = Description(
            engine=f"Weaviate {self._ask(lambda client: client.get_meta())['version']}",
            name=name,
            documents=0,
            vector=vector,
            dimension=self._measured(name, vector, bool(named)),
            metric=_METRICS[metric],
            index=_words(indexes[vector]),
            fields=tuple(kinds),
            searches_text=self._address.text is not None,
        )
        return _WeaviateCollection(said, kinds, bool(named))

    def _measured(self, name: str, vector: str, named: bool) -> int:
        how: dict[str, Any] = {"limit": _SAMPLE, "include_vector": [vector] if named else True, "return_properties": []}
        found = self._ask(lambda client: self._in(client, name).query.fetch_objects(**how))
        for one in found.objects:
            if one.vector.get(vector):
                return len(one.vector[vector])
        raise EngineError(f"{self._address.place}: none of the first objects of {name} has a vector {vector!r}")

    def _in(self, client: WeaviateClient, name: str | None = None) -> Any:
        collection: Any = client.collections.get(name or self._known.said.name)
        tenant = self._address.options.get("tenant")
        return collection.with_tenant(tenant) if tenant else collection

    def _count(self) -> int:
        return int(self._ask(lambda client: self._in(client).aggregate.over_all(total_count=True)).total_count or 0)

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[list[Document]]:
        """By Weaviate's cursor; blobs are read only where they are the picture, nested objects never."""
        known, image = self._known, self._address.image
        shown = [
            name
            for name, kind in known.kinds.items()
            if name == image or (kind != "blob" and not kind.startswith("object"))
        ]
        how: dict[str, Any] = {"limit": size, "return_properties": shown}
        how["include_vector"] = ([known.said.vector] if known.named else True) if vectors else False
        position = None
        while found := self._ask(
            lambda client, after=position: self._in(client).query.fetch_objects(after=after, **how)  # type: ignore[misc]
        ).objects:
            position = str(found[-1].uuid)
            yield [self._document(one) for one in found]

    def _document(self, one: Any) -> Document:
        said, values = self._known.said, self._values(one)
        sent = one.vector.get(said.vector) if isinstance(one.vector, dict) else one.vector
        vector = None if sent is None or len(sent) == 0 else np.asarray(sent, np.float32)
        id_ = values.get(self._address.id) if self._address.id else one.uuid
        return make_document(self._address, id_, vector, values, said.dimension)

    def _values(self, one: Any) -> dict[str, Any]:
        values, image = dict(one.properties), self._address.image
        if image is not None and self._known.kinds[image] == "blob":
            values[image] = from_base64(values.get(image))
        return values

    def _nearest(self, question: Question, vector: Vector) -> list[IndexHit]:
        known = self._known
        how = self._how(question) | {"return_metadata": MetadataQuery(distance=True)}
        how["target_vector"] = known.said.vector if known.named else None
        found = self._ask(lambda client: self._in(client).query.near_vector(vector.tolist(), **how))
        metric = known.said.metric

        def score(distance: float) -> float:
            return (
                1 - distance if metric == "cosine" else -distance if metric == "dot" else -math.sqrt(max(0.0, distance))
            )

        return [self._hit(one, score(float(one.metadata.distance))) for one in found.objects]

    def _by_words(self, question: Question) -> list[IndexHit]:
        how = self._how(question) | {"return_metadata": MetadataQuery(score=True)}
        how["query_properties"] = [str(self._address.text)]
        found = self._ask(lambda client: self._in(client).query.bm25(question.text or "", **how))
        return [self._hit(one, float(one.metadata.score or 0)) for one in found.objects]

    def _how(self, question: Question) -> dict[str, Any]:
        if question.where:
            raise ConfigError(f"{self._address.place}: an index of Weaviate is searched without a filter")
        named = (self._address.id, self._address.text, self._address.image)
        return {"limit": question.k, "return_properties": [name for name in named if name in self._known.kinds]}

    def _hit(self, one: Any, score: float) -> IndexHit:
        values = self._values(one)
        return make_hit(self._address, values.get(self._address.id or "") or one.uuid, score, values)


def _words(index: Any) -> str:
    kind = type(index).__name__.removeprefix("_VectorIndexConfig").lower()
    quantizer = getattr(index, "quantizer", None)
    if quantizer is None:
        return EACH if kind == "flat" else kind
    return f"{kind} {type(quantizer).__name__.strip('_').removesuffix('Config')}"
