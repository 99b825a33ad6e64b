"""docker-compose.yml in a docker engine: refined answers, outages, and what the memory holds after them."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from .conftest import UP, Stack, health, until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack")]  # one worker starts it for all
AWAY_S = 8
MARKS = {"memory_error", "memory_timeout", "memory_circuit_open"}


def embed(client: httpx.Client, model: str = "clip-reco-query", text: str = "a small red circle") -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": model, "input": [text]})


def vector(answer: httpx.Response) -> np.ndarray:
    return np.array(answer.raise_for_status().json()["data"][0]["embedding"])


def refined(client: httpx.Client) -> bool:
    answer = embed(client)
    return answer.status_code == 200 and answer.headers["x-reco-refined"] == "true"


def held(client: httpx.Client, ids: list[str]) -> set[str]:
    found = client.get("/v1/memory/pairs", params={"id": ids}).raise_for_status().json()
    return {pair["id"] for pair in found["data"]}


def test_all_are_healthy_and_a_query_is_refined(stack: Stack, client: httpx.Client) -> None:
    assert health(stack) == dict.fromkeys(("qdrant", "triton-cpu", "reco"), "healthy")
    assert client.get("/readyz").json() == {"status": "ready", "reasons": [], "degraded": []}
    until(lambda: refined(client))
    answer, plain = embed(client), embed(client, "clip")
    assert "x-reco-degraded" not in answer.headers and plain.headers["x-reco-refined"] == "false"
    assert np.abs(vector(answer) - vector(plain)).max() > 0.001


def test_answers_by_triton_equal_those_in_process(client: httpx.Client, in_process: Stack) -> None:
    assert health(in_process) == {"qdrant": "healthy", "reco-no-triton": "healthy"}
    with in_process.client() as other:
        until(lambda: refined(client) and refined(other))
        for model in ("clip", "clip-reco-query"):
            for text in ("a small red circle", "a large blue square"):
                ours, theirs = vector(embed(client, model, text)), vector(embed(other, model, text))
                np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("way", ["stop", "pause", "cut"])
def test_without_the_memory_answers_are_plain_and_say_so(stack: Stack, client: httpx.Client, way: str) -> None:
    plain = vector(embed(client, "clip"))
    until(lambda: refined(client))
    with stack.without("qdrant", way):
        end = time.monotonic() + AWAY_S
        while time.monotonic() < end:
            answer = embed(client)
            assert (answer.status_code, answer.headers["x-reco-refined"]) == (200, "false")
            assert answer.headers["x-reco-degraded"] in MARKS
            np.testing.assert_allclose(vector(answer), plain, atol=1e-5)
        ready = client.get("/readyz")
        assert (ready.status_code, bool(ready.json()["degraded"])) == (200, True)
    until(lambda: refined(client))
    until(lambda: client.get("/readyz").json()["degraded"] == [])


def test_without_triton_the_service_is_not_ready(stack: Stack, client: httpx.Client) -> None:
    with stack.without("triton-cpu", "stop"):
        until(lambda: client.get("/readyz").status_code == 503)
        answer = embed(client)
        assert answer.status_code == 503 and answer.json()["error"]["code"].startswith("model_server")
        assert int(answer.headers["retry-after"]) > 0
    until(lambda: refined(client))
    until(lambda: client.get("/readyz").status_code == 200)


def test_no_acknowledged_pair_is_lost_when_the_memory_is_killed(stack: Stack, client: httpx.Client) -> None:
    image, text = np.eye(2, client.get("/v1/models").json()["data"][0]["dimension"]).tolist()
    ids, written = [f"p{number}" for number in range(24)], []

    def write() -> None:
        for id_ in ids:
            pair = {"id": id_, "image_vector": image, "text_vector": text}
            until(lambda pair=pair: _acknowledged(client, pair), 120)  # type: ignore[misc]
            written.append(id_)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        until(lambda: len(written) >= 8 or writing.done())
        with stack.without("qdrant", "kill"):
            assert not writing.done()
            time.sleep(2)
        writing.result(300)
    assert held(client, ids) == set(ids)
    client.delete("/v1/memory/pairs", params={"id": ids}).raise_for_status()


def _acknowledged(client: httpx.Client, pair: dict[str, object]) -> bool:
    answer = client.post("/v1/memory/pairs", json={"pairs": [pair]})
    if answer.status_code not in (503, 504):  # which mean: send it again
        answer.raise_for_status()
    return answer.is_success


def test_down_and_up_keep_the_pairs(stack: Stack) -> None:
    with stack.client() as client:
        before = client.get("/v1/memory").json()
    assert before["pairs"] >= 24
    stack.compose("down")
    stack.compose(*UP.split())
    with stack.client() as client:
        after = client.get("/v1/memory").json()
        assert (after["pairs"], after["fingerprint"]) == (before["pairs"], before["fingerprint"])
        until(lambda: refined(client))


@pytest.mark.parametrize("image", ["reco-plugin:0.1.0", "reco-plugin:0.1.0-cpu"])
def test_an_image_opens_a_folder_and_has_no_key(engine: None, image: str) -> None:
    say = "python -c 'import qdrant_edge'; env; command -v gcc pip; true"
    words = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c", say]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not done.stderr and "KEY" not in done.stdout
    assert "gcc" not in done.stdout and "/opt/reco/bin/pip" not in done.stdout
