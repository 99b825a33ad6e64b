"""A collection of a Qdrant server: ``http://host:6333?collection=shop&vector=photo``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from ..config import MemoryOptions, Settings
from ..errors import (
    ConfigError,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
)
from ..memory.points import to_payload
from ..memory.server import Server
from ..values import did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, make_document, make_hit, pick_vector, query_of, value_of

_METRICS: Mapping[str, Similarity] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclid"}
_SAMPLE = 100
_EACH = "none: each vector is compared"
T = TypeVar("T")


class QdrantIndex(LooksOnce[Description]):
    """A collection; see :class:`~reco_plugin.engines.base.Engine`. A vector without a name is called ''."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only("collection", "transport", "grpc_port")
        if "collection" not in address.options:
            raise ConfigError(
                f"{address.place} names no collection: http://HOST:6333?collection=NAME, also https, grpc or grpcs"
            )
        key = settings.index_api_key or settings.memory_api_key
        self._server = _server(address, key.get_secret_value() if key else None)
        self._address, self._name = address, address.options["collection"]
        self._client: QdrantClient | None = None

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        found = self._known()
        counted = self._call(lambda client: client.count(self._name, exact=True)).count
        return replace(found, engine=self._version(), documents=int(counted))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`; in the order of the points' ids."""
        found = self._known()
        start = None
        asked: dict[str, Any] = {
            "limit": size,
            "with_payload": True,
            "with_vectors": [found.vector] if vectors and found.vector else vectors,
        }
        while True:
            points, following = self._call(lambda client, at=start: client.scroll(self._name, offset=at, **asked))  # type: ignore[misc]
            if not points:
                return
            yield Page(tuple(self._document(found, point) for point in points))
            start = following
            if start is None:
                return

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`; a filter is the JSON of Qdrant's."""
        found, address = self._known(), self._address
        asked: dict[str, Any] = {"limit": question.k, "filter": _filter(question.where)}
        if question.vector is None:
            if not found.searches_text:
                raise ConfigError(
                    f"{address.place} cannot be searched by words: there is no text index with scoring over "
                    f"{address.text or 'a key of the payload that text=NAME names'}"
                )
            asked |= {"query": {"text": question.text or ""}, "using": address.text}
        else:
            vector = query_of(address, question.vector, found.dimension).tolist()
            asked |= {"query": vector, "using": found.vector or None}
        names = [name for name in (address.id, address.text, address.image) if name is not None]
        paths = [path for name in names for path in _paths(name)]
        asked["with_payload"] = True if address.id is None else paths  # whole, since our own id is in it
        try:
            given = {name: value for name, value in asked.items() if value is not None}
            request = models.QueryRequest.model_validate(given)
        except ValidationError as error:
            raise ConfigError(f"{address.place}: no query of Qdrant's: {_first(error)}") from None
        hits = self._call(lambda client: client.query_batch_points(self._name, [request]))[0].points
        euclid = found.metric == "euclid" and question.vector is not None
        return [self._hit(hit, -hit.score if euclid else hit.score) for hit in hits]

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _hit(self, point: Any, score: float) -> IndexHit:
        id_, payload = to_payload(point)
        if self._address.id is not None:
            id_ = str(value_of(payload, self._address.id))
        return make_hit(self._address, id_, float(score), payload)

    def _document(self, found: Description, point: Any) -> Document:
        id_, payload = to_payload(point)
        stored = point.vector.get(found.vector) if isinstance(point.vector, dict) else point.vector
        vector = None if stored is None or not len(stored) else np.asarray(stored, np.float32)
        own = id_ if self._address.id is None else value_of(payload, self._address.id)
        return make_document(self._address, own, vector, dict(payload))

    def _call(self, action: Callable[[QdrantClient], T]) -> T:
        def run() -> T:
            with self._translated():
                client = self._connected()
                return self._server.patience.run("read", lambda _: action(client))

        return ask(run)

    def _connected(self) -> QdrantClient:
        with self._lock:
            if self._client is None:
                self._client = self._server.connect()
            return self._client

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the memory's server into those of an engine."""
        try:
            yield
        except MemoryTimeout as error:
            raise EngineTimeout(_of_index(error)) from None
        except MemoryUnavailable as error:
            raise EngineUnavailable(_of_index(error)) from None
        except MemoryStoreError as error:
            raise EngineError(_of_index(error)) from None

    def _version(self) -> str:
        try:
            return f"Qdrant {self._call(lambda client: client.info()).version}"
        except EngineError:  # a proxy hides it
            return "Qdrant"

    def _look(self) -> Description:
        """All but the engine's version and how many documents there are."""
        address = self._address
        if not self._call(lambda client: client.collection_exists(self._name)):
            names = [each.name for each in self._call(lambda client: client.get_collections()).collections]
            raise EngineError(f"{address.place} has no collection {self._name!r}: {did_you_mean(self._name, names)}")
        config = self._call(lambda client: client.get_collection(self._name)).config
        said = config.params.vectors
        vectors = said if isinstance(said, dict) else {"": said} if said else {}
        others = {name: kind for name, params in vectors.items() if (kind := _odd(params))}
        others |= dict.fromkeys(config.params.sparse_vectors or {}, "sparse vectors")
        keys = self._keys()
        dense = [name for name in vectors if name not in others]
        vector = pick_vector(address, dense, others, self._name)
        if keys:
            check_fields(address, keys, self._name)
        params = vectors[vector]
        metric = str(params.distance.value)
        if metric not in _METRICS:
            raise EngineError(
                f"{address.place}: the vectors {vector!r} are compared by {metric}, not by {', '.join(_METRICS)}"
            )
        return Description(
            engine="",
            name=self._real_name(),
            documents=0,
            vector=vector,
            dimension=params.size,
            metric=_METRICS[metric],
            index=_searched(config, params),
            fields=(*vectors, *keys),
            searches_text=self._has_scored_text(),
        )

    def _real_name(self) -> str:
        aliases = self._call(lambda client: client.get_aliases()).aliases
        return next((each.collection_name for each in aliases if each.alias_name == self._name), self._name)

    def _keys(self) -> tuple[str, ...]:
        """Keys of the payload, as the first points have them, also within others."""
        points, _ = self._call(lambda client: client.scroll(self._name, limit=_SAMPLE, with_payload=True))
        found = dict[str, None]()
        for point in points:
            for name, value in to_payload(point)[1].items():
                found[name] = None
                if isinstance(value, Mapping):
                    found |= dict.fromkeys(f"{name}.{inner}" for inner in value)
        return tuple(found)

    def _has_scored_text(self) -> bool:
        """Whether captions can be ranked by their words: it is tried."""
        if self._address.text is None or not hasattr(models, "TextQuery"):
            return False
        asked = {"query": {"text": "a"}, "using": self._address.text, "limit": 1}
        try:
            request = models.QueryRequest.model_validate(asked)
            self._call(lambda client: client.query_batch_points(self._name, [request]))
        except EngineUnavailable:
            raise
        except EngineError:  # no such index, or an older server
            return False
        return True


def _server(address: IndexAddress, key: str | None) -> Server:
    try:
        options = MemoryOptions.model_validate(
            {
                "timeout_s": max(1, round(address.timeout_s)),
                "ca_file": address.ca_file,
            }
        )
    except ValidationError as error:
        raise ConfigError(f"{address.place}: {_first(error)}") from None
    return Server.parse(address.place, key, options)


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
    return " ".join([f"hnsw m={m} ef_construct={ef}", *kinds]) if m else _EACH


def _paths(key: str) -> set[str]:
    """Where :func:`.value_of` looks, as Qdrant's paths write it: a key that is more than a word is quoted."""
    return {f'"{key}"', ".".join(f'"{part}"' for part in key.split("."))}


def _filter(where: str | None) -> Any:
    if where is None:
        return None
    try:
        return json.loads(where)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the filter is no JSON: {error}") from None


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _of_index(error: MemoryStoreError) -> str:
    """A message about a memory's server, as one about an index."""
    said = str(error).replace("the memory at", "the index at").replace("memory_options.", "")
    return said.replace("RECO_MEMORY_API_KEY", "RECO_INDEX_API_KEY")
