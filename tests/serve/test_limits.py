"""What is too much, too many or too late; and what happens to requests in flight when the service stops."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_service import wait_until

from reco_plugin.serve.embedder import Embedder, EmbedRequest, Item
from reco_plugin.serve.failures import Failure, Refused
from reco_plugin.serve.life import Life, Lives
from reco_plugin.serve.pool import Pool, as_written, while_written
from reco_plugin.serve.schemas import RefinedItem, RefinedList, refined_list
from reco_plugin.serve.settings import ServeSettings
from reco_plugin.serve.wire import BodyRefused, write_json, written

from .conftest import lead

SERVE_MD = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
VECTOR = [1.0] + [0.0] * 127  # of the shipped model
ONE = {"input": [{"text": "a red circle"}]}


def post(url: str, body: object = ONE) -> httpx.Response:
    return httpx.post(f"{url}/v1/explain", json=body, timeout=60)


def test_every_limit_is_documented_with_its_default():
    rows = [line for line in SERVE_MD.read_text("utf-8").splitlines() if line.startswith("| `")]
    for name, field in ServeSettings.model_fields.items():
        if field.annotation not in (int, float) or name == "port":
            continue
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        assert f"{field.default:,.0f}" in row, name


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


def test_a_body_whose_declared_length_is_too_large_is_not_even_begun():
    async def never(*_: Any) -> Any:
        raise AssertionError("the body was read")

    async def begin() -> None:
        lives = Lives(ServeSettings(max_body_bytes=10))
        await Life(lives, {"headers": [(b"content-length", b"11")]}, never, never).receive()

    with pytest.raises(BodyRefused, match="413"):
        asyncio.run(begin())


def test_too_many_items_and_too_large_images_are_413(filled, served, red_square):
    with served(filled, max_items=2, max_image_bytes=20) as client:
        many = client.post("/v1/explain", json={"input": [{"text": "a"}] * 3})
        fat = client.post("/v1/explain", json={"input": [{"image": red_square}]})
    assert (many.status_code, many.json()["error"]["code"]) == (413, "too_many_items")
    assert (fat.status_code, fat.json()["error"]["code"]) == (413, "image_too_large")


def test_more_pairs_than_an_answer_may_show_are_413_before_any_is_looked_for(troubled, served):
    made, searched = troubled(), []
    with served(made.reco, max_pairs=20) as client:
        made.seam.trouble = lambda: searched.append(1)
        for path, body in (
            ("/v1/explain", {"input": [{"text": "a"}] * 3, "k": 7}),
            ("/v1/explain", {"input": [{"text": "a"}] * 3}),  # of the model's own k, 10
        ):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_pairs")
            assert "max_pairs" in answer.json()["error"]["message"]
        assert not searched
        assert client.post("/v1/explain", json={"input": [{"text": "a"}] * 2, "k": 10}).status_code == 200
        assert client.post("/refined/v1/embeddings", json={"input": ["a"] * 3}).status_code == 200  # which shows none


def test_an_answer_that_is_too_large_is_413(filled, served, admin, drawings):
    ids = [("id", pair.id) for pair in drawings]
    with served(filled, max_answer_bytes=20_000) as client:
        large = [
            client.post("/v1/explain", json={"input": [{"text": "a red circle"}] * 10}),
            client.post("/v1/embeddings", json={"input": ["a red circle"] * 100}),
            client.post("/v1/scores", json={"images": [], "image_vectors": [VECTOR] * 40, "texts": ["a"] * 40}),
            client.get("/v1/memory/pairs", params=[*ids, ("vectors", "true")], headers=admin),
        ]
        for answer in large:
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "answer_too_large")
            assert "max_answer_bytes" in answer.json()["error"]["message"]
        assert client.post("/v1/explain", json=ONE).status_code == 200
        assert client.get("/v1/memory/pairs", params=ids, headers=admin).status_code == 200


def test_an_answer_is_written_within_the_deadline_and_not_to_its_end_if_nobody_waits():
    go, made = threading.Event(), []

    def items() -> Any:
        for number in range(100):
            if number == 3:
                assert go.wait(60)
            made.append(threading.current_thread().name)
            yield {"number": number}

    async def ask() -> int:
        pool, failed = Pool("test", threads=1, queue=1, deadline_s=600), []

        async def application(life: Life) -> None:
            with pytest.raises(Refused) as refused:
                await life.work(pool, lambda: written(while_written(items()), 10_000))
            failed.append(refused.value.failure.status)

        await lead(Lives(ServeSettings(deadline_s=0.2)), application)
        go.set()
        await pool.close()
        return failed[0]

    assert asyncio.run(ask()) == 504
    assert made == ["test_0"] * 4


def test_a_service_that_may_not_start_all_threads_serves_with_those_that_it_has(monkeypatch, caplog):
    """The thread that warms it up died of it, and it was never ready."""
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "few_2":
            raise RuntimeError("can't start new thread")
        begin(thread)

    async def serve() -> list[int]:
        pool = Pool("few", threads=4, queue=10, deadline_s=600)
        pool.begin_threads()
        works = [pool.submit(lambda number=number: number) for number in range(4)]
        done = [(await asyncio.wrap_future(work))[0] for work in works]
        await pool.close()
        return done

    monkeypatch.setattr(threading.Thread, "start", start)
    assert asyncio.run(serve()) == [0, 1, 2, 3]
    assert "2 threads" in caplog.text


@pytest.mark.parametrize("begun", [0, 1])
def test_a_call_that_gets_no_thread_takes_no_place_for_ever(begun: int, monkeypatch, caplog):
    """Each later one waited until its deadline, also once there were threads again."""
    begin, refuses, go = threading.Thread.start, [False], threading.Event()

    def start(thread: threading.Thread) -> None:
        if refuses[0] and thread.name.startswith("few_"):
            raise RuntimeError("can't start new thread")
        begin(thread)

    async def serve() -> list[int]:
        pool = Pool("few", threads=2, queue=10, deadline_s=600)
        works = [pool.submit(lambda: go.wait(60) and -1) for _ in range(begun)]
        refuses[0] = True
        if begun:
            works.append(pool.submit(lambda: 0))
            assert not works[1].running() and pool.pending == 2
        else:
            with pytest.raises(Refused, match="starts no thread"):
                pool.submit(lambda: 0)
            assert pool.pending == 0 and pool.refusal is None
        refuses[0] = bool(begun)
        works += [pool.submit(lambda number=number: number) for number in (1, 2)]
        go.set()
        done = [(await asyncio.wait_for(asyncio.wrap_future(work), 60))[0] for work in works]
        await pool.close()
        return done

    monkeypatch.setattr(threading.Thread, "start", start)
    assert asyncio.run(serve()) == ([-1, 0, 1, 2] if begun else [1, 2])
    assert ("it gets no thread" in caplog.text) and "can't start" in caplog.text


def test_an_answer_in_pieces_is_the_one_that_pydantic_writes(filled):
    request = EmbedRequest([Item.text("a red circle"), Failure(400, "bad", 'a "quote"')], refine=True, explain=True)
    answer = Embedder(filled, ServeSettings()).embed(request)
    whole = RefinedList.model_construct(
        data=[*refined_list(answer, "input").data], dimension=filled.manifest.dimension, coverage={}, degraded=None
    )
    pieces = written(refined_list(replace(answer, coverage={}), "input"), 1_000_000)
    first = whole.data[0]
    first.embedding, first.frozen = np.asarray(first.embedding).tolist(), np.asarray(first.frozen).tolist()
    assert as_float32(json.loads(b"".join(pieces))) == as_float32(json.loads(whole.model_dump_json(exclude_none=True)))


def as_float32(value: Any) -> Any:
    """JSON with its numbers as float32 has them."""
    if isinstance(value, dict):
        return {name: as_float32(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_float32(one) for one in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def test_vectors_are_written_short_and_whatever_a_payload_holds(filled):
    vector = filled.embed_texts(["a red circle"], refine=False)
    text = write_json({"vectors": vector})
    assert np.asarray(json.loads(text)["vectors"], np.float32).tobytes() == vector.tobytes()
    assert len(text) < 13 * vector.size + 20
    for payload in ({"n": 2**70, "none": None}, {"far": -(2**80)}, {"deep": json.loads("[" * 120 + "]" * 120)}):
        item = RefinedItem.model_construct(index=1, embedding=as_written(vector[0]), error=None, why=payload)
        found = json.loads(write_json(item))
        assert (found["why"], found["index"], "error" in found) == (payload, 1, False)
        assert np.asarray(found["embedding"], np.float32).tobytes() == vector.tobytes()


def test_a_full_queue_is_429_with_retry_after_and_nothing_that_was_accepted_is_lost(blocked, live):
    with live(blocked.reco, threads=1, queue=1) as (url, server), ThreadPoolExecutor(8) as callers:
        blocked.armed.set()
        edge = server.config.app.state.edge
        waiting = [callers.submit(post, url) for _ in range(2)]
        assert blocked.reached.acquire(timeout=60)
        wait_until(lambda: edge.pool.pending == 2 or waiting[0].done())
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
        pool = server.config.app.state.edge.pool
        sent = [callers.submit(post, url, many)]
        assert blocked.reached.acquire(timeout=60)
        sent.append(callers.submit(post, url, many))  # where none waits, one may have more
        wait_until(lambda: pool.pending == 2 or sent[1].done())
        refused = post(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert "50 inputs wait already, the limit is 10 (queue)" in refused.json()["error"]["message"]
        blocked.go.set()
        assert [one.result(60).status_code for one in sent] == [200, 200]
        blocked.go.clear()
        wait_until(lambda: not pool.pending)
        while blocked.reached.acquire(blocking=False):
            pass
        sent = [callers.submit(post, url)]
        assert blocked.reached.acquire(timeout=60)
        for waiting in range(2, 11):
            sent.append(callers.submit(post, url))
            wait_until(lambda number=waiting: pool.pending == number or sent[-1].done())
        two = post(url, {"input": [{"text": "a"}] * 2})
        assert (two.status_code, two.json()["error"]["code"]) == (429, "queue_full")  # nine wait
        sent.append(callers.submit(post, url))
        wait_until(lambda: pool.pending == 11 or sent[-1].done())
        blocked.go.set()
        assert {one.result(60).status_code for one in sent} == {200}


def test_a_deadline_that_passes_is_504_and_the_next_request_is_answered(blocked, live):
    with live(blocked.reco, threads=1, deadline_s=0.2) as (url, server):
        blocked.armed.set()
        late = post(url)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert "deadline_s" in late.json()["error"]["message"]
        assert server.config.app.state.edge.pool.pending == 1  # it goes on, and keeps its place
        blocked.go.set()
        wait_until(lambda: not server.config.app.state.edge.pool.pending)
        assert post(url).status_code == 200


def test_what_waited_too_long_is_never_begun(blocked, live):
    with live(blocked.reco, threads=1, queue=4, deadline_s=0.3) as (url, server), ThreadPoolExecutor(4) as callers:
        blocked.armed.set()
        assert {one.result(60).status_code for one in [callers.submit(post, url) for _ in range(3)]} == {504}
        assert blocked.reached.acquire(timeout=60)
        blocked.go.set()
        wait_until(lambda: not server.config.app.state.edge.pool.pending)
        assert not blocked.reached.acquire(blocking=False)


def test_workers_that_hang_make_the_service_not_ready(blocked, live):
    with live(blocked.reco, threads=1, deadline_s=0.1) as (url, _):
        blocked.armed.set()
        assert post(url).status_code == 504
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code != 200)
        reasons = httpx.get(f"{url}/readyz").json()["reasons"]
        assert reasons == ["every worker has been busy with one request for twice the deadline"]
        wait_until(lambda: httpx.get(f"{url}/livez").status_code != 200)  # ten times: whoever watches starts it again
        assert httpx.get(f"{url}/livez").json() == {"status": "hangs"}
        blocked.go.set()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.get(f"{url}/livez").status_code == 200


def test_requests_in_flight_are_answered_when_the_service_stops(blocked, live):
    with live(blocked.reco, threads=1) as (url, server), ThreadPoolExecutor(2) as callers:
        blocked.armed.set()
        flying = callers.submit(post, url)
        assert blocked.reached.acquire(timeout=60)
        server.should_exit = True
        with pytest.raises(httpx.TransportError):  # it takes no more connections
            wait_until(lambda: httpx.get(f"{url}/livez") is None)
        blocked.go.set()
        answer = flying.result(60)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"  # else the next request goes into a closed connection
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez")


def test_a_connection_that_is_made_while_the_service_stops_is_answered_once(blocked, live):
    """One that is accepted at that moment went on for `shutdown_s`, and was reset then."""
    with live(blocked.reco, threads=1) as (url, server), ThreadPoolExecutor(1) as callers:
        blocked.armed.set()
        flying, told = callers.submit(post, url), threading.Event()
        assert blocked.reached.acquire(timeout=60)

        def tell() -> None:
            for one in list(server.server_state.connections):
                one.shutdown()
            told.set()

        server.servers[0].get_loop().call_soon_threadsafe(tell)
        assert told.wait(60)
        late = httpx.get(f"{url}/livez")
        blocked.go.set()
        for answer in (late, flying.result(60)):
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_a_request_that_breaks_off_leaves_the_service_alive(filled, live):
    with live(filled) as (url, _):
        for _ in range(3):
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{url}/v1/explain", json={"input": [{"text": "x"}] * 256}, timeout=0.001)
        assert post(url).status_code == 200
