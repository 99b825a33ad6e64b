"""Work that nobody waits for any more is dropped: the deadline passed, the client left, or the service stops."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_service import wait_until

TEXT = "a red circle"
ONE = {"input": [{"text": TEXT}]}


def post(url: str, path: str = "/v1/explain", body: object = ONE) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=60)


def test_what_a_client_that_left_has_queued_is_dropped(blocked, live):
    body = json.dumps(ONE).encode()
    request = b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with live(blocked.reco, threads=1, deadline_s=600) as (url, server), ThreadPoolExecutor(1) as callers:
        blocked.armed.set()
        executor = server.config.app.state.shared.executor
        first = callers.submit(post, url)
        assert blocked.reached.acquire(timeout=60)
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(request + b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: executor.pending == 2 or first.done())
            assert not first.done()
        wait_until(lambda: executor.pending < 2 or first.done())
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
