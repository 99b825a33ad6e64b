"""What single engines have of their own: metrics, compression, pictures as bytes, versions, names of options."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.data.rows import Rejected
from reco_plugin.engines import Question, is_index, open_index, parse_address
from reco_plugin.errors import ConfigError, EngineError, InputError
from reco_plugin.ingest.source import open_source
from reco_plugin.types import Pair

from .conftest import DIMENSION, Served, expected, rows, to_qdrant, unit

WITH_VECTOR = [row for row in rows() if row.clip is not None]
CLIP = np.asarray([row.clip for row in WITH_VECTOR], np.float32)
LONGER = CLIP * np.linspace(0.5, 2, len(CLIP), dtype=np.float32)[:, None]  # so that the metrics differ


@pytest.mark.parametrize(("name", "metric"), [("COSINE", "cosine"), ("IP", "dot"), ("L2", "euclid")])
@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "HNSW_SQ"])
def test_milvus_scores_as_its_metric_does(milvus: Served, name: str, metric: str, kind: str):
    longer = [row.__class__(**{**vars(row), "clip": LONGER[n].tolist()}) for n, row in enumerate(WITH_VECTOR)]
    query = unit(1, 3)[0]
    scores = expected(metric, LONGER, query)
    with closing(open_index(milvus.fill(f"scores_{name}", longer, kind, name))) as index:
        said = index.describe()
        assert (said.metric, said.index.split()[0]) == (metric, kind)
        assert said.index == kind
        hits = index.search(Question(query, k=10))
        truth = dict(zip((row.sku for row in WITH_VECTOR), scores.tolist(), strict=True))
        assert len({hit.id for hit in hits} & {WITH_VECTOR[row].sku for row in np.argsort(-scores)[:10]}) > 6
        np.testing.assert_allclose([hit.score for hit in hits], [truth[hit.id] for hit in hits], atol=0.05)
        filtered = index.search(Question(query, k=5, where="price < 5"))
        assert all(int(hit.id[4:]) < 50 for hit in filtered)
        assert filtered


def test_a_server_of_milvus_is_not_asked_without_the_file_of_its_authority(tmp_path: Path):
    address = f"milvus://localhost:1/shop?ca_file={tmp_path / 'none.pem'}"
    with closing(open_index(address)) as index, pytest.raises(ConfigError, match=r"none\.pem', which ca_file= names"):
        index.describe()


def test_milvus_stores_numbers_of_two_bytes():
    """As pymilvus hands them over; Milvus Lite has no such fields."""
    from pymilvus import DataType

    from reco_plugin.engines import milvus

    vector = unit(1, 3)[0]
    sent = milvus._to_bfloat16(vector)
    assert len(sent) == 2 * DIMENSION
    np.testing.assert_allclose(milvus._vector([sent], DataType.BFLOAT16_VECTOR), vector, rtol=2**-8)
    half = vector.astype(np.float16)
    np.testing.assert_array_equal(milvus._vector(half.tobytes(), DataType.FLOAT16_VECTOR), half.astype(np.float32))


def test_milvus_takes_no_other_consistency_and_no_words_without_a_function(milvus: Served):
    with pytest.raises(InputError, match="consistency must be 'strong'"):
        open_index(milvus.address + "&consistency=weak")
    with closing(open_index(milvus.address.replace("text=title", "text=photo"))) as index:
        assert not index.describe().searches_text
        with pytest.raises(ConfigError, match="no function of type BM25 over photo"):
            index.search(Question(text="fox"))
    with closing(open_index(milvus.address + "&consistency=bounded")) as index:
        assert len(index.search(Question(unit(1, 0)[0], k=3))) == 3


def test_a_file_of_milvus_lite_is_opened_again_where_its_server_drops_the_connection(
    milvus: Served, monkeypatch: pytest.MonkeyPatch
):
    """It refuses pings of a client that is idle, and whoever connects at that moment shares their connection."""
    from pymilvus.exceptions import MilvusException

    from reco_plugin.engines import asking
    from reco_plugin.engines import milvus as module

    real, failed = module.MilvusClient, []

    def connect(*args: Any, **options: Any) -> Any:
        if not failed:
            failed.append(args)
            raise MilvusException(code=2, message="Fail connecting to server: Too many pings")
        return real(*args, **options)

    monkeypatch.setattr(module, "MilvusClient", connect)
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)
    with closing(open_index(milvus.address)) as index:
        assert index.describe().documents > 0
    assert failed


def test_a_file_of_milvus_lite_is_let_go(tmp_path: Path):
    """Another process can open it once all that is open here is closed."""
    pytest.importorskip("milvus_lite", reason="no Milvus Lite for this platform")
    from milvus_lite.server_manager import server_manager_instance as servers
    from pymilvus import MilvusClient

    file = tmp_path / "own.db"
    with closing(MilvusClient(str(file))) as owner:
        owner.create_collection("products", dimension=4)
        owner.insert("products", [{"id": 1, "vector": [1.0, 0, 0, 0]}])
    servers.release_server(str(file))
    one, two = (open_index(f"milvus:{file}?collection=products") for _ in range(2))
    assert one.describe().documents == two.describe().documents == 1
    assert [document.id for page in one.scan() for document in page.documents] == ["1"]
    one.close()
    assert two.describe().documents == 1
    two.close()
    assert str(file) not in servers._servers


@pytest.fixture
def lance_folder(tmp_path: Path):
    """A folder of LanceDB, and a function that makes a table in it."""
    lance = pytest.importorskip("lancedb")
    import pyarrow as pa

    def make(name: str, kind: pa.DataType, documents: list[dict], config=None):
        schema = pa.schema(
            {"id": pa.string(), "photo": pa.binary(), "title": pa.string(), "clip": pa.list_(kind, DIMENSION)}
        )
        table = lance.connect(tmp_path).create_table(
            name, pa.Table.from_pylist(documents, schema=schema), on_bad_vectors="null"
        )
        if config is not None:
            table.create_index("clip", config=config)
        return table, f"lancedb:{tmp_path}?table={name}&vector=clip&text=title"

    return make


def documents_of(vectors: np.ndarray) -> list[dict]:
    """Rows with these vectors."""
    return [{"id": row.sku, "title": row.title, "clip": vectors[n]} for n, row in enumerate(WITH_VECTOR)]


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclid"])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_lancedb_scores_as_its_metric_does(lance_folder, metric: str, bits: int):
    import pyarrow as pa

    kind = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[bits]
    _, address = lance_folder("products", kind, documents_of(LONGER.astype(f"f{bits // 8}")))
    query = unit(1, 3)[0]
    scores = expected(metric, LONGER, query)
    with closing(open_index(address + f"&metric={metric}")) as index:
        said = index.describe()
        assert said.metric == metric
        hits = index.search(Question(query, k=10))
        if bits > 16:  # else some are equally near
            assert [hit.id for hit in hits] == [WITH_VECTOR[row].sku for row in np.argsort(-scores)[:10]]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], atol=5e-3)
        assert not said.searches_text
        with pytest.raises(ConfigError, match="no index of type FTS over title"):
            index.search(Question(text="fox"))


def test_lancedb_knows_the_indices_of_columns_that_it_quotes(tmp_path: Path):
    lance = pytest.importorskip("lancedb")
    import pyarrow as pa
    from lancedb.index import FTS, IvfFlat

    schema = pa.schema({"id": pa.string(), "The title": pa.string(), "clip-vec": pa.list_(pa.float32(), DIMENSION)})
    rows = [{"id": row.sku, "The title": row.title, "clip-vec": CLIP[n]} for n, row in enumerate(WITH_VECTOR)]
    table = lance.connect(tmp_path).create_table("odd", pa.Table.from_pylist(rows, schema=schema))
    table.create_index("clip-vec", config=IvfFlat(distance_type="cosine", num_partitions=1))
    table.create_index("The title", config=FTS())
    with closing(open_index(f"lancedb:{tmp_path}?table=odd&text=The title")) as index:
        said = index.describe()
        assert (said.metric, said.index, said.searches_text) == ("cosine", "IVF_FLAT", True)
        (hit,) = index.search(Question(CLIP[3], k=1))
        assert (hit.id, hit.score) == (WITH_VECTOR[3].sku, pytest.approx(1.0, abs=1e-5))
        assert index.search(Question(text=WITH_VECTOR[3].title or "", k=1))


@pytest.mark.slow
def test_lancedb_loses_by_compression_what_rescoring_brings_back(lance_folder):
    import pyarrow as pa
    from lancedb.index import IvfFlat, IvfHnswSq, IvfPq

    random = np.random.default_rng(5)
    vectors = random.normal(size=(2000, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = [{"id": str(n), "clip": vector} for n, vector in enumerate(vectors)]

    def found(index, query: np.ndarray) -> float:
        hits = index.search(Question(query, k=10))
        return len({int(hit.id) for hit in hits} & set(np.argsort(-(vectors @ query))[:10].tolist())) / 10

    pq = IvfPq(distance_type="cosine", num_partitions=1, num_sub_vectors=2)
    _, address = lance_folder("pq", pa.float32(), documents, pq)
    queries = unit(20, 6)
    with closing(open_index(address)) as index:
        assert index.describe().index == "IVF_PQ"
        assert np.mean([found(index, query) for query in queries]) < 0.6
    with closing(open_index(f"{address}&refine_factor=200")) as index:
        assert np.mean([found(index, query) for query in queries]) > 0.95
    with (
        pytest.raises(EngineError, match="metric=dot is not that of the index"),
        closing(open_index(address + "&metric=dot")) as index,
    ):
        index.describe()
    for name, config, expected_ in (
        ("flat", IvfFlat(distance_type="l2", num_partitions=4), ("euclid", "IVF_FLAT")),
        ("sq", IvfHnswSq(distance_type="dot", num_partitions=1), ("dot", "IVF_HNSW_SQ")),
    ):
        _, address = lance_folder(name, pa.float32(), documents, config)
        with closing(open_index(address)) as index:
            said = index.describe()
            assert (said.metric, said.index) == expected_


def test_lancedb_is_read_at_the_version_of_the_first_page(lance_folder):
    import pyarrow as pa

    table, address = lance_folder("products", pa.float32(), documents_of(CLIP))
    with closing(open_index(address)) as index:
        pages = index.scan(size=50)
        first = next(pages)
        table.delete(f"id = '{WITH_VECTOR[-1].sku}'")
        found = [document.id for page in [first, *pages] for document in page.documents]
        assert found == [row.sku for row in WITH_VECTOR]
        anew = [document.id for page in index.scan() for document in page.documents]
        assert anew == found[:-1]


def test_pictures_may_be_bytes_in_an_index(lance_folder, drawings: list[Pair], model: Path, tmp_path: Path):
    import pyarrow as pa

    documents = []
    for pair in drawings[:3]:
        pair.image.save(tmp_path / "one.png")
        documents.append({"id": pair.id, "title": pair.text, "photo": (tmp_path / "one.png").read_bytes()})
    documents.append({"id": "empty", "title": "without a picture", "photo": b""})
    _, address = lance_folder("drawn", pa.float32(), documents)
    with closing(open_index(address + "&image=photo")) as index:
        (page,) = index.scan()
        assert [document.image for document in page.documents] == [*(row["photo"] for row in documents[:3]), None]
        assert all("photo" not in document.payload for document in page.documents)
    found = [row for part in open_source(address + "&image=photo&of=neither", model=model).parts for row in part.read()]
    assert [row.image for row in found[:3]] == [row["photo"] for row in documents[:3]]
    assert all("image" not in row.payload for row in found[:3])
    assert isinstance(found[3], Rejected)


@pytest.mark.slow
def test_pictures_may_be_bytes_in_postgresql(postgresql: Served):
    postgresql.query("DROP TABLE IF EXISTS drawn")
    postgresql.query("CREATE TABLE drawn (sku text PRIMARY KEY, photo bytea, clip vector(4))")
    postgresql.query("INSERT INTO drawn VALUES ('a', '\\x89504e47', '[1,0,0,0]'), ('b', NULL, '[0,1,0,0]')")
    postgresql.query("GRANT SELECT ON drawn TO reader")
    address = postgresql.address.partition("?")[0]
    host = parse_address(postgresql.address).options["host"]
    with closing(open_index(f"{address}?host={host}&table=drawn&image=photo")) as index:
        (page,) = index.scan()
        assert [document.image for document in page.documents] == [b"\x89PNG", None]
        hits = index.search(Question(np.asarray([1, 0, 0, 0], np.float32), k=2))
        assert [hit.image for hit in hits] == [b"\x89PNG", None]


def test_an_address_of_qdrant_is_an_index_where_it_says_vector():
    pairs = "http://qdrant:6333?collection=shop&image=photo&text=title"
    assert not is_index(pairs)
    assert is_index(pairs + "&vector=clip")
    assert is_index("grpcs://qdrant?collection=shop&vector=")
    assert not is_index("https://host/table.csv")
    found = parse_address(pairs + "&vector=clip")
    assert (found.vector, found.text, found.image, found.port) == ("clip", "title", "photo", 6333)
    assert parse_address("grpcs://qdrant?collection=shop").port == 6334


@pytest.fixture
def own_qdrant():
    """A stand-in with the index in it."""
    from qdrant_stand_in import StandIn

    server = StandIn()
    server.start()
    to_qdrant(server.engine.client, "products", rows(), "Euclid")
    yield server
    server.stop()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_qdrant_by_both_transports_and_by_an_alias(own_qdrant, scheme: str):
    from qdrant_client import models

    alias = models.CreateAlias(collection_name="products", alias_name="shop")
    own_qdrant.engine.client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    address = f"{own_qdrant.url(scheme)}?collection=shop&vector=clip&text=title&id=sku"
    query = unit(1, 3)[0]
    with closing(open_index(address)) as index:
        said = index.describe()
        assert (said.name, said.metric, said.documents) == ("products", "euclid", 300)
        hits = index.search(Question(query, k=5))
        scores = -np.linalg.norm(CLIP - query, axis=1)
        assert [hit.id for hit in hits] == [WITH_VECTOR[row].sku for row in np.argsort(-scores)[:5]]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:5], atol=1e-4)


@pytest.mark.parametrize(
    ("said", "compression"),
    [({}, ""), ({"scalar": {"type": "int8"}}, " scalar"), ({"product": {"compression": "x16"}}, " product")],
)
def test_qdrant_says_how_vectors_are_compressed(own_qdrant, said: dict, compression: str):
    """The stand-in compresses nothing, but says so, in the shapes of a server."""
    own_qdrant.engine.shown["products"] = {
        "quantization_config": said or None,
        "hnsw_config": {"m": 24, "ef_construct": 200},
    }
    with closing(open_index(f"{own_qdrant.url('http')}?collection=products&vector=clip")) as index:
        assert index.describe().index == f"hnsw m=24 ef_construct=200{compression}"


def test_qdrant_finds_values_within_values_and_numbers_points_by_any_id(own_qdrant):
    from qdrant_client import models

    client, ids = own_qdrant.engine.client, [3, "00000000-0000-0000-0000-0000000000ff", 2**63 - 2, 7]
    client.create_collection("within", models.VectorParams(size=DIMENSION, distance=models.Distance.DOT))
    payloads = [{"meta": {"name": f"thing {n}"}} for n in range(4)]
    points = zip(ids, CLIP.tolist(), payloads, strict=False)
    client.upsert("within", [models.PointStruct(id=i, vector=vector, payload=own) for i, vector, own in points])
    with closing(open_index(f"{own_qdrant.url('http')}?collection=within&vector=&text=meta.name")) as index:
        said = index.describe()
        assert (said.vector, said.metric) == ("", "dot")
        pages = list(index.scan(size=1))
        assert {document.text for page in pages for document in page.documents} == {f"thing {n}" for n in range(4)}
        with pytest.raises(ConfigError, match="the filter is no JSON"):
            index.search(Question(CLIP[0], where="name = 1"))


@pytest.mark.parametrize(
    ("key", "text"), [("a.b", "dotted"), ("name €", "in euros"), ("meta.my name", "within"), ("tags", "red, fox")]
)
def test_qdrant_shows_what_stands_under_any_key_and_of_several_texts_all(own_qdrant, key: str, text: str):
    """A hit has the caption that the document has, whichever the key."""
    from qdrant_client import models

    payload = {"a.b": "dotted", "name €": "in euros", "meta": {"my name": "within"}, "tags": ["red", "", "fox"], "n": 7}
    client = own_qdrant.engine.client
    client.create_collection("keys", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))
    client.upsert("keys", [models.PointStruct(id=1, vector=CLIP[0].tolist(), payload=payload)])
    with closing(open_index(f"{own_qdrant.url('http')}?collection=keys&vector=&text={key}&id=n")) as index:
        (page,) = index.scan()
        assert [(one.id, one.text) for one in page.documents] == [("7", text)]
        assert [(hit.id, hit.text) for hit in index.search(Question(CLIP[0], k=1))] == [("7", text)]


def test_a_caption_of_several_texts_is_all_of_them_in_postgresql(postgresql: Served):
    postgresql.query("DROP TABLE IF EXISTS tagged")
    postgresql.query("CREATE TABLE tagged (sku text PRIMARY KEY, tags text[], clip vector(4))")
    postgresql.query("INSERT INTO tagged VALUES ('a', '{red,NULL,fox}', '[1,0,0,0]'), ('b', '{}', '[0,1,0,0]')")
    postgresql.query("GRANT SELECT ON tagged TO reader")
    host = parse_address(postgresql.address).options["host"]
    with closing(open_index(f"{postgresql.address.partition('?')[0]}?host={host}&table=tagged&text=tags")) as index:
        (page,) = index.scan()
        hits = index.search(Question(np.asarray([1, 0, 0, 0], np.float32), k=2))
        assert [one.text for one in page.documents] == ["red, fox", None]
        assert [hit.text for hit in hits] == ["red, fox", None]


def test_a_vector_of_zeros_is_not_found_by_its_cosine_in_postgresql(postgresql: Served):
    """Its distance is no number, and comes last."""
    assert postgresql.query is not None
    postgresql.query("DROP TABLE IF EXISTS zeros")
    postgresql.query("CREATE TABLE zeros (key text PRIMARY KEY, clip vector(2))")
    postgresql.query("INSERT INTO zeros VALUES ('a', '[1,0]'), ('none', '[0,0]'), ('b', '[-1,0]'), ('null', NULL)")
    postgresql.query("GRANT SELECT ON zeros TO reader")
    with closing(open_index(postgresql.address.partition("&table=")[0] + "&table=zeros")) as index:
        hits = index.search(Question(np.asarray([1, 0], np.float32), k=4))
    assert [(hit.id, hit.score) for hit in hits] == [("a", 1), ("b", -1)]


@pytest.fixture
def odd_columns(postgresql: Served) -> str:
    """An address of a table in a schema: names with blanks and percent signs, two columns of vectors, one an index."""
    postgresql.query('DROP SCHEMA IF EXISTS "Our Shop" CASCADE')
    postgresql.query('CREATE SCHEMA "Our Shop"')
    postgresql.query(
        'CREATE TABLE "Our Shop"."Goods" ("my id" int, "the %title" text, "off %" int, "clip%s" vector(4), '
        '"clip%s_text" vector(4), lang text, PRIMARY KEY ("my id", lang))'
    )
    postgresql.query(
        """INSERT INTO "Our Shop"."Goods" VALUES (1, '100% wool', 5, '[1,0,0,0]', '[0,0,1,0]', 'en'),
        (2, 'a red %s', 20, '[0,1,0,0]', '[0,0,0,1]', 'en'), (3, NULL, NULL, '[0,.6,.8,0]', '[1,0,0,0]', 'en')"""
    )
    postgresql.query('CREATE INDEX ON "Our Shop"."Goods" USING hnsw ("clip%s_text" vector_l2_ops)')
    postgresql.query('GRANT USAGE ON SCHEMA "Our Shop" TO reader')
    postgresql.query('GRANT SELECT ON "Our Shop"."Goods" TO reader')
    host = parse_address(postgresql.address).options["host"]
    return f"{postgresql.address.partition('?')[0]}?host={host}&table=Our Shop.Goods"


NAMED = "&vector=clip%25s&text=the %25title&id=my id"


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (None, ["2", "3", "1"]),
        ("\"the %title\" LIKE '100%%' OR \"the %title\" LIKE '%red%'", ["2", "1"]),
        ("\"my id\" % 2 = 1 AND lang LIKE '%(vector)s' IS FALSE", ["3", "1"]),
        ('"off %" > 10 -- dear', ["2"]),
    ],
)
def test_percent_signs_of_a_table_and_of_a_filter_open_nothing(odd_columns: str, where: str | None, found: list[str]):
    with closing(open_index(odd_columns + NAMED)) as index:
        hits = index.search(Question(np.asarray([0, 1, 0, 0], np.float32), k=3, where=where))
        assert [hit.id for hit in hits] == found
        assert [hit.score for hit in hits] == pytest.approx([{"1": 0, "2": 1, "3": 0.6}[id_] for id_ in found])
        (hit,) = index.search(Question(text="100% wool", k=3, where=where and "\"the %title\" LIKE '%wool%'"))
        assert (hit.id, hit.text) == ("1", "100% wool")


def test_a_table_of_odd_names_is_read_whole(odd_columns: str):
    with closing(open_index(odd_columns + NAMED)) as index:
        (page,) = index.scan()
        assert [(one.id, one.text, one.payload.get("off %")) for one in page.documents] == [
            ("1", "100% wool", 5), ("2", "a red %s", 20), ("3", None, None)
        ]  # fmt: skip
        assert np.array_equal(page.documents[0].vector, [1, 0, 0, 0])


def test_an_index_over_a_column_of_a_longer_name_is_not_the_vectors_own(odd_columns: str, postgresql: Served):
    """Taken for it, every hit had the distance of that other column from itself: none."""
    with closing(open_index(odd_columns + NAMED)) as index:
        assert (index.describe().metric, index.describe().index) == ("cosine", "none: each vector is compared")
    postgresql.query('CREATE INDEX ON "Our Shop"."Goods" USING hnsw (("clip%s"::halfvec(4)) halfvec_ip_ops)')
    with closing(open_index(odd_columns + NAMED)) as index:
        assert (index.describe().metric, index.describe().index) == ("dot", "hnsw halfvec_ip_ops")
        hits = index.search(Question(np.asarray([0, 1, 0, 0], np.float32), k=3, where='"the %title" IS NOT NULL'))
        assert [(hit.id, hit.score) for hit in hits] == [("2", 1), ("1", 0)]


def test_a_table_of_another_schema_is_proposed_as_it_is_written(odd_columns: str):
    for address, said in (
        (odd_columns.replace("Our Shop.Goods", "Goods"), r"has no table 'Goods': choose from 'Our Shop\.Goods'$"),
        (f"{odd_columns}&vector=clip%25s", r"no key of one column: .* id=NAME \(choose from 'my id', 'the %title', "),
    ):
        with closing(open_index(address)) as index, pytest.raises(EngineError, match=said):
            index.describe()
