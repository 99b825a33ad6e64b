"""Engines without an address: the function of each page searches the real one, as ``reco compare`` asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from redis.commands.search import Search

from benchmarks.engines import redis as redis_server
from benchmarks.engines import solr as solr_server
from benchmarks.engines.entries import function_of
from benchmarks.engines.nodes import ROOT
from benchmarks.engines.pages import Page
from reco_plugin.compare import FunctionIndex, load_function
from reco_plugin.engines import Question
from reco_plugin.errors import EngineError

from .conftest import DIMENSION, rows, unit

pytestmark = pytest.mark.slow
SHOP = [row for row in rows() if row.clip is not None and row.title is not None]
CLIP = np.asarray([row.clip for row in SHOP], np.float32)


def page_of(name: str, folder: Path, replaced: dict[str, str]) -> Page:
    """The page of an engine, of vectors of 16 dimensions."""
    known: dict[str, Any] = {
        "rows": [{"sku": row.sku, "title": row.title, "clip": np.asarray(row.clip, np.float32)} for row in SHOP]
    }
    return Page(ROOT / "docs" / "engines" / f"{name}.md", {"512": str(DIMENSION), **replaced}, known, folder)


def need(name: str) -> None:
    """Skip where it was not fetched."""
    if name == "chroma":
        pytest.importorskip("chromadb")
    module = {"redis": redis_server, "solr": solr_server}.get(name)
    if module is not None and not module.HOME.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no {name} in {module.HOME}: `python -m benchmarks.engines.{name}` fetches it")


def close(known: dict[str, Any]) -> None:
    """Close what a block of the page keeps open."""
    for one in known.values():
        if isinstance(one, httpx.Client | redis.Redis):
            one.close()
        elif isinstance(one, Search):
            one.client.close()


@contextmanager
def filled(name: str, folder: Path) -> Iterator[Page]:
    """The page, after its commands to start anew."""
    need(name)
    if name == "chroma":
        page = page_of(name, folder, {'"./shop"': f'"{folder}/shop"'})
        page.run_python("I start anew")
        yield page
    elif name == "redis":
        with redis_server.started() as port:
            page = page_of(name, folder, {'redis.Redis("redis", 6379': f'redis.Redis("127.0.0.1", {port}'})
            page.run_python("I start anew")
            close(page.names)
            yield page
    else:
        schema = next(one for one in page_of(name, folder, {}).blocks("I start anew") if one.language == "xml")
        with solr_server.started(schema.text) as url:
            page = page_of(name, folder, {"http://solr:8983/solr/products": url})
            page.run_python("I start anew")
            yield page


@pytest.mark.parametrize("name", ["chroma", "redis", "solr"])
def test_the_function_of_the_page_finds_the_nearest_with_their_cosines(name: str, tmp_path: Path) -> None:
    wheres = {"chroma": '{"sku": "nobody"}', "redis": "@title:fox", "solr": "title:fox"}
    try:
        with filled(name, tmp_path) as page:
            function = load_function(function_of(page))
            assert not isinstance(function, FunctionIndex)
            index = FunctionIndex(function, DIMENSION, name=name)
            for query in unit(3, 1):
                hits = index.search(Question(query, k=5))
                scores = CLIP @ query
                order = np.argsort(-scores, kind="stable")[:5]
                assert [hit.id for hit in hits] == [SHOP[row].sku for row in order]
                np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-4)
                assert [hit.text for hit in hits] == [SHOP[row].title for row in order]
            found = index.search(Question(query, k=5, where=wheres[name]))
            assert all("fox" in (hit.text or "") for hit in found)
            assert len(found) == (0 if name == "chroma" else 5)
            with pytest.raises(EngineError, match=f"{name} failed: "):
                index.search(Question(query[:8], k=5))
            close(function.__globals__)
    except redis_server.NotHere as reason:
        pytest.skip(str(reason))
