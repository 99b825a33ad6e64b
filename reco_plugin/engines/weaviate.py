"""A collection of Weaviate: ``weaviate://host:8080/Product?vector=default&text=title&image=image&id=sku``."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import weaviate
from weaviate import exceptions
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.query import Filter, MetadataQuery

from ..config import Settings
from ..data.cells import Vector
from ..errors import ConfigError, EngineError, EngineTimeout, EngineUnavailable
from ..values import did_you_mean
from .address import IndexAddress
from .asking import ask
from .base import Description, Document, IndexHit, LooksOnce, Page, Question, Similarity
from .documents import check_fields, make_document, make_hit, pick_vector

T = TypeVar("T")
_METRICS: Mapping[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2-squared": "euclid"}
_COMPARISONS = {
    "Equal": "equal",
    "NotEqual": "not_equal",
    "LessThan": "less_than",
    "LessThanEqual": "less_or_equal",
    "GreaterThan": "greater_than",
    "GreaterThanEqual": "greater_or_equal",
    "Like": "like",
    "ContainsAny": "contains_any",
    "ContainsAll": "contains_all",
    "IsNull": "is_none",
}


@dataclass(frozen=True)
class _Collection:
    """What Weaviate says of a collection."""

    said: Description  # but for how many documents there are; a vector without a name is called "default"
    kinds: Mapping[str, str]  # property -> its data type
    named: bool  # whether the vector has a name

    @property
    def read(self) -> list[str]:
        """Properties that a scan reads: blobs only on demand, nested objects never."""
        return [name for name, kind in self.kinds.items() if kind != "blob" and not kind.startswith("object")]


class WeaviateIndex(LooksOnce[_Collection]):
    """A collection; see :class:`~reco_plugin.engines.base.Engine`."""

    def __init__(self, address: IndexAddress, settings: Settings) -> None:
        super().__init__()
        address.only("grpc_host", "grpc_port", "tenant")
        if not address.path or "/" in address.path:
            raise ConfigError(f"{address.place} names no collection: weaviate://HOST:{address.port}/COLLECTION")
        if address.ca_file:
            raise ConfigError(f"{address.place}: the client of Weaviate takes no ca_file=: set SSL_CERT_FILE")
        port = address.options.get("grpc_port", "50051")
        if not port.isdigit():
            raise ConfigError(f"{address.place}: grpc_port={port!r} must be a number")
        self._address, self._settings, self._grpc_port = address, settings, int(port)
        self._client: weaviate.WeaviateClient | None = None

    def describe(self) -> Description:
        """See :meth:`reco_plugin.engines.base.Engine.describe`."""
        known = self._known()
        counted = self._ask(lambda: self._open().aggregate.over_all(total_count=True)).total_count
        return replace(known.said, documents=int(counted or 0))

    def scan(self, *, vectors: bool = True, size: int = 1000) -> Iterator[Page]:
        """See :meth:`reco_plugin.engines.base.Engine.scan`; by Weaviate's cursor."""
        known = self._known()
        shown = known.read + ([self._address.image] if known.kinds.get(self._address.image or "") == "blob" else [])
        include: Any = ([known.said.vector] if known.named else True) if vectors else False
        position = None
        while True:
            found = self._ask(
                lambda position=position: (  # type: ignore[misc]
                    self._open().query.fetch_objects(
                        limit=size,
                        after=position,
                        include_vector=include,
                        return_properties=shown,
                    )
                )
            ).objects
            if not found:
                return
            position = str(found[-1].uuid)
            yield Page(tuple(self._document(known, one) for one in found))

    def search(self, question: Question) -> Sequence[IndexHit]:
        """See :meth:`reco_plugin.engines.base.Engine.search`; a filter is JSON (``where``)."""
        known = self._known()
        shown = [name for name in (self._address.id, self._address.text, self._address.image) if name in known.kinds]
        how: dict[str, Any] = {"limit": question.k, "return_properties": shown}
        if question.where:
            how["filters"] = self._where(question.where)
        if question.vector is None:
            if self._address.text is None:
                raise ConfigError(f"{self._address.place} names no field of texts: add text=NAME to search it by words")
            found = self._ask(
                lambda: self._open().query.bm25(
                    question.text or "",
                    query_properties=[str(self._address.text)],
                    return_metadata=MetadataQuery(score=True),
                    **how,
                )
            )
            return [self._hit(known, one, float(one.metadata.score or 0)) for one in found.objects]
        vector = np.asarray(question.vector, np.float32).tolist()
        target = known.said.vector if known.named else None
        found = self._ask(
            lambda: self._open().query.near_vector(
                vector, target_vector=target, return_metadata=MetadataQuery(distance=True), **how
            )
        )
        return [self._hit(known, one, _score(known.said.metric, float(one.metadata.distance))) for one in found.objects]

    def close(self) -> None:
        """See :meth:`reco_plugin.engines.base.Engine.close`."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _where(self, text: str) -> Any:
        try:
            return _filter(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"the filter is no JSON of a `where` of Weaviate, as in "
                f'{{"path": ["price"], "operator": "LessThan", "valueNumber": 5}}: {error}'
            ) from None

    def _document(self, known: _Collection, one: Any) -> Document:
        values = dict(one.properties)
        id_ = values.get(self._address.id) if self._address.id else one.uuid
        sent = one.vector.get(known.said.vector) if isinstance(one.vector, dict) else one.vector
        vector: Vector | None = None if sent is None or len(sent) == 0 else np.asarray(sent, np.float32)
        problem = None
        if vector is not None and vector.shape != (known.said.dimension,):
            problem = f"its vector has the shape {vector.shape}, not ({known.said.dimension},)"
            vector = None
        if self._address.image is not None and known.kinds[self._address.image] == "blob":
            values[self._address.image] = _bytes(values.get(self._address.image))
        return make_document(self._address, id_, vector, values, problem)

    def _hit(self, known: _Collection, one: Any, score: float) -> IndexHit:
        address, values = self._address, one.properties
        id_ = values.get(address.id) if address.id else None
        if address.image is not None and known.kinds[address.image] == "blob":
            values = {**values, address.image: _bytes(values.get(address.image))}
        return make_hit(address, id_ or one.uuid, score, values)

    def _look(self) -> _Collection:
        """The collection as its configuration has it, and the dimension of a vector in it."""
        place, wanted = self._address.place, self._address.path
        client = self._ask(self._connected)
        names = self._ask(lambda: list(client.collections.list_all(simple=True)))
        name = wanted[:1].upper() + wanted[1:]
        if name not in names:
            raise EngineError(f"{place} has no collection {name!r}: {did_you_mean(name, names)}")
        config = self._ask(client.collections.get(name).config.get)
        if config.multi_tenancy_config.enabled and "tenant" not in self._address.options:
            raise EngineError(f"{place}: {name} has tenants: add tenant=NAME")
        kinds = {one.name: str(one.data_type.value) for one in config.properties}
        check_fields(self._address, kinds, name)
        named = config.vector_config or {}
        indexes: dict[str, Any] = {key: one.vector_index_config for key, one in named.items()} or {
            "default": config.vector_index_config
        }
        dense = [key for key, index in indexes.items() if getattr(index, "multi_vector", None) is None]
        others = {key: "several vectors an object" for key in indexes if key not in dense} | kinds
        vector = pick_vector(self._address, dense, others, name)
        index = indexes[vector]
        metric = _distance_of(index)
        if metric not in _METRICS:
            raise EngineError(
                f"{place}: its vectors are compared by {metric}, and {', '.join(_METRICS)} are known here"
            )
        said = Description(
            engine=f"Weaviate {self._ask(client.get_meta)['version']}",
            name=name,
            documents=0,
            vector=vector,
            dimension=self._measured(name, vector, bool(named)),
            metric=_METRICS[metric],
            index=_words(index),
            fields=tuple(kinds),
            searches_text=self._address.text is not None,
        )
        return _Collection(said, kinds, bool(named))

    def _measured(self, name: str, vector: str, named: bool) -> int:
        include: Any = [vector] if named else True
        found = self._ask(
            lambda: self._open(name).query.fetch_objects(limit=100, include_vector=include, return_properties=[])
        )
        for one in found.objects:
            if one.vector.get(vector):
                return len(one.vector[vector])
        raise EngineError(f"{self._address.place}: none of the first objects of {name} has a vector {vector!r}")

    def _open(self, name: str | None = None) -> Any:
        collection: Any = self._connected().collections.get(name or self._known().said.name)
        tenant = self._address.options.get("tenant")
        return collection.with_tenant(tenant) if tenant else collection

    def _connected(self) -> weaviate.WeaviateClient:
        with self._lock:
            if self._client is None:
                address, settings, seconds = self._address, self._settings, self._address.timeout_s
                user, password, key = (
                    address.user or settings.index_user,
                    settings.index_password,
                    settings.index_api_key,
                )
                auth: Any = None
                if key and not user:
                    auth = Auth.api_key(key.get_secret_value())
                elif user:
                    auth = Auth.client_password(user, password.get_secret_value() if password else "")
                self._client = weaviate.connect_to_custom(
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
            return self._client

    def _ask(self, call: Callable[[], T]) -> T:
        return ask(lambda: self._translated(call))

    def _translated(self, call: Callable[[], T]) -> T:
        """A call, with the client's errors as ours."""
        place = self._address.place
        try:
            return call()
        except exceptions.WeaviateTimeoutError:
            raise EngineTimeout(
                f"{place} did not answer within {self._address.timeout_s:g} s: give timeout_s= more"
            ) from None
        except (exceptions.InsufficientPermissionsError, exceptions.AuthenticationFailedError) as error:
            raise self._refused(error) from None
        except exceptions.UnexpectedStatusCodeError as error:
            if error.status_code in (401, 403):
                raise self._refused(error) from None
            kind = EngineUnavailable if error.status_code in (429, 502, 503, 504) else EngineError
            raise kind(f"{place} refuses ({error.status_code}): {_first_line(error)}") from None
        except exceptions.WeaviateQueryError as error:
            said = _first_line(error)
            if any(word in said for word in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "failed to connect")):
                kind = EngineTimeout if "DEADLINE_EXCEEDED" in said else EngineUnavailable
                raise kind(f"{place} cannot be reached by gRPC, grpc_port={self._grpc_port}: {said}") from None
            raise EngineError(f"{place}: {said}") from None
        except (
            exceptions.WeaviateStartUpError,
            exceptions.WeaviateConnectionError,
            exceptions.WeaviateClosedClientError,
        ) as error:
            if any(word in str(error) for word in ("401", "403", "nauthorized")):
                raise self._refused(error) from None
            self.close()
            raise EngineUnavailable(
                f"{place} cannot be reached: {_first_line(error)}. Does it speak TLS? tls=1"
            ) from None
        except exceptions.WeaviateBaseError as error:
            raise EngineError(f"{place}: {_first_line(error)}") from None

    def _refused(self, error: Exception) -> EngineError:
        return EngineError(
            f"{self._address.place} refuses: {_first_line(error)}. RECO_INDEX_API_KEY is the key of a user who may read"
        )


def _filter(said: Any) -> Any:
    """A `where` of GraphQL as the client's filter."""
    operator = said["operator"]
    if operator in ("And", "Or"):
        parts = [_filter(part) for part in said["operands"]]
        return Filter.all_of(parts) if operator == "And" else Filter.any_of(parts)
    if operator not in _COMPARISONS:
        raise ValueError(f"operator {operator!r}: {did_you_mean(operator, [*_COMPARISONS, 'And', 'Or'])}")
    path = said["path"]
    (name,) = path if isinstance(path, list) else [path]
    value = next(value for key, value in said.items() if key.startswith("value"))
    return getattr(Filter.by_property(name), _COMPARISONS[operator])(value)


def _score(metric: Similarity, distance: float) -> float:
    match metric:
        case "cosine":
            return 1 - distance
        case "dot":
            return -distance
    return -math.sqrt(max(0.0, distance))


def _distance_of(index: Any) -> str:
    return str(index.distance_metric.value)


def _words(index: Any) -> str:
    kind = type(index).__name__.removeprefix("_VectorIndexConfig").lower()
    quantizer = getattr(index, "quantizer", None)
    if quantizer is None:
        return "none: each vector is compared" if kind == "flat" else kind
    return f"{kind} {type(quantizer).__name__.strip('_').removesuffix('Config')}"


def _bytes(value: Any) -> Any:
    """A picture of a blob, which is sent as base64."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        return value


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "message", "") or error).strip().split("\n") or [""])[0][:300]
