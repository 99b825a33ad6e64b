"""The gRPC methods that the plugin uses, with the messages of Qdrant's own protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from qdrant_client import grpc as q
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload

from .engine import Engine, Refusal

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


def _key(context: Any) -> str | None:
    return dict(context.invocation_metadata()).get("api-key")


def _optional(message: Any, name: str, convert: Callable[[Any], Any] = lambda value: value) -> Any:
    return convert(getattr(message, name)) if message.HasField(name) else None


@contextmanager
def _told(context: Any) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if refusal.retry_after is not None:
            context.set_trailing_metadata((("retry-after", str(refusal.retry_after)),))
        context.abort(_CODES[refusal.status], refusal.text)


class Root(q.QdrantServicer):
    """Answers whether anything is there."""

    def HealthCheck(self, request: Any, context: Any) -> Any:
        return q.HealthCheckReply(title="stand-in", version="1.19.1")


class Collections(q.CollectionsServicer):
    """Collections and aliases."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def List(self, request: Any, context: Any) -> Any:
        with _told(context):
            found = self._engine.run("list", _key(context), lambda c: c.get_collections()).collections
            return q.ListCollectionsResponse(collections=[q.CollectionDescription(name=each.name) for each in found])

    def Get(self, request: Any, context: Any) -> Any:
        with _told(context):
            info = self._engine.run("get", _key(context), lambda c: c.get_collection(request.collection_name))
            return q.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def CollectionExists(self, request: Any, context: Any) -> Any:
        with _told(context):
            there = self._engine.run("exists", _key(context), lambda c: c.collection_exists(request.collection_name))
            return q.CollectionExistsResponse(result=q.CollectionExists(exists=there))

    def Create(self, request: Any, context: Any) -> Any:
        quantization = GrpcToRest.convert_quantization_config
        arguments = {
            "vectors_config": _optional(request, "vectors_config", GrpcToRest.convert_vectors_config),
            "sparse_vectors_config": _optional(
                request, "sparse_vectors_config", GrpcToRest.convert_sparse_vector_config
            ),
            "metadata": grpc_to_payload(request.metadata),
            "quantization_config": _optional(request, "quantization_config", quantization),
            "shard_number": _optional(request, "shard_number"),
            "replication_factor": _optional(request, "replication_factor"),
        }
        with _told(context):
            done = self._engine.create(request.collection_name, _key(context), arguments)
            return q.CollectionOperationResponse(result=done)

    def Update(self, request: Any, context: Any) -> Any:
        said = grpc_to_payload(request.metadata)
        with _told(context):
            done = self._engine.run(
                "update_collection",
                _key(context),
                lambda c: c.update_collection(request.collection_name, metadata=said),
            )
            return q.CollectionOperationResponse(result=done)

    def Delete(self, request: Any, context: Any) -> Any:
        with _told(context):
            done = self._engine.run(
                "delete_collection", _key(context), lambda c: c.delete_collection(request.collection_name)
            )
            return q.CollectionOperationResponse(result=done)

    def UpdateAliases(self, request: Any, context: Any) -> Any:
        actions = [GrpcToRest.convert_alias_operations(action) for action in request.actions]
        with _told(context):
            done = self._engine.run(
                "update_aliases", _key(context), lambda c: c.update_collection_aliases(actions), actions=actions
            )
            return q.CollectionOperationResponse(result=done)

    def ListAliases(self, request: Any, context: Any) -> Any:
        with _told(context):
            found = self._engine.run("aliases", _key(context), lambda c: c.get_aliases()).aliases
            return q.ListAliasesResponse(aliases=[RestToGrpc.convert_alias_description(each) for each in found])


class Points(q.PointsServicer):
    """Points of a collection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def Upsert(self, request: Any, context: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        with _told(context):
            self._engine.run(
                "upsert", _key(context), lambda c: c.upsert(request.collection_name, points), points=points
            )
            return _done()

    def UpdateVectors(self, request: Any, context: Any) -> Any:
        points = [GrpcToRest.convert_point_vectors(point) for point in request.points]
        with _told(context):
            self._engine.run(
                "update_vectors", _key(context), lambda c: c.update_vectors(request.collection_name, points)
            )
            return _done()

    def CreateVectorName(self, request: Any, context: Any) -> Any:
        with _told(context):
            self._engine.name_words(request.collection_name, _key(context), request.vector_name)
            return _done()

    def UpdateBatch(self, request: Any, context: Any) -> Any:
        changes = [GrpcToRest.convert_points_update_operation(each) for each in request.operations]
        with _told(context):
            self._engine.run(
                "update_batch",
                _key(context),
                lambda c: c.batch_update_points(request.collection_name, changes),
                changes=changes,
            )
            done = q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed)
            return q.UpdateBatchResponse(result=[done] * len(changes))

    def Delete(self, request: Any, context: Any) -> Any:
        gone = GrpcToRest.convert_points_selector(request.points)
        with _told(context):
            self._engine.run("delete", _key(context), lambda c: c.delete(request.collection_name, gone))
            return _done()

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        told = {"collection": request.collection_name, "field": request.field_name}
        with _told(context):
            self._engine.run("create_index", _key(context), lambda _: None, **told)
            return _done()

    def Count(self, request: Any, context: Any) -> Any:
        condition = _optional(request, "filter", GrpcToRest.convert_filter)
        with _told(context):
            found = self._engine.run("count", _key(context), lambda c: c.count(request.collection_name, condition))
            return q.CountResponse(result=q.CountResult(count=found.count))

    def Get(self, request: Any, context: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(each) for each in request.ids]
        with _told(context):
            found = self._engine.run(
                "retrieve", _key(context), lambda c: c.retrieve(request.collection_name, ids, **_read(request))
            )
            return q.GetResponse(result=[_record(each) for each in found])

    def Scroll(self, request: Any, context: Any) -> Any:
        condition = _optional(request, "filter", GrpcToRest.convert_filter)
        offset = _optional(request, "offset", GrpcToRest.convert_point_id)
        with _told(context):
            found, following = self._engine.run(
                "scroll",
                _key(context),
                lambda c: c.scroll(
                    request.collection_name, condition, limit=request.limit, offset=offset, **_read(request)
                ),
            )
            after = None if following is None else RestToGrpc.convert_extended_point_id(following)
            result = [_record(each) for each in found]
            return q.ScrollResponse(result=result, next_page_offset=after)

    def QueryBatch(self, request: Any, context: Any) -> Any:
        searches = [GrpcToRest.convert_query_points(each) for each in request.query_points]
        with _told(context):
            found = self._engine.query(request.collection_name, _key(context), searches)
            batches = [[RestToGrpc.convert_scored_point(hit) for hit in each.points] for each in found]
            return q.QueryBatchResponse(result=[q.BatchResult(result=batch) for batch in batches])


def _read(request: Any) -> dict[str, Any]:
    return {
        "with_payload": GrpcToRest.convert_with_payload_interface(request.with_payload),
        "with_vectors": GrpcToRest.convert_with_vectors_selector(request.with_vectors),
    }


def _record(record: models.Record) -> Any:
    return RestToGrpc.convert_record(record.model_copy(update={"payload": record.payload or {}}))


def _done() -> Any:
    return q.PointsOperationResponse(result=q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed))
