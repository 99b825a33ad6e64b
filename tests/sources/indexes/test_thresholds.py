"""The threshold of one query, as engines take it: what passes is what has its cosine."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest

from reco_plugin.serve.schemas import Threshold

from .conftest import DIMENSION, Served, rows, unit

Vector = list[float]


def in_postgresql(served: Served, vector: Vector, threshold: Threshold) -> list[str]:
    assert served.query is not None
    found = served.query(
        f"SELECT sku FROM products WHERE clip <=> '{vector}'::vector <= {threshold.distance} "
        f"ORDER BY clip <=> '{vector}'::vector LIMIT 10"
    )
    return [sku for (sku,) in found]


def in_milvus(served: Served, vector: Vector, threshold: Threshold) -> list[str]:
    from pymilvus import MilvusClient

    client = MilvusClient(urlsplit(served.address).path)
    found = client.search(
        "products",
        [vector],
        anns_field="clip",
        limit=10,
        search_params={"metric_type": "COSINE", "params": {"radius": threshold.cosine}},
    )
    return [hit["sku"] for hit in found[0]]


def in_qdrant(served: Served, vector: Vector, threshold: Threshold) -> list[str]:
    from qdrant_client import QdrantClient, models

    url = urlsplit(served.address)
    client = QdrantClient(f"http://{url.netloc}", check_compatibility=False)
    name = parse_qs(url.query)["collection"][0]
    request = models.QueryRequest(
        query=vector, using="clip", limit=10, score_threshold=threshold.cosine, with_payload=True
    )
    (found,) = client.query_batch_points(name, [request])
    return [str(point.payload["sku"]) for point in found.points if point.payload]


def in_elasticsearch(served: Served, vector: Vector, threshold: Threshold) -> list[str]:
    url = urlsplit(served.address)
    knn = {"field": "clip", "query_vector": vector, "k": 10, "num_candidates": 300}
    body = {"knn": knn, "min_score": threshold.score, "size": 10}
    answer = httpx.post(f"http://{url.netloc}{url.path}/_search", json=body).json()
    return [hit["_source"]["sku"] for hit in answer["hits"]["hits"]]


ASK: dict[str, Callable[[Served, Vector, Threshold], list[str]]] = {
    "postgresql": in_postgresql,
    "milvus": in_milvus,
    "qdrant": in_qdrant,
    "elasticsearch": in_elasticsearch,
}


@pytest.mark.parametrize("least", [0.3, 0.5])
def test_an_engine_returns_what_passes_the_threshold(engine: Served, least: float) -> None:
    if engine.name not in ASK:
        pytest.skip("no query of this engine is on the page")
    (vector,) = unit(1, 5)
    there = [row for row in rows() if row.clip is not None]
    cosine = np.array([row.clip for row in there]) @ vector
    order = [place for place in np.argsort(-cosine).tolist() if cosine[place] >= least][:10]
    assert 0 < len(order) <= 10 and len(vector) == DIMENSION
    found = ASK[engine.name](engine, vector.tolist(), Threshold.of(least))
    assert found == [there[place].sku for place in order]
