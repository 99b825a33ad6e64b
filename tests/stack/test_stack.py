"""docker-compose.yml in a docker engine: what fails, what is said meanwhile, and what is there afterwards."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from compose_stack import HEALTHY_S, Stack, add_vectors, embed, held, refined, until, vector

pytestmark = pytest.mark.xdist_group("stack")  # one worker starts it for all
AWAY_S = 15
BACK_S = 60
MARKS = {"memory_error", "memory_timeout", "memory_circuit_open"}


def test_all_are_healthy_within_two_minutes(stack: Stack, client: httpx.Client) -> None:
    assert stack.health() == dict.fromkeys(("qdrant", "triton-cpu", "reco"), "healthy")
    assert stack.up_s is not None and stack.up_s < HEALTHY_S
    assert client.get("/readyz").json() == {"status": "ready", "reasons": [], "degraded": []}


def test_a_query_is_refined(client: httpx.Client) -> None:
    answer, plain = embed(client), embed(client, "clip")
    assert (answer.headers["x-reco-refined"], plain.headers["x-reco-refined"]) == ("true", "false")
    assert "x-reco-degraded" not in answer.headers
    assert np.abs(vector(answer) - vector(plain)).max() > 0.001


@pytest.mark.parametrize("way", ["stop", "pause", "cut"])
def test_without_qdrant_answers_are_plain_and_say_so(stack: Stack, client: httpx.Client, way: str) -> None:
    plain = vector(embed(client, "clip"))
    until(lambda: refined(client), BACK_S)
    with stack.without("qdrant", way):
        end = time.monotonic() + AWAY_S
        while time.monotonic() < end:
            answer = embed(client)
            assert answer.status_code == 200
            assert answer.headers["x-reco-refined"] == "false"
            assert answer.headers["x-reco-degraded"] in MARKS
            np.testing.assert_allclose(vector(answer), plain, atol=1e-5)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["degraded"]
    until(lambda: refined(client), BACK_S)
    assert until(lambda: client.get("/readyz").json()["degraded"] == [], BACK_S)


def test_without_triton_it_is_not_ready_and_says_so(stack: Stack, client: httpx.Client) -> None:
    with stack.without("triton-cpu", "stop"):
        ready = until(lambda: (said := client.get("/readyz")).status_code == 503 and said, BACK_S)
        assert isinstance(ready, httpx.Response)
        assert ready.json()["status"] == "not ready" and ready.json()["reasons"]
        answer = embed(client)
        assert answer.status_code == 503 and answer.json()["error"]["code"].startswith("model_server")
        assert int(answer.headers["retry-after"]) > 0
    until(lambda: refined(client), BACK_S)
    until(lambda: client.get("/readyz").status_code == 200, BACK_S)


def test_no_pair_is_lost_when_qdrant_is_killed(stack: Stack, client: httpx.Client) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(add_vectors, client, 200, lambda done: done == 20 and begun.set())
        assert begun.wait(BACK_S)
        with stack.without("qdrant", "kill"):
            assert not writing.done()
            time.sleep(3)
        ids = writing.result(300)
    assert len(ids) == 200
    assert sorted(held(client, ids)) == sorted(ids)


def test_down_and_up_keep_the_pairs(stack: Stack) -> None:
    with stack.client() as client:
        before = client.get("/v1/memory").json()
    assert before["pairs"] >= 24
    stack.tell("down")
    stack.up()
    with stack.client() as client:
        after = client.get("/v1/memory").json()
        assert (after["pairs"], after["fingerprint"]) == (before["pairs"], before["fingerprint"])
        assert until(lambda: refined(client), BACK_S)


def test_without_triton_at_all(engine: None, docker_compose_file: list[str], docker_compose_project_name: str) -> None:
    alone = Stack(f"{docker_compose_project_name}-alone", docker_compose_file, "no-triton", "reco-no-triton")
    try:
        alone.up()
        assert alone.health() == {"qdrant": "healthy", "reco-no-triton": "healthy"}
        with alone.client() as client:
            assert embed(client, "clip").status_code == 200
    finally:
        alone.tell("down", "-v")
