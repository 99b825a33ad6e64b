"""The lines of docs/integrations.md that tell each engine a plain cut-off, asked of the real ones."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest

from reco_plugin.types import Refinement

from .conftest import Served, rows, unit

CUT = 0.25
PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
WITH_VECTOR = [row for row in rows() if row.clip is not None]


@pytest.fixture
def refined() -> Refinement:
    """A query whose scores are about a fifth of plain ones."""
    return Refinement(unit(1, 7), unit(1, 8), scale=np.float32([[5.0, -0.1]]))


@pytest.fixture
def passing(refined: Refinement) -> set[str]:
    """Documents whose scores are at least the cut-off on the scale of plain ones."""
    cosines = np.asarray([row.clip for row in WITH_VECTOR], np.float32) @ refined.vectors[0]
    passes = refined.plain_scores(cosines[None])[0] >= CUT
    assert 20 < passes.sum() < len(passes) - 20
    return {row.sku for row, one in zip(WITH_VECTOR, passes, strict=True) if one}


def line_for(engine: str) -> str:
    """The first piece of code in an engine's row of the page's table."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Thresholds\n")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| {engine}[^|]*\| `([^`]+)`", section, re.MULTILINE)
    return str(row)


@pytest.mark.slow
@pytest.mark.xdist_group("postgresql")
def test_postgresql(postgresql: Served, refined: Refinement, passing: set[str]) -> None:
    assert postgresql.query is not None
    least = float(refined.refined_scores(CUT)[0])
    said = line_for("PostgreSQL") % {"vector": f"'{refined.vectors[0].tolist()}'", "least": least}
    assert {one for (one,) in postgresql.query(f"SELECT sku FROM products {said}")} == passing


@pytest.mark.slow
@pytest.mark.xdist_group("milvus")
def test_milvus(milvus: Served, refined: Refinement, passing: set[str]) -> None:
    from pymilvus import MilvusClient

    least = float(refined.refined_scores(CUT)[0])
    how = eval(f"dict({line_for('Milvus')})", {"least": least})
    assert milvus.fill is not None
    file = milvus.fill("exact", rows(), index="FLAT").removeprefix("milvus:").partition("?")[0]  # type: ignore[call-arg]
    (hits,) = MilvusClient(file).search(
        "exact", [refined.vectors[0].tolist()], anns_field="clip", limit=300, output_fields=["sku"], **how
    )
    assert {hit["entity"]["sku"] for hit in hits} == passing


@pytest.mark.slow
@pytest.mark.xdist_group("lancedb")
def test_lancedb(lancedb: Served, refined: Refinement, passing: set[str]) -> None:
    import lancedb as lance

    least = float(refined.refined_scores(CUT)[0])
    table = lance.connect(lancedb.address.removeprefix("lancedb:").partition("?")[0]).open_table("products")
    search = table.search(refined.vectors[0]).distance_type("cosine").bypass_vector_index().limit(300)
    found = eval(f"search{line_for('LanceDB')}", {"search": search, "least": least}).to_list()
    assert {one["sku"] for one in found} == passing


def test_qdrant(qdrant: Served, refined: Refinement, passing: set[str]) -> None:
    from qdrant_client import QdrantClient, models

    least = float(refined.refined_scores(CUT)[0])
    how: dict[str, Any] = eval(f"dict({line_for('Qdrant')})", {"least": least})
    with closing(QdrantClient(url=qdrant.address.partition("?")[0], check_compatibility=False)) as client:
        asked = {"query": refined.vectors[0].tolist(), "using": "clip", "limit": 300, "with_payload": True, **how}
        (found,) = client.query_batch_points("products", [models.QueryRequest.model_validate(asked)])
    assert {one.payload["sku"] for one in found.points if one.payload} == passing


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.xdist_group(name)])
        for name in ("elasticsearch", "opensearch")
    ],
)
def test_engines_of_documents(
    kind: str, request: pytest.FixtureRequest, refined: Refinement, passing: set[str]
) -> None:
    served: Served = request.getfixturevalue(kind)
    least, vector = float(refined.refined_scores(CUT)[0]), refined.vectors[0].tolist()
    if kind == "elasticsearch":
        knn = {"field": "clip", "query_vector": vector, "k": 300, "num_candidates": 300}
        bodies: list[dict[str, Any]] = [
            {"knn": {**knn, "similarity": least}},
            {"knn": knn, "min_score": (1 + least) / 2},
        ]
    else:
        bodies = [{"query": {"knn": {"clip": {"vector": vector, "k": 300}}}, "min_score": (1 + least) / 2}]
    host = urlsplit(served.address).netloc
    for body in bodies:
        answer = httpx.post(f"http://{host}/products/_search", json={"size": 300, "_source": ["sku"], **body}).json()
        assert {hit["_source"]["sku"] for hit in answer["hits"]["hits"]} == passing, json.dumps(body)[-60:]


@pytest.mark.slow
@pytest.mark.xdist_group("weaviate")
def test_weaviate(weaviate: Served, refined: Refinement, passing: set[str]) -> None:
    from weaviate import connect_to_custom

    least, parts = float(refined.refined_scores(CUT)[0]), urlsplit(weaviate.address)
    grpc = int(parse_qs(parts.query)["grpc_port"][0])
    how = eval(f"dict({line_for('Weaviate')})", {"least": least})
    host, port = str(parts.hostname), int(parts.port or 0)
    with connect_to_custom(host, port, False, host, grpc, False, skip_init_checks=True) as client:
        found = client.collections.get("Products").query.near_vector(
            refined.vectors[0].tolist(), target_vector="clip", limit=300, **how
        )
    assert {str(one.properties["sku"]) for one in found.objects} == passing
