"""The end of ``reco serve``: who asks meanwhile is answered, is told to go elsewhere, and finds no door slammed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import typing
from pathlib import Path

import httpx
import pytest
from live_service import wait_until

from reco_plugin.serve.note import NAME
from reco_plugin.serve.run import end_on_hang_up

from .test_core_run import environment, process

ASK = {"json": {"model": "clip", "input": ["a red fox"]}}


def ready(running, url):
    wait_until(lambda: running.poll() is not None or httpx.get(f"{url}/readyz").status_code == 200)


@pytest.fixture
def no_nohup():
    """What is started hears of its terminal's end, also where nohup runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_after_sigterm_it_answers_for_a_while_and_says_that_it_is_not_ready(tmp_path, model):
    with process(tmp_path, model, "--memory", ":memory:", "--drain-s", "3") as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert "connection" not in kept.post(f"{url}/v1/embeddings", **ASK).headers
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert httpx.get(f"{url}/readyz").json()["reasons"] == ["the service is stopping"]
        for answer in (kept.post(f"{url}/v1/embeddings", **ASK), httpx.post(f"{url}/v1/embeddings", **ASK)):
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert running.wait(60) == 0


def test_what_is_in_flight_is_told_too(tmp_path, model):
    """Of a body that arrives slowly, with the signal in the middle."""
    with process(tmp_path, model, "--memory", ":memory:") as (running, url):
        ready(running, url)
        body = json.dumps(ASK["json"]).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
            line.sendall(head + body[:10])
            wait_until(lambda: httpx.get(f"{url}/livez").is_success)
            running.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
            line.sendall(body[10:])
            answer = b""
            while part := line.recv(1 << 16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK") and b"\r\nconnection: close\r\n" in answer
        assert running.wait(60) == 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_where_nobody_asks_it_ends_at_once(tmp_path, model, sent):
    with process(tmp_path, model, "--memory", ":memory:", "--drain-s", "60") as (running, url):
        ready(running, url)
        running.send_signal(sent)
        assert running.wait(30) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_terminal_that_closes_ends_it_as_sigterm_does(tmp_path, model, no_nohup):
    """It was killed, and left its note of ownership in the memory's folder."""
    with process(tmp_path, model) as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert "connection" not in kept.post(f"{url}/v1/embeddings", **ASK).headers
        assert (tmp_path / "memory" / NAME).exists()
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        assert kept.post(f"{url}/v1/embeddings", **ASK).headers["connection"] == "close"
        assert running.wait(60) == 0
    assert not (tmp_path / "memory" / NAME).exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_what_nohup_started_outlives_its_terminal():
    ignored, said = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGHUP)
    try:
        end_on_hang_up()
        assert signal.getsignal(signal.SIGHUP) is said
    finally:
        signal.signal(signal.SIGHUP, ignored)


def test_a_person_who_presses_ctrl_c_does_not_wait_for_callers(tmp_path, model):
    with process(tmp_path, model, "--memory", ":memory:", "--drain-s", "60") as (running, url), httpx.Client() as kept:
        ready(running, url)
        assert kept.post(f"{url}/v1/embeddings", **ASK).is_success
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0


def test_as_many_files_may_be_opened_as_its_connections_need(tmp_path, model):
    """As a shell that allows 1,024 starts it; where the system allows no more, it is said."""
    for most, warned in ((4096, False), (1024, True)):
        limits = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, {most})); "
        line = [sys.executable, "-c", limits + "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]
        serve = ["-m", "reco_plugin", "serve", "--model", str(model), "--memory", ":memory:", "--port", "0"]
        started = subprocess.Popen([*line, *serve], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        said = []
        for one in typing.cast(typing.IO[str], started.stderr):
            said.append(json.loads(one)["message"])
            if "running on" in said[-1]:
                break
        rows = Path(f"/proc/{started.pid}/limits").read_text("utf-8").splitlines()
        (files,) = [row for row in rows if row.startswith("Max open files")]
        started.kill()
        started.communicate()
        assert any("max_connections needs 1664 open files, the system allows 1024" in one for one in said) is warned
        assert files.split()[3] == ("1024" if warned else "1664")


def test_a_connection_that_was_just_made_is_answered(filled, live):
    """Its request is on its way while the service closes what is idle."""
    with live(filled) as (url, server):
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(ASK["json"]).encode()
        with socket.create_connection((host, int(port))) as line:
            wait_until(lambda: server.server_state.connections)
            server.should_exit = True
            wait_until(lambda: not server.servers[0].is_serving())
            time.sleep(0.05)
            line.sendall(
                f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
            )
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
