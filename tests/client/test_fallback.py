"""What queries get while the service does not answer, the service is a function here."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from reco_plugin.client import Client, Refined
from reco_plugin.client import service as client_module
from reco_plugin.errors import ConfigError, InputError, SessionUnavailable, VectorError
from reco_plugin.retrieval.guard import DegradedWarning

PLAIN = np.float32([[1, 0], [0, 1]])
REFINED = np.float32([[0.6, 0.8], [0.8, 0.6]])
TEXTS = ["a red fox", "a grey wolf"]
quiet = pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")


class Served:
    """Answers as a service with two dimensions does, unless it is in trouble; counts what it was asked."""

    def __init__(self) -> None:
        self.trouble: Callable[[], httpx.Response | None] | None = None
        self.asked: list[httpx.Request] = []
        self.headers: dict[str, str] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.trouble is not None and (answer := self.trouble()) is not None:
            return answer
        rows = len(json.loads(request.content).get("vectors") or json.loads(request.content)["input"])
        data = [
            {"index": row, "embedding": REFINED[row].tolist(), "moved": 0.4, "refined": True} for row in range(rows)
        ]
        return httpx.Response(200, json={"data": data}, headers=self.headers)

    def client(self, **options: Any) -> Client:
        return Client("http://reco", transport=httpx.MockTransport(self), **options)


def down() -> httpx.Response:
    raise httpx.ConnectError("refused")


def answering(status: int, code: str = "some_code") -> Callable[[], httpx.Response]:
    body = {"error": {"code": code, "message": "some words"}}
    return lambda: httpx.Response(status, json=body, headers={"retry-after": "30"})


def check(found: Refined, reason: str, plain: np.ndarray = PLAIN) -> None:
    assert np.array_equal(found.vectors, plain)
    assert (found.degraded, found.plain) == (reason, (reason,) * len(plain))
    assert not found.refined.any() and not found.moved.any()


def test_vectors_to_refine_come_back_as_they_were_and_the_caller_is_warned_once() -> None:
    service = Served()
    client = service.client()
    assert np.array_equal(client.refine(PLAIN, modality="text").vectors, REFINED)
    service.trouble = down
    with pytest.warns(DegradedWarning, match=r"service_error.*http://reco/v1/refine: Conn.*degrade_after_s=None"):
        check(client.refine(PLAIN, modality="text"), "service_error")
    with warnings.catch_warnings(action="error"):
        check(client.refine(PLAIN, modality="text"), "service_error")
    service.trouble = None
    assert client.refine(PLAIN, modality="text").degraded is None
    service.trouble = down
    with pytest.warns(DegradedWarning):
        client.refine(PLAIN, modality="text")


@quiet
def test_after_some_failures_the_service_is_not_asked_until_one_call_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FAILURES", 3)
    service = Served()
    client = service.client()
    now = [1000.0]
    monkeypatch.setattr(client._breaker, "_clock", lambda: now[0])
    service.trouble = down
    reasons = [client.refine(PLAIN, modality="text").degraded for _ in range(6)]
    assert reasons == ["service_error"] * 3 + ["service_circuit_open"] * 3
    assert len(service.asked) == 3
    assert (client.circuit.state, client.circuit.opened) == ("open", 1)
    now[0] += 10.0
    assert client.refine(PLAIN, modality="text").degraded == "service_error"
    assert len(service.asked) == 4
    service.trouble = None
    assert client.refine(PLAIN, modality="text").degraded == "service_circuit_open"
    now[0] += 10.0
    assert client.refine(PLAIN, modality="text").degraded is None
    assert client.circuit.state == "closed"


@quiet
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (answering(503, "memory_unavailable"), "service_error"),
        (answering(504, "deadline_exceeded"), "service_timeout"),
        (lambda: httpx.Response(200, text="<html>"), "service_error"),
    ],
)
def test_whatever_fails_queries_are_answered_and_no_pause_is_made(
    trouble: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append)
    monkeypatch.setattr(client_module, "time", clock)  # a service of other tests may live in this process, and sleep
    service = Served()
    service.trouble = trouble
    check((service.client().refine(PLAIN, modality="text")), reason)
    assert pauses == [], "the service said: in 30 seconds"
    assert len(service.asked) == 1


def test_a_full_queue_is_asked_again_while_there_is_time() -> None:
    service = Served()
    answers = iter([httpx.Response(429, headers={"retry-after": "0"}, json={}), None])
    service.trouble = lambda: next(answers)
    assert (service.client().refine(PLAIN, modality="text")).degraded is None
    assert len(service.asked) == 2


def test_a_connection_that_broke_is_opened_again_once() -> None:
    """One that was open while the service restarted is reset by the first request."""

    def breaks() -> httpx.Response | None:
        if len(service.asked) % 2:
            raise httpx.ReadError("Connection reset by peer")
        return None

    service = Served()
    service.trouble = breaks
    assert (service.client().refine(PLAIN, modality="text")).degraded is None
    with pytest.raises(SessionUnavailable, match="ReadError"):
        (service.client().refine(PLAIN, modality="text", role="candidate"))
    assert len(service.asked) == 3


@quiet
def test_a_service_that_dribbles_is_late_as_a_whole() -> None:
    """Each piece comes within httpx's limits, which are for one wait each."""
    answered, pieces = threading.Event(), count()

    class Dribble(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while next(pieces) < 100 and not answered.is_set():
                time.sleep(0.1)
                yield b" "

    service = Served()
    service.trouble = lambda: httpx.Response(200, stream=Dribble())
    client = service.client(degrade_after_s=0.5)
    found = client.refine(PLAIN, modality="text")
    answered.set()
    check(found, "service_timeout")  # who waits for all of it has an answer that cannot be read
    assert next(pieces) > 0


@pytest.mark.parametrize(("status", "kind_of_error"), [(400, InputError), (401, ConfigError)])
def test_what_is_wrong_with_the_request_is_raised_and_is_no_outage(status: int, kind_of_error: Any) -> None:
    service = Served()
    service.trouble = answering(status)
    client = service.client()
    for _ in range(3):
        with pytest.raises(kind_of_error):
            client.refine(PLAIN, modality="text")
    assert client.circuit.state == "closed"


def test_without_a_fallback_and_for_candidates_errors_are_raised() -> None:
    service = Served()
    service.trouble = down
    fails, degrades = service.client(degrade_after_s=None), service.client()
    for call in (
        lambda: fails.refine(PLAIN, modality="text"),
        lambda: degrades.embed_texts(TEXTS),
        lambda: degrades.refine(PLAIN, modality="text", role="candidate"),
        lambda: degrades.embed_texts(TEXTS, role="candidate"),
        lambda: degrades.explain(TEXTS),
    ):
        with pytest.raises(SessionUnavailable):
            (call())


@quiet
def test_a_call_in_parts_is_plain_as_a_whole() -> None:
    service = Served()
    answers = iter([None, answering(500)()])
    service.trouble = lambda: next(answers)
    client = service.client(batch_size=1)
    check(client.refine(PLAIN, modality="text"), "service_error")
    assert len(service.asked) == 2


@quiet
def test_an_explanation_has_its_rows_though_nothing_explains_them() -> None:
    service = Served()
    service.trouble = down
    found = service.client().refine(PLAIN, modality="text", explain=True)
    assert (found.used, found.why) == (((), ()), (None, None))
    assert np.array_equal(found.frozen, PLAIN) and found.frozen is not found.vectors


@quiet
def test_vectors_that_the_service_would_refuse_are_refused_while_it_is_away() -> None:
    service = Served()
    client = service.client()
    client.refine(PLAIN, modality="text")
    service.trouble = down
    with pytest.raises(VectorError):
        client.refine(2 * PLAIN, modality="text")
