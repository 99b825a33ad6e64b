"""What is too much, too many or too late; and what happens to requests in flight when the service stops."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from live_service import wait_until

from reco_plugin.serve.schemas import RefinedItem
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.serve.wire import write_json

SERVE_MD = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
ONE = {"input": [{"text": "a red circle"}]}


def post(url: str, body: object = ONE) -> httpx.Response:
    return httpx.post(f"{url}/v1/explain", json=body, timeout=60)


def test_every_limit_is_documented_with_its_default():
    rows = [line for line in SERVE_MD.read_text("utf-8").splitlines() if line.startswith("| `")]
    for name, field in ServeSettings.model_fields.items():
        if field.annotation not in (int, float) or name == "port":
            continue
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        assert f"{field.default:,}".removesuffix(".0") in row, name


def test_a_body_that_is_too_large_is_refused_by_its_declared_length_and_by_its_true_one(filled, served):
    with served(filled, max_body_bytes=1000) as client:
        declared = client.post("/v1/explain", json={"input": [{"text": "x" * 2000}]})
        chunks = client.post("/v1/explain", content=iter([b"x" * 400] * 5))
        lying = client.post("/v1/explain", content=b"x" * 2000, headers={"content-length": "10"})
        fits = client.post("/v1/explain", json=ONE)
    for answer in (declared, chunks, lying):
        assert answer.status_code == 413
        assert "max_body_bytes" in answer.json()["error"]["message"]
    assert fits.status_code == 200


def test_too_many_items_and_too_large_images_are_413(filled, served, red_square):
    with served(filled, max_items=2, max_image_bytes=20) as client:
        many = client.post("/v1/explain", json={"input": [{"text": "a"}] * 3})
        fat = client.post("/v1/explain", json={"input": [{"image": red_square}]})
    assert (many.status_code, many.json()["error"]["code"]) == (413, "too_many_items")
    assert (fat.status_code, fat.json()["error"]["code"]) == (413, "image_too_large")


def test_pairs_are_looked_up_and_listed_within_a_max_items_below_a_page(filled, served):
    with served(filled, max_items=2) as client:
        by_id = client.get("/v1/memory/pairs", params={"id": "small-red-circle"}).json()["data"]
        listed = client.get("/v1/memory/pairs").json()["data"]
        assert client.get("/v1/memory/pairs", params={"limit": 3}).status_code == 413
        assert client.get("/v1/memory/pairs", params={"id": ["a", "b", "c"]}).status_code == 413
    assert ([one["id"] for one in by_id], len(listed)) == (["small-red-circle"], 2)


def test_more_pairs_than_an_answer_may_show_are_413_before_any_is_looked_for(troubled, served, monkeypatch):
    made, searched = troubled(), []
    monkeypatch.setattr("reco_plugin.serve.embedder.MAX_EXPLAINED_PAIRS", 20)
    with served(made.reco) as client:
        made.seam.trouble = lambda: searched.append(1)
        for path, body in (
            ("/v1/explain", {"input": [{"text": "a"}] * 3, "k": 7}),
            ("/v1/explain", {"input": [{"text": "a"}] * 3}),  # of the model's own k, 10
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_pairs")
            assert "the limit is 20" in answer.json()["error"]["message"]
        assert not searched
        assert client.post("/v1/explain", json={"input": [{"text": "a"}] * 2, "k": 10}).status_code == 200
        assert client.post("/refined/v1/embeddings", json={"input": ["a"] * 3}).status_code == 200  # which shows none


def test_vectors_are_written_short_and_whatever_a_payload_holds(filled):
    vector = filled.embed_texts(["a red circle"], refine=False)
    text = write_json({"vectors": vector})
    assert np.asarray(json.loads(text)["vectors"], np.float32).tobytes() == vector.tobytes()
    assert len(text) < 13 * vector.size + 20
    for payload in ({"n": 2**70, "none": None}, {"far": -(2**80)}, {"deep": json.loads("[" * 120 + "]" * 120)}):
        item = RefinedItem.model_construct(index=1, embedding=vector[0], why=payload)
        found = json.loads(write_json(item))
        assert (found["why"], found["index"], "error" in found) == (payload, 1, False)
        assert np.asarray(found["embedding"], np.float32).tobytes() == vector.tobytes()


def test_a_full_queue_is_429_with_retry_after_and_nothing_that_was_accepted_is_lost(blocked, live):
    with live(blocked.reco, threads=1, queue=1) as (url, server), ThreadPoolExecutor(8) as callers:
        blocked.armed.set()
        state = server.config.app.state.shared
        waiting = [callers.submit(post, url) for _ in range(2)]
        assert blocked.reached.acquire(timeout=60)
        wait_until(lambda: state.executor.pending == 2 or waiting[0].done())
        assert not waiting[0].done()
        refused = post(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        for path in ("/v1/explain", "/v1/embeddings", "/v2/embed", "/titan"):
            answer = httpx.post(url + path, content=b"no JSON")  # which was not looked at
            assert answer.status_code == 429
            assert answer.headers["x-amzn-errortype"] == "ThrottlingException"  # without it, OpenSearch gives up
        assert httpx.get(f"{url}/livez").status_code == 200  # which needs no place in the queue
        blocked.go.set()
        assert [one.result(60).status_code for one in waiting] == [200, 200]
        assert post(url).status_code == 200


def test_what_waits_is_counted_in_inputs(blocked, live):
    """A hundred requests with one object wait as long as one with a hundred, and engines lose what is refused."""
    many = {"input": [{"text": "a"}] * 50}
    with live(blocked.reco, threads=1, queue=10) as (url, server), ThreadPoolExecutor(16) as callers:
        blocked.armed.set()
        executor = server.config.app.state.shared.executor
        sent = [callers.submit(post, url, many)]
        assert blocked.reached.acquire(timeout=60)
        sent.append(callers.submit(post, url, many))  # where none waits, one may have more
        wait_until(lambda: executor.pending == 2 or sent[1].done())
        refused = post(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert "50 inputs wait already, the limit is 10 (queue)" in refused.json()["error"]["message"]
        blocked.go.set()
        assert [one.result(60).status_code for one in sent] == [200, 200]
        blocked.go.clear()
        wait_until(lambda: not executor.pending)
        while blocked.reached.acquire(blocking=False):
            pass
        sent = [callers.submit(post, url)]
        assert blocked.reached.acquire(timeout=60)
        for waiting in range(2, 11):
            sent.append(callers.submit(post, url))
            wait_until(lambda number=waiting: executor.pending == number or sent[-1].done())
        two = post(url, {"input": [{"text": "a"}] * 2})
        assert (two.status_code, two.json()["error"]["code"]) == (429, "queue_full")  # nine wait
        sent.append(callers.submit(post, url))
        wait_until(lambda: executor.pending == 11 or sent[-1].done())
        blocked.go.set()
        assert {one.result(60).status_code for one in sent} == {200}


def until_one_hangs(blocked: Any, url: str) -> None:
    """Until a call has begun and hangs: on a busy machine a deadline may pass before one begins."""
    blocked.armed.set()
    while not blocked.reached.acquire(blocking=False):
        late = post(url)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert "deadline_s" in late.json()["error"]["message"]


def test_a_deadline_that_passes_is_504_and_the_next_request_is_answered(blocked, live):
    with live(blocked.reco, threads=1, deadline_s=1.0) as (url, server):
        until_one_hangs(blocked, url)
        assert server.config.app.state.shared.executor.pending == 1  # it goes on, and keeps its place
        blocked.go.set()
        wait_until(lambda: post(url).status_code == 200)


def test_what_waited_too_long_is_never_begun(blocked, live):
    with live(blocked.reco, threads=1, queue=4, deadline_s=1.0) as (url, server), ThreadPoolExecutor(4) as callers:
        until_one_hangs(blocked, url)
        assert {one.result(60).status_code for one in [callers.submit(post, url) for _ in range(2)]} == {504}
        blocked.go.set()
        wait_until(lambda: not server.config.app.state.shared.executor.pending)
        assert not blocked.reached.acquire(blocking=False)


def test_workers_that_hang_make_the_service_not_ready(blocked, live):
    with live(blocked.reco, threads=1, deadline_s=0.5) as (url, _):
        until_one_hangs(blocked, url)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code != 200)
        reasons = httpx.get(f"{url}/readyz").json()["reasons"]
        assert reasons == ["every thread has been busy with one request for twice the deadline"]
        wait_until(lambda: httpx.get(f"{url}/livez").status_code != 200)  # ten times: whoever watches starts it again
        assert httpx.get(f"{url}/livez").json() == {"status": "hangs"}
        blocked.go.set()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.get(f"{url}/livez").status_code == 200
