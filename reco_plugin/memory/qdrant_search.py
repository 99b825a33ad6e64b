"""The search of a Qdrant server, in the fewest steps that qdrant-client offers, and how deep it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

DEPTH_KEY = "search_ef"
"""Of what a memory learned: how deep its searches must look."""
DEPTHS = (64, 96, 128, 192, 256, 384, 512, 1024)
"""Candidates that the HNSW index may look at, as they are tried."""
RECALL = 0.98
"""Share of the true ten nearest that a search must find, on pairs of the memory."""
ASKED = 50
"""Pairs that ask, by image and by text; 50 exact searches each take 10 s among a million pairs."""
DEEP = 10_000
"""Pairs from which it is worth measuring: fewer are compared with all of them, or nearly so."""


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


def measure_depth(ask: Callable[[models.SearchParams], list[set[Any]]]) -> int:
    """The fewest candidates of :data:`DEPTHS` with which a search finds enough; the most, where none does.

    Args:
        ask: searches with all that ask, and gives the points that each found.
    """
    true = ask(models.SearchParams(exact=True))
    for depth in DEPTHS[:-1]:
        found = ask(models.SearchParams(hnsw_ef=depth))
        if sum(len(a & b) for a, b in zip(true, found, strict=True)) >= RECALL * sum(map(len, true)):
            return depth
    return DEPTHS[-1]
