"""The search of a Qdrant server, in the fewest steps that qdrant-client offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc


def query_batch(
    client: QdrantClient,
    collection: str,
    requests: Sequence[models.QueryRequest],
    agreed: Any,
    timeout_s: int,
    left_s: int | None,
) -> list[list[models.ScoredPoint]]:
    """The hits of each request, by gRPC or REST as the client prefers.

    As ``QdrantClient.query_batch_points``, which first copies each number of each request, in case a text is to be
    embedded: half of the CPU of a search.

    Args:
        client: of a server.
        collection: name or alias.
        requests: with vectors.
        agreed: read consistency.
        timeout_s: how long a call may take.
        left_s: how long the server may take; None: as long.
    """
    if not client.init_options["prefer_grpc"]:
        batch = models.QueryRequestBatch.model_construct(searches=list(requests))
        limits: dict[str, Any] = {"consistency": agreed, "timeout": left_s}
        search = client.http.search_api.query_batch_points
        told = search(collection_name=collection, query_request_batch=batch, **limits)
        return [answer.points for answer in told.result or []]
    message = grpc.QueryBatchPoints(
        collection_name=collection,
        query_points=[RestToGrpc.convert_query_request(request, collection) for request in requests],
        read_consistency=None if agreed is None else RestToGrpc.convert_read_consistency(agreed),
        timeout=left_s,
    )
    answers = client.grpc_points.QueryBatch(message, timeout=timeout_s if left_s is None else left_s)
    return [[GrpcToRest.convert_scored_point(hit) for hit in answer.result] for answer in answers.result]
