"""Requests that wait are encoded, searched and fused together; whoever waits here waits for an event."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from live_service import wait_until

from reco_plugin import Reco

PATIENCE_S = 60
TEXTS = ["a red circle", "a large blue square", "something else that is longer than most of what people look for here"]


class Gate:
    """Stands before a graph; once shut, each run waits to be let through."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.shut = inner, threading.Event()
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.sizes: list[int] = []

    def run(self, inputs: Any) -> Any:
        if self.shut.is_set():
            self.sizes.append(len(next(iter(inputs.values()))))
            self.begun.release()
            assert self.go.acquire(timeout=PATIENCE_S)
        return self.inner.run(inputs)

    def open(self) -> None:
        """Let everything through."""
        self.shut.clear()
        self.go.release(1000)


@pytest.fixture
def gate(filled: Reco) -> Iterator[Gate]:
    """Before the text encoder; open in the end."""
    filled.encoder.texts(["warm-up"])
    sessions = filled.encoder._sessions
    made = Gate(sessions["text"])
    sessions["text"] = made
    yield made
    made.open()


def post(url: str, *texts: str, **options: Any) -> httpx.Response:
    body = {"input": [{"text": text} for text in texts], **options}
    return httpx.post(f"{url}/v1/embeddings", json=body, timeout=PATIENCE_S)


def vectors(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


Ask = Callable[..., "Future[httpx.Response]"]


@pytest.fixture
def ask(filled: Reco) -> Iterator[Callable[[str], Ask]]:
    """Send in another thread; returns once the request waits for a batch, or is encoded."""
    with ThreadPoolExecutor(16) as threads:

        def of(url: str) -> Ask:
            def start(*texts: str, begins: threading.Semaphore | None = None, **options: Any) -> Future[httpx.Response]:
                waiting = filled.encoder._batchers["text"]._waiting
                before = len(waiting)
                future = threads.submit(post, url, *texts, **options)
                if begins is not None:
                    assert begins.acquire(timeout=PATIENCE_S)
                else:
                    wait_until(lambda: len(filled.encoder._batchers["text"]._waiting) != before or future.done())
                    assert not future.done()
                return future

            return start

        yield of


@pytest.mark.parametrize("refine", [False, True])
def test_requests_that_wait_are_encoded_together_and_answered_as_if_alone(filled, live, gate, ask, refine):
    alone = [filled.embed_texts([text], refine=refine) for text in TEXTS]
    with live(filled, threads=1, queue=16) as (url, _):
        gate.shut.set()
        first = ask(url)("a first one", begins=gate.begun)
        waiting = [ask(url)(text, refine=refine) for text in TEXTS]
        gate.open()
        for future, expected in zip(waiting, alone, strict=True):
            np.testing.assert_allclose(vectors(future.result(PATIENCE_S)), expected, atol=1e-5)
        assert first.result(PATIENCE_S).status_code == 200
    assert gate.sizes == [1]


def test_without_batches_requests_are_answered_too(model, live):
    with Reco.open(model, memory=":memory:", batch_callers=False) as reco:
        assert not reco.encoder.batches_callers
        with live(reco, threads=1, queue=16) as (url, _):
            assert vectors(post(url, "a red circle")).shape[0] == 1
