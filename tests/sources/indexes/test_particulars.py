"""What single engines have of their own: metrics, columns and keys, and engines that refuse or go away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.errors import EngineError, EngineUnavailable
from reco_plugin.sources.indexes import IndexQuery, base, open_index, parse_address

from .conftest import DIMENSION, DOCUMENTS, Row, Served, rows, to_qdrant, unit

pytestmark = pytest.mark.slow

SECRET = "Sesame-open-1"
NAMES = [row.sku for row in rows()]
WITH_VECTOR = [row for row in rows() if row.clip is not None]
LONGER = np.asarray([row.clip for row in WITH_VECTOR]) * np.linspace(0.5, 2, len(WITH_VECTOR))[:, None]
LONG = [Row(**{**vars(row), "clip": vector.tolist()}) for row, vector in zip(WITH_VECTOR, LONGER, strict=True)]
QUERY = unit(1, 3)[0]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that no engine knows, and no waiting for one that is away."""
    for name in ("RECO_INDEX_PASSWORD", "RECO_INDEX_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(base, "WAITS", (0.0,))


def check_scores(address: str, metric: str) -> None:
    """Check that hits have the scores of the metric, by its definition."""
    cosine = LONGER @ QUERY / np.linalg.norm(LONGER, axis=1)
    truth = {"cosine": cosine, "dot": LONGER @ QUERY, "euclid": -np.linalg.norm(LONGER - QUERY, axis=1)}[metric]
    score_of = dict(zip((row.sku for row in WITH_VECTOR), truth.tolist(), strict=True))
    with closing(open_index(address)) as index:
        assert index.describe().metric == metric
        hits = index.search(IndexQuery(QUERY, k=10))
    assert len({hit.id for hit in hits} & {WITH_VECTOR[row].sku for row in np.argsort(-truth)[:10]}) > 6
    np.testing.assert_allclose([hit.score for hit in hits], [score_of[hit.id] for hit in hits], atol=1e-3)


METRICS: list[tuple[str, str, Any]] = [
    # the cosine is the contract's
    ("postgresql", "euclid", "USING hnsw (clip vector_l2_ops)"),
    ("postgresql", "dot", "USING hnsw ((clip::halfvec(16)) halfvec_ip_ops)"),
    *(("milvus", metric, ("HNSW", name)) for metric, name in (("dot", "IP"), ("euclid", "L2"))),
    *(("qdrant", metric, metric.capitalize()) for metric in ("dot", "euclid")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "metric", "how"), METRICS)
def test_scores_are_those_of_the_metric(name: str, metric: str, how: Any, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(name)
    fill: Any = served.fill
    check_scores(fill("scored", LONG, *(how if isinstance(how, tuple) else (how,))), metric)


@pytest.mark.fetched
@pytest.mark.parametrize("metric", ["dot", "euclid"])
def test_lancedb_without_an_index_is_searched_by_the_metric_of_the_address(tmp_path: Path, metric: str) -> None:
    lance, pa = pytest.importorskip("lancedb"), pytest.importorskip("pyarrow")
    schema = pa.schema({"id": pa.string(), "clip": pa.list_(pa.float32(), DIMENSION), "photo": pa.binary()})
    documents = [{"id": row.sku, "clip": row.clip, "photo": b"png" if row is LONG[0] else None} for row in LONG]
    table = lance.connect(tmp_path).create_table("a", pa.Table.from_pylist(documents, schema=schema))
    address = f"lancedb:{tmp_path}?table=a&metric={metric}&image=photo"
    check_scores(address, metric)
    with closing(open_index(address)) as index:
        pages = index.scan(size=50)
        first = next(pages)
        table.delete(f"id = '{LONG[-1].sku}'")  # a scan stays at the version of its first page
        found = [document for page in [first, *pages] for document in page]
    assert [document.id for document in found] == [row.sku for row in LONG]
    assert [document.image for document in found[:2]] == [b"png", None]


def own_table(postgresql: Served, columns: str, *values: str) -> str:
    """The address of a table of one's own, with the user who may read."""
    assert postgresql.query is not None
    postgresql.query("DROP TABLE IF EXISTS own")
    postgresql.query(f"CREATE TABLE own ({columns}, clip vector(4))")
    for row in values:
        postgresql.query(f"INSERT INTO own VALUES ({row})")
    postgresql.query("GRANT SELECT ON own TO reader")
    return f"{postgresql.address.partition('?')[0]}?host={parse_address(postgresql.address).options['host']}&table=own"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "value", "fields", "shown"),
    [
        ("sku text PRIMARY KEY, photo bytea", "'\\x89504e47'", "&image=photo", (None, b"\x89PNG")),
        ("sku text PRIMARY KEY, tags text[]", "'{red,NULL,fox}'", "&text=tags", ("red, fox", None)),
        (
            "sku text PRIMARY KEY, meta jsonb",
            """'{"50% off": "a fox", "photo": {"url": "fox.png"}}'""",
            "&text=meta.50%25 off&image=meta.photo.url",
            ("a fox", "fox.png"),
        ),
        ('sku text PRIMARY KEY, "the %title" text', "'100% wool'", "&text=the %25title", ("100% wool", None)),
    ],
)
def test_postgresql_shows_columns_of_every_kind(
    postgresql: Served, columns: str, value: str, fields: str, shown: tuple[Any, Any]
) -> None:
    address = own_table(postgresql, columns, f"'a', {value}, '[1,0,0,0]'", "'b', NULL, '[0,0,0,0]'", "'c', NULL, NULL")
    with closing(open_index(address + fields)) as index:
        (page,) = index.scan()
        hits = index.search(IndexQuery(np.asarray([1, 0, 0, 0], np.float32), k=3, where="sku LIKE '%' -- all"))
    assert [(one.id, one.text, one.image) for one in page] == [
        ("a", *shown),
        ("b", None, None),
        ("c", None, None),
    ]
    assert [(hit.id, hit.text, hit.image) for hit in hits] == [("a", *shown)], "no vector, and of zeros: not found"


@pytest.mark.slow
def test_postgresql_names_tables_and_keys(postgresql: Served) -> None:
    address = own_table(postgresql, "sku text, shop int, PRIMARY KEY (sku, shop)", "'a', 1, '[1,0,0,0]'")
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="id=NAME"):
        index.describe()
    with closing(open_index(f"{address}s")) as index, pytest.raises(EngineError, match="did you mean 'own'"):
        index.describe()
    with closing(open_index(f"{address}&id=sku")) as index:
        assert index.describe().index == base.EXACT


@pytest.mark.slow
def test_postgresql_refuses_a_user_who_may_not_read(postgresql: Served, secrets: None) -> None:
    assert postgresql.query is not None
    postgresql.query("DROP ROLE IF EXISTS stranger")
    postgresql.query("CREATE ROLE stranger LOGIN")
    address = postgresql.address.replace("reader@", "stranger@")
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="needs SELECT") as caught:
        index.describe()
    assert not isinstance(caught.value, EngineUnavailable)
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_a_scan_goes_on_where_postgresql_ended_the_connection(postgresql: Served) -> None:
    assert postgresql.query is not None
    with closing(open_index(postgresql.address)) as index:
        pages = index.scan(size=50)
        found = [document.id for document in next(pages)]
        ended = postgresql.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'")
        assert ended.fetchall()
        found += [document.id for page in pages for document in page]
    assert sorted(found) == NAMES


@pytest.fixture
def own_qdrant() -> Iterator[Any]:
    """A stand-in that may be stopped, with the index in it."""
    from qdrant_stand_in import StandIn

    server = StandIn()
    server.start()
    to_qdrant(server.engine.client, "products", rows())
    yield server
    server.stop()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_qdrant_by_an_alias_goes_away_in_the_middle_of_a_scan(own_qdrant: Any, scheme: str) -> None:
    from qdrant_client import models

    alias = models.CreateAlias(collection_name="products", alias_name="shop")
    own_qdrant.engine.client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    with closing(open_index(f"{own_qdrant.url(scheme)}?collection=shop&vector=clip&id=sku")) as index:
        assert index.describe().name == "products"
        pages = index.scan(size=50)
        found = [document.id for document in next(pages)]
        own_qdrant.stop()
        timer = threading.Timer(1, own_qdrant.start)
        timer.start()
        found += [document.id for page in pages for document in page]
        timer.join()
    assert sorted(found) == NAMES


def test_qdrant_refuses_a_key(own_qdrant: Any, secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own_qdrant.engine.key = "another key"
    address = f"{own_qdrant.url('grpc')}?collection=products&vector=clip"
    with closing(open_index(address)) as index, pytest.raises(EngineError, match="RECO_INDEX_API_KEY") as caught:
        index.describe()
    assert not isinstance(caught.value, EngineUnavailable)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("RECO_INDEX_API_KEY", "another key")
    with closing(open_index(address)) as index:
        assert index.describe().documents == DOCUMENTS


def test_qdrant_finds_keys_of_any_name_and_says_how_vectors_are_compressed(own_qdrant: Any) -> None:
    from qdrant_client import models

    payload = {"name €": "in euros", "meta": {"my name": "within"}, "n": 7}
    client = own_qdrant.engine.client
    client.create_collection("keys", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))
    client.upsert("keys", [models.PointStruct(id=1, vector=QUERY.tolist(), payload=payload)])
    own_qdrant.engine.shown["keys"] = {
        "quantization_config": {"scalar": {"type": "int8"}},
        "hnsw_config": {"m": 24, "ef_construct": 200},
    }
    for key, text in (("name €", "in euros"), ("meta.my name", "within")):
        with closing(open_index(f"{own_qdrant.url('http')}?collection=keys&vector=&text={key}&id=n")) as index:
            assert index.describe().index == "hnsw m=24 ef_construct=200 scalar"
            (page,) = index.scan()
            assert [(one.id, one.text) for one in page] == [("7", text)]
            assert [(hit.id, hit.text) for hit in index.search(IndexQuery(QUERY, k=1))] == [("7", text)]


@pytest.fixture
def milvus_server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Milvus Lite behind a port, as a server is; its address, and what ends and starts it."""
    lite = pytest.importorskip("milvus_lite.adapter.grpc.server", reason="no Milvus Lite for this platform")
    from pymilvus import DataType, MilvusClient

    file = tmp_path / "served.db"
    server, database, port = lite.start_server_in_thread(str(file))
    with closing(MilvusClient(f"http://127.0.0.1:{port}")) as owner:
        schema = owner.create_schema()
        schema.add_field("sku", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("clip", DataType.FLOAT_VECTOR, dim=DIMENSION)
        schema.add_field("meta", DataType.JSON, nullable=True)
        params = owner.prepare_index_params()
        params.add_index("clip", index_type="IVF_FLAT", metric_type="L2", params={"nlist": 4})
        owner.create_collection("products", schema=schema, index_params=params)
        documents = zip(NAMES, unit(DOCUMENTS, 0), strict=True)
        owner.insert(
            "products", [{"sku": name, "clip": row.tolist(), "meta": {"title": name}} for name, row in documents]
        )
    running = [server, database]

    def end() -> None:
        running[0].stop(grace=0)
        running[1].close()

    def start() -> None:
        database = lite.MilvusLite(str(file))
        database.get_collection("products").load()  # a server knows by itself what was loaded
        running[:] = lite._build_server(database, 4), database
        running[0].add_insecure_port(f"127.0.0.1:{port}")
        running[0].start()

    yield f"milvus://127.0.0.1:{port}/products?text=meta.title", end, start
    end()


@pytest.mark.slow
def test_milvus_by_its_port_goes_away_in_the_middle_of_a_scan(milvus_server: Any) -> None:
    address, end, start = milvus_server
    with closing(open_index(address)) as index:
        hits = index.search(IndexQuery(QUERY, k=3))
        distances = np.linalg.norm(unit(DOCUMENTS, 0) - QUERY, axis=1)
        assert (
            [hit.id for hit in hits] == [hit.text for hit in hits] == [NAMES[row] for row in np.argsort(distances)[:3]]
        )
        pages = index.scan(size=50)
        found = list(next(pages))
        end()
        timer = threading.Timer(1, start)
        timer.start()
        found += [document for page in pages for document in page]
        timer.join()
    assert sorted(document.id for document in found) == NAMES
    assert all(document.text == document.id for document in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://reader@127.0.0.1:1/shop?table=products",
        "milvus://127.0.0.1:1/products?timeout_s=2",
        "http://127.0.0.1:1?collection=products&vector=clip",
        "weaviate://127.0.0.1:1/Product?timeout_s=1",
        "opensearch://127.0.0.1:1/products",
    ],
)
def test_an_engine_that_is_not_there(address: str, secrets: None) -> None:
    with closing(open_index(address)) as index, pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1") as caught:
        index.describe()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("lancedb:{}/away?table=products", marks=pytest.mark.fetched),
        "milvus:{}/away.db?collection=products",
    ],
)
def test_nothing_is_made_where_nothing_is(tmp_path: Path, address: str) -> None:
    with closing(open_index(address.format(tmp_path))) as index, pytest.raises(EngineError, match="there is no"):
        index.describe()
    assert list(tmp_path.iterdir()) == []
