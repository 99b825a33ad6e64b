"""Queries go before bulk: between two of its items, and with the same vectors."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_service import wait_until
from PIL import Image

from reco_plugin.retrieval.guard import GuardedMemory
from reco_plugin.serve.embedder import Embedder, EmbedRequest
from reco_plugin.serve.executor import Lanes, still_wanted
from reco_plugin.serve.failures import Refused
from reco_plugin.serve.items import Item
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.types import Neighbours, Search

TEXT, PICTURE = Item("a red circle", "text"), Item(b"\x89PNG", "image")


@pytest.mark.parametrize(
    ("request_", "bulk"),
    [
        (EmbedRequest([TEXT], side="query"), False),
        (EmbedRequest([PICTURE]), False),
        (EmbedRequest([TEXT] * 16), False),
        (EmbedRequest([TEXT] * 17, side="query"), True),
        (EmbedRequest([PICTURE] * 2), True),
        (EmbedRequest([TEXT], side="document"), True),
    ],
)
def test_what_is_bulk(request_: EmbedRequest, bulk: bool) -> None:
    assert request_.is_bulk is bulk


def test_a_query_goes_between_two_items_of_bulk_and_before_bulk_that_waits() -> None:
    order, reached = list[str](), threading.Event()

    def answered() -> bool:
        still_wanted()
        return "query" in order

    def bulk(name: str) -> None:
        for number in range(3):
            order.append(f"{name}{number}")
            reached.set()
            wait_until(answered)

    async def ask() -> None:
        lanes = Lanes(threads=1, queue=10, deadline_s=600)
        first = asyncio.ensure_future(lanes.run(lambda: bulk("a"), 100, bulk=True))
        await asyncio.to_thread(reached.wait, 60)
        second = asyncio.ensure_future(lanes.run(lambda: bulk("b"), 1, bulk=True))
        await asyncio.sleep(0.05)
        query = asyncio.ensure_future(lanes.run(lambda: order.append("query")))
        await asyncio.gather(first, second, query)
        assert lanes.pending == 0

    asyncio.run(ask())
    assert order[:2] == ["a0", "query"]
    assert sorted(order) == ["a0", "a1", "a2", "b0", "b1", "b2", "query"]


def test_a_query_goes_between_two_searches_of_refined_bulk(filled, monkeypatch) -> None:
    order, reached, search = list[str](), threading.Event(), GuardedMemory.search
    vectors = filled.embed_texts(["a red circle"] * 150, refine=False)
    bulk = EmbedRequest([Item(vector, "text") for vector in vectors], side="query", refine=True)
    embedder, lanes = Embedder(filled, ServeSettings()), Lanes(threads=1, queue=1000, deadline_s=600)

    def searching(memory: GuardedMemory, asked: Search) -> Neighbours:
        order.append("search")
        reached.set()
        if len(order) == 1:
            wait_until(lambda: lanes._places.queries_wait)
        return search(memory, asked)

    async def ask() -> None:
        first = asyncio.ensure_future(lanes.run(lambda: embedder.embed(bulk), 150, bulk=True))
        await asyncio.to_thread(reached.wait, 60)
        await asyncio.gather(first, lanes.run(lambda: order.append("query")))

    monkeypatch.setattr(GuardedMemory, "search", searching)
    asyncio.run(ask())
    assert order == ["search", "query", "search"]


def test_a_lane_that_waits_is_let_go_when_it_is_given_up() -> None:
    go = threading.Event()

    async def ask() -> None:
        lanes = Lanes(threads=1, queue=1, deadline_s=600)
        first = asyncio.ensure_future(lanes.run(lambda: go.wait(60)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(lanes.run(lambda: None))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="queue"):
            await lanes.run(lambda: None)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.ensure_future(lanes.run(lambda: 3))
        go.set()
        assert (await third)[0] == 3
        await first
        await lanes.close(60)
        assert lanes.pending == 0

    asyncio.run(ask())


def test_beside_callers_with_hundreds_of_pictures_queries_are_answered_and_have_the_same_vectors(filled, live) -> None:
    """How soon, ``python -m benchmarks.torture lanes`` measures."""
    file = io.BytesIO()
    Image.effect_noise((320, 240), 80).convert("RGB").save(file, "JPEG")
    picture = base64.b64encode(file.getvalue()).decode()
    body = {"input": [{"image": picture}] * 256, "model": "clip"}
    text = {"input": ["a red circle"], "model": "clip-reco-query"}
    with (
        live(filled, max_pending_bytes=2_000_000_000, deadline_s=600) as (url, server),
        ThreadPoolExecutor(4) as callers,
    ):
        alone = httpx.post(f"{url}/v1/embeddings", json=text, timeout=60).json()["data"]
        sent = [callers.submit(httpx.post, f"{url}/v1/embeddings", json=body, timeout=600) for _ in range(4)]
        wait_until(lambda: server.config.app.state.edge.lanes.pending == 4 or any(one.done() for one in sent))
        for _ in range(3):
            assert httpx.post(f"{url}/v1/embeddings", json=text, timeout=60).json()["data"] == alone
        assert not all(one.done() for one in sent)
        assert {one.result(600).status_code for one in sent} == {200}


def test_large_pictures_wait_for_room_and_texts_and_small_pictures_pass_them(filled, live, red_square):
    file = io.BytesIO()
    Image.new("RGB", (1100, 1000)).save(file, "PNG")
    large = {"input": [{"image": base64.b64encode(file.getvalue()).decode()}], "model": "clip"}
    small = {"input": ["a red circle", {"image": red_square}], "model": "clip"}
    with live(filled, threads=1) as (url, server), ThreadPoolExecutor(3) as callers:
        edge = server.config.app.state.edge
        with edge.embedder.pixels.hold(edge.embedder.pixels.most):
            waiting = [callers.submit(httpx.post, f"{url}/v1/embeddings", json=large, timeout=60) for _ in range(3)]
            wait_until(lambda: edge.lanes.pending == 3)
            assert httpx.post(f"{url}/v1/embeddings", json=small, timeout=60).status_code == 200
            assert not any(one.done() for one in waiting)
        assert {one.result(60).status_code for one in waiting} == {200}
    assert edge.embedder.pixels.taken == 0
