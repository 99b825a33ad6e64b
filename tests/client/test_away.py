"""The client before a real `reco serve` that is killed, hangs, stops and comes back, while queries go on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_service import wait_until

from reco_plugin import Pair, Reco
from reco_plugin.client import Client, service
from reco_plugin.errors import SessionError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")]
TEXT = "a small red circle"
LIMIT_S = 0.5


class Counted(httpx.HTTPTransport):
    """Sends what a client asks, and notes how many seconds each wait of a request may take."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.limits.append(max(request.extensions["timeout"].values()))
        return super().handle_request(request)


class Process:
    """A service of its own process, always on the same port."""

    def __init__(self, model: Path, memory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        flags = ["--model", str(model), "--memory", str(memory), "--port", str(self.port), "--no-page"]
        self._command, self._log = [sys.executable, "-m", "reco_plugin", "serve", *flags], memory.parent / "serve.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.running = subprocess.Popen(self._command, stderr=log, cwd=self._log.parent)
        wait_until(self._ready)

    def _ready(self) -> bool:
        assert self.running.poll() is None, self._log.read_text()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def send(self, sign: int) -> None:
        os.kill(self.running.pid, sign)
        if sign == signal.SIGKILL:
            self.running.wait()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is asked again after a second."""
    monkeypatch.setattr(service, "_FAILURES", 3)
    monkeypatch.setattr(service, "_RETRY_S", 1.0)


@pytest.fixture(scope="module")
def plain(model: Path) -> Iterator[Reco]:
    """An encoder of the application's own, without a memory."""
    with Reco.open(model, memory=":memory:") as reco:
        yield reco


@pytest.fixture(scope="module")
def process(model: Path, drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    memory = tmp_path_factory.mktemp("away") / "memory"
    with Reco.open(model, memory=memory) as reco:
        reco.memory.add(drawings)
    process = Process(model, memory)
    yield process
    process.running.kill()
    process.running.wait()


def answers(client: Client, plain: Reco) -> Any:
    """The reason of a query, whose vector is checked."""
    frozen = plain.embed_texts([TEXT], refine=False)
    found = client.refine(frozen, modality="text")
    assert found.refined.tolist() == [found.degraded is None]
    assert np.allclose(found.vectors, frozen, atol=1e-5) == (found.degraded is not None)
    return found.degraded


def recovers(client: Client, plain: Reco) -> None:
    """Wait until queries are refined again; in between each was answered."""
    wait_until(lambda: client.refine(plain.embed_texts([TEXT], refine=False), modality="text").degraded is None, 30)
    assert client.circuit.state == "closed"


def test_killed_and_started_again(process: Process, plain: Reco) -> None:
    with Client(process.url, degrade_after_s=LIMIT_S) as client:
        recovers(client, plain)
        process.send(signal.SIGKILL)
        assert {answers(client, plain) for _ in range(6)} == {"service_error", "service_circuit_open"}
        with pytest.raises(SessionError):
            client.embed_texts([TEXT], role="candidate")
        process.start()
        recovers(client, plain)


def test_hanging_and_going_on(process: Process, plain: Reco, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Counted()
    with Client(process.url, degrade_after_s=LIMIT_S, transport=sent) as client:
        recovers(client, plain)
        sent.limits.clear()
        process.send(signal.SIGSTOP)  # connections are accepted, and never answered
        now = time.monotonic()
        try:
            with monkeypatch.context() as stopped:
                stopped.setattr(client._breaker, "_clock", lambda: now)  # on a busy machine a probe would be due
                seen = [answers(client, plain) for _ in range(5)]
        finally:
            process.send(signal.SIGCONT)
        assert seen == ["service_timeout"] * 3 + ["service_circuit_open"] * 2
        assert len(sent.limits) == 3, "what the circuit answers is not sent"
        assert max(sent.limits) <= LIMIT_S
        recovers(client, plain)
