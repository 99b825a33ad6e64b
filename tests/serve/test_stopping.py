"""The end of ``reco serve``: who asks meanwhile is answered, is told to go elsewhere, and finds no door slammed."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from live_service import wait_until
from service_process import process

from reco_plugin.serve.note import NAME

pytestmark = pytest.mark.slow

PATIENT = "--drain-s", "60"  # it ends before, when nobody is connected
ASK = {"json": {"model": "clip", "input": ["a red fox"]}}


def get(url):
    return httpx.get(url, timeout=60)


def ready(running, url):
    wait_until(lambda: running.poll() is not None or get(f"{url}/readyz").status_code == 200)


@pytest.fixture
def no_nohup():
    """What is started hears of its terminal's end, also where nohup runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_after_sigterm_it_answers_for_a_while_and_says_that_it_is_not_ready(tmp_path, model):
    with process(tmp_path, model, "--memory", ":memory:", *PATIENT) as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert "connection" not in kept.post(f"{url}/v1/embeddings", **ASK).headers
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: get(f"{url}/readyz").status_code == 503)
        assert get(f"{url}/readyz").json()["reasons"] == ["the service is stopping"]
        for answer in (kept.post(f"{url}/v1/embeddings", **ASK), httpx.post(f"{url}/v1/embeddings", **ASK)):
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert running.wait(60) == 0


def test_what_is_in_flight_is_told_too(tmp_path, model):
    """Of a body that arrives slowly, with the signal in the middle."""
    with process(tmp_path, model, "--memory", ":memory:", *PATIENT) as (running, url):
        ready(running, url)
        body = json.dumps(ASK["json"]).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
            line.sendall(head + body[:10])
            wait_until(lambda: get(f"{url}/livez").is_success)
            running.send_signal(signal.SIGTERM)
            wait_until(lambda: get(f"{url}/readyz").status_code == 503)
            line.sendall(body[10:])
            answer = b""
            while part := line.recv(1 << 16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK") and b"\r\nconnection: close\r\n" in answer
        assert running.wait(60) == 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_where_nobody_asks_it_ends_at_once(tmp_path, model, sent):
    with process(tmp_path, model, "--memory", ":memory:", *PATIENT) as (running, url):
        ready(running, url)
        running.send_signal(sent)
        assert running.wait(30) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_terminal_that_closes_ends_it_as_sigterm_does(tmp_path, model, no_nohup):
    """It was killed, and left its note of ownership in the memory's folder."""
    with process(tmp_path, model, *PATIENT) as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert "connection" not in kept.post(f"{url}/v1/embeddings", **ASK).headers
        assert (tmp_path / "memory" / NAME).exists()
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: get(f"{url}/readyz").status_code == 503)
        assert kept.post(f"{url}/v1/embeddings", **ASK).headers["connection"] == "close"
        assert running.wait(60) == 0
    assert not (tmp_path / "memory" / NAME).exists()


def test_a_person_who_presses_ctrl_c_does_not_wait_for_callers(tmp_path, model):
    with process(tmp_path, model, "--memory", ":memory:", *PATIENT) as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert kept.post(f"{url}/v1/embeddings", **ASK).is_success
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0


def test_it_ends_in_time_though_a_call_hangs(tmp_path, model):
    """Here in a search, which no deadline of ours can end."""
    hangs = tmp_path / "hangs.py"
    hangs.write_text(
        "import sys, threading\n"
        "from reco_plugin.cli.app import app\n"
        "from reco_plugin.serve import memory_routes\n"
        "memory_routes.search = lambda *_: threading.Event().wait()\n"
        "sys.argv[0] = 'reco'\n"
        "app()\n"
    )
    flags = ("--memory", ":memory:", "--drain-s", "0.5", "--shutdown-s", "1", "--deadline-s", "60")
    ask = {"json": {"text": "a"}, "headers": {"authorization": "Bearer k"}}
    with (
        process(tmp_path, model, *flags, program=(str(hangs),), RECO_SERVE_ADMIN_KEY="k") as (started, url),
        ThreadPoolExecutor(1) as callers,
    ):
        flying = callers.submit(httpx.post, f"{url}/v1/memory/search", timeout=60, **ask)
        wait_until(lambda: flying.done() or "reco_queue_inputs 1.0" in get(f"{url}/metrics").text)
        begun = time.monotonic()
        started.send_signal(signal.SIGTERM)
        assert flying.result(60).status_code == 503
        started.wait(60)
        assert time.monotonic() - begun < 10
