"""The example shop: an index of each engine is filled, read through its address, and searched in a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import uvicorn
from chromium_started import chromium
from some_drawings import load_some
from typer.testing import CliRunner

from examples.shop.__main__ import app, open_source
from examples.shop.web import make_app
from reco_plugin.engines import open_index, parse_address

from .conftest import Served

pytestmark = pytest.mark.slow
FIELDS = "vector=clip&text=title&image=photo&id=sku"


@pytest.fixture(scope="module")
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index that may be written."""
    kind: str = request.param
    if kind == "lancedb":
        return f"lancedb:{tmp_path_factory.mktemp('lance')}?table=drawings"
    if kind == "milvus":
        return f"milvus:{tmp_path_factory.mktemp('milvus') / 'shop.db'}?collection=drawings"
    served: Served = request.getfixturevalue(kind)
    if kind == "opensearch":
        return served.address.rpartition("/")[0] + "/drawings"
    return served.address.partition("&table=")[0].replace("reader@", "postgres@") + "&table=drawings"


@pytest.fixture(scope="module")
def shop(address: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The page of an index that the example filled with every 24th thing; its URL, and what filling said."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.search_app.catalogue.load", partial(load_some, every=24))
        filled = CliRunner().invoke(
            app, ["fill", "--index", address, "--folder", str(folder), "--model", str(model)], catch_exceptions=False
        )
    assert filled.exit_code == 0, filled.output
    with (
        open_source(None, None, model, str(folder / "memory")) as source,
        closing(open_index(f"{address}{'&' if '?' in address else '?'}{FIELDS}")) as index,
    ):
        scheme = parse_address(address).scheme
        page = make_app(index, source, pictures=folder / "pictures", scheme=scheme)
        server = uvicorn.Server(uvicorn.Config(page, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", filled.output
        server.should_exit = True
        thread.join()


ENGINES = pytest.mark.parametrize(
    "address",  # on the worker that has started the engine
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("postgresql", "milvus", "opensearch")],
    indirect=True,
)


@ENGINES
def test_filling_says_what_is_there_and_what_comes_next(shop: tuple[str, str]) -> None:
    assert "drawings in drawings of " in shop[1]
    assert "python -m examples.shop serve --index" in shop[1]


@ENGINES
def test_both_sides_are_searched_in_the_engine(shop: tuple[str, str]) -> None:
    url, _ = shop
    about = httpx.get(f"{url}/about").json()
    found = httpx.get(f"{url}/search", params={"q": "doughnut", "k": 5}).json()
    assert [len(found[side]) for side in ("plain", "refined")] == [5, 5]
    assert found["degraded"] is None
    assert about["documents"] > 100
    scores = [hit["score"] for hit in found["refined"]]
    assert scores == sorted(scores, reverse=True)
    one = httpx.get(f"{url}/search", params={"q": "doughnut", "k": 100, "where": about["filter"]}).json()
    everything = httpx.get(f"{url}/search", params={"q": "doughnut", "k": 100}).json()
    assert {hit["id"] for hit in one["plain"]} != {hit["id"] for hit in everything["plain"]}
    picture = httpx.get(f"{url}/{found['plain'][0]['picture']}")
    assert picture.headers["content-type"] == "image/png"


@ENGINES
def test_what_cannot_be_asked_is_said(shop: tuple[str, str]) -> None:
    url, _ = shop
    wrong = httpx.get(f"{url}/search", params={"q": "x", "where": "no such 'filter"})
    assert wrong.status_code == 400
    assert isinstance(wrong.json()["detail"], str)
    assert httpx.get(f"{url}/search").status_code == 422
    for path in ("../memory/memory.json", "%2e%2e/memory", "/etc/passwd", "nothing.png", ""):
        assert httpx.get(f"{url}/picture/{path}").status_code == 404


@ENGINES
def test_the_page_shows_both_sides_with_pictures(shop: tuple[str, str]) -> None:
    url, _ = shop
    with chromium() as browser:
        page: Any = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.fill("input[name=q]", "<b>doughnut</b> & co")
        page.press("input[name=q]", "Enter")
        page.wait_for_selector("#refined li")
        assert page.locator("#plain li").count() == page.locator("#refined li").count() == 10
        page.wait_for_function("[...document.images].slice(0, 4).every((one) => one.complete && one.naturalWidth > 0)")
        assert "results are in both" in page.inner_text("#said")
        assert urlencode({"q": "<b>doughnut</b> & co"}) in page.url
        page.fill("input[name=where]", "no such 'filter")
        page.click("button")
        page.wait_for_selector("#problem:not(:empty)")
        assert page.locator("#sides").is_hidden()
        assert errors == []
