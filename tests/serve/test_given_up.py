"""Work that nobody waits for any more is dropped: the deadline passed, the client left, or the service stops."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_service import wait_until

from reco_plugin.serve.embedder import Embedder, Item
from reco_plugin.serve.lanes import Lanes
from reco_plugin.serve.settings import ServeSettings

TEXT = "a red circle"
ONE = {"input": [{"text": TEXT}]}


def post(url: str, path: str = "/v1/explain", body: object = ONE) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=60)


class Gated(list[Item]):
    """Items, of which the third lets itself be waited for."""

    def __init__(self, items: list[Item]) -> None:
        super().__init__(items)
        self.taken, self.reached, self.go = 0, threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Item]:
        for item in super().__iter__():
            self.taken += 1
            if self.taken == 3:
                self.reached.set()
                assert self.go.wait(60)
            yield item


def test_items_that_nobody_waits_for_are_not_begun(filled):
    items = Gated([Item.text(TEXT)] * 100)
    prepare = Embedder(filled, ServeSettings()).prepare

    async def ask() -> None:
        lanes = Lanes(threads=1, queue=1, deadline_s=600)
        asked = asyncio.ensure_future(lanes.run(lambda: prepare(items, truncate=True)))
        await asyncio.to_thread(items.reached.wait, 60)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert lanes.pending == 1  # the thread still works on what was sent
        items.go.set()
        await lanes.close(60)
        assert lanes.pending == 0

    asyncio.run(ask())
    assert items.taken <= 4


def test_what_a_client_that_left_has_queued_is_dropped(blocked, live):
    body = json.dumps(ONE).encode()
    request = b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with live(blocked.reco, threads=1, deadline_s=600) as (url, server), ThreadPoolExecutor(1) as callers:
        blocked.armed.set()
        lanes = server.config.app.state.edge.lanes
        first = callers.submit(post, url)
        assert blocked.reached.acquire(timeout=60)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(request + b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: lanes.pending == 2 or first.done())
            assert not first.done()
        wait_until(lambda: lanes.pending < 2 or first.done())
        assert not first.done()
        blocked.go.set()
        assert first.result(60).status_code == 200
        assert not blocked.reached.acquire(blocking=False)


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/v1/explain", ONE, "error"),
        ("/refined/v1/embeddings", {"input": TEXT}, "error"),
        ("/refined/v2/embed", {"texts": [TEXT]}, "message"),
        ("/refined/vectorize", {"texts": [TEXT]}, "error"),
        ("/refined/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "text", "text": TEXT}]}]}, "detail"),
        ("/refined/titan", {"inputText": TEXT}, "message"),
    ],
)
def test_past_the_time_to_stop_what_was_begun_is_503_in_the_words_of_the_dialect(blocked, live, path, body, key):
    with live(blocked.reco, threads=1, shutdown_s=1) as (url, server), ThreadPoolExecutor(1) as callers:
        blocked.armed.set()
        flying = callers.submit(post, url, path, body)
        assert blocked.reached.acquire(timeout=60)
        server.should_exit = True
        answer = flying.result(60)
        blocked.go.set()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "stopping" in str(answer.json()[key])
