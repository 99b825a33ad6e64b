"""Queries go before bulk: between two of its items, and with the same vectors."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from live_service import wait_until
from PIL import Image

from reco_plugin.retrieval.guard import GuardedMemory
from reco_plugin.serve.embedder import Embedder, EmbedRequest
from reco_plugin.serve.executor import Executor, checkpoint
from reco_plugin.serve.failures import Refused
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.serve.wire import Item, numbered
from reco_plugin.types import Neighbours, Search


def request_of(*items: Item, **options: Any) -> EmbedRequest:
    return EmbedRequest(numbered("input", ([item] for item in items)), **options)


TEXT, PICTURE = Item("a red circle", "text"), Item(b"\x89PNG", "image")


@pytest.mark.parametrize(
    ("request_", "bulk"),
    [
        (request_of(TEXT, input_type="query"), False),
        (request_of(PICTURE), False),
        (request_of(*[TEXT] * 16), False),
        (request_of(*[TEXT] * 17, input_type="query"), True),
        (request_of(*[PICTURE] * 2), True),
        (request_of(TEXT, input_type="document"), True),
    ],
)
def test_what_is_bulk(request_: EmbedRequest, bulk: bool) -> None:
    assert request_.is_bulk is bulk


def test_a_query_goes_between_two_items_of_bulk_and_before_bulk_that_waits() -> None:
    order, reached = list[str](), threading.Event()

    def answered() -> bool:
        checkpoint()
        return "query" in order

    def bulk(name: str) -> None:
        for number in range(3):
            order.append(f"{name}{number}")
            reached.set()
            wait_until(answered)

    async def ask() -> None:
        executor = Executor(threads=1, queue=10, deadline_s=600)
        first = asyncio.ensure_future(executor.run(lambda: bulk("a"), inputs=100, is_bulk=True))
        await asyncio.to_thread(reached.wait, 60)
        second = asyncio.ensure_future(executor.run(lambda: bulk("b"), is_bulk=True))
        await asyncio.sleep(0.05)
        query = asyncio.ensure_future(executor.run(lambda: order.append("query")))
        await asyncio.gather(first, second, query)
        assert executor.pending == 0

    asyncio.run(ask())
    assert order[:2] == ["a0", "query"]
    assert sorted(order) == ["a0", "a1", "a2", "b0", "b1", "b2", "query"]


def test_a_flood_of_one_caller_neither_fills_the_queue_nor_keeps_others_waiting() -> None:
    order, go = list[str](), threading.Event()

    def call(caller: str, number: int) -> Callable[[], str]:
        def work() -> str:
            assert go.wait(60)
            order.append(caller)
            return f"{caller}{number}"

        return work

    async def ask() -> None:
        executor = Executor(threads=1, queue=10, deadline_s=600)

        def start(caller: str, number: int) -> asyncio.Future[Any]:
            return asyncio.ensure_future(executor.run(call(caller, number), caller=caller))

        flood = [start("a", number) for number in range(11)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refused, match="10 inputs wait already"):
            await executor.run(call("a", 11), caller="a")
        others = [start(caller, 0) for caller in "bbc"]
        given_up = start("d", 0)
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.sleep(0.05)
        with pytest.raises(Refused, match="shared by 3 keys"):
            await executor.run(call("c", 1), inputs=3, caller="c")
        go.set()
        await asyncio.gather(*flood, *others)
        assert (executor.pending, executor.inputs, executor._query_threads._free) == (0, 0, 1)

    asyncio.run(ask())
    assert order == [*"aabcabaaaaaaaa"]


def test_a_query_goes_between_two_searches_of_refined_bulk(filled, monkeypatch) -> None:
    order, reached, search = list[str](), threading.Event(), GuardedMemory.search
    vectors = filled.embed_texts(["a red circle"] * 150, refine=False)
    bulk = request_of(*(Item(vector, "text") for vector in vectors), input_type="query", refine=True)
    embedder, executor = Embedder(filled, ServeSettings()), Executor(threads=1, queue=1000, deadline_s=600)

    def searching(memory: GuardedMemory, query: Search) -> Neighbours:
        order.append("search")
        reached.set()
        if len(order) == 1:
            wait_until(lambda: executor._slots.waiting_queries)
        return search(memory, query)

    async def ask() -> None:
        first = asyncio.ensure_future(
            executor.run(lambda: embedder.embed(bulk), lambda answer: answer.vectors, inputs=150, is_bulk=True)
        )
        await asyncio.to_thread(reached.wait, 60)
        await asyncio.gather(first, executor.run(lambda: order.append("query")))

    monkeypatch.setattr(GuardedMemory, "search", searching)
    asyncio.run(ask())
    assert order == ["search", "query", "search"]


def test_a_call_that_waits_is_dropped_when_it_is_given_up() -> None:
    go = threading.Event()

    async def ask() -> None:
        executor = Executor(threads=1, queue=1, deadline_s=600)
        first = asyncio.ensure_future(executor.run(lambda: go.wait(60)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(executor.run(lambda: None))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="queue"):
            await executor.run(lambda: None)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.ensure_future(executor.run(lambda: 3))
        go.set()
        assert (await third).result == 3
        await first
        await executor.close(60)
        assert executor.pending == 0

    asyncio.run(ask())


def test_large_pictures_wait_for_room_and_texts_and_small_pictures_pass_them(filled, live, red_square):
    file = io.BytesIO()
    Image.new("RGB", (1100, 1000)).save(file, "PNG")
    large = {"input": [{"image": base64.b64encode(file.getvalue()).decode()}], "model": "clip"}
    small = {"input": ["a red circle", {"image": red_square}], "model": "clip"}
    with live(filled, threads=1) as (url, server), ThreadPoolExecutor(3) as callers:
        state = server.config.app.state.shared
        with state.embedder.pixels.hold(state.embedder.pixels.limit):
            waiting = [callers.submit(httpx.post, f"{url}/v1/embeddings", json=large, timeout=60) for _ in range(3)]
            wait_until(lambda: state.executor.pending == 3)
            assert httpx.post(f"{url}/v1/embeddings", json=small, timeout=60).status_code == 200
            assert not any(one.done() for one in waiting)
        assert {one.result(60).status_code for one in waiting} == {200}
    assert state.embedder.pixels.used == 0
