"""deploy/nginx.conf, before two services: restarts, outages and crowds break no request, and little is open."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from live_service import wait_until
from qdrant_stand_in import serving

from reco_plugin import Pair, Reco
from reco_plugin.serve.service_settings import ServeSettings

pytestmark = pytest.mark.slow
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

FILE = Path("deploy", "nginx.conf")
KEY = "the-admin-key-4711"
LOAD, PAUSE_S = 4, 0.02  # callers, and how long each waits between two requests
EMBED = "/v1/embeddings"
BODY = json.dumps({"model": "clip-reco-query", "input": ["a large red circle"]}).encode()
JSON = {"content-type": "application/json"}


def test_its_limits_are_those_of_the_service(root: Path) -> None:
    text, settings = (root / FILE).read_text("utf-8"), ServeSettings()
    found = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)[ms];", text)}
    assert found["client_max_body_size"] << 20 >= settings.max_body_bytes
    assert found["proxy_read_timeout"] > settings.deadline_s
    assert f"127.0.0.1:{settings.port} " in text


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, given: HTTPResponse) -> Answer:
        """Read to its end, with the names of its headers in small letters."""
        return cls(given.status, {name.lower(): value for name, value in given.getheaders()}, given.read())

    @property
    def code(self) -> str:
        """Of its error; an answer that is no JSON fails."""
        return str(json.loads(self.body)["error"]["code"])


def ask(
    port: int, path: str, body: bytes | None = None, *, method: str = "", source: str = "127.0.0.1", **headers: str
) -> Answer:
    """One request in a connection of its own; the path is sent as it is."""
    asked = HTTPConnection("127.0.0.1", port, timeout=120, source_address=(source, 0))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        asked.request(method or ("POST" if body else "GET"), path, body, {**JSON, **named})
        return Answer.of(asked.getresponse())
    finally:
        asked.close()


def free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        made = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


@contextmanager
def nginx(root: Path, folder: Path, services: list[int]) -> Iterator[int]:
    """The shipped file with other ports, and with its own files in a folder; yields its port."""
    text, [port] = (root / FILE).read_text("utf-8"), free_ports(1)
    paths = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    for shipped, here in {
        "http {": f"http {{ {paths}",
        "/var/log/nginx/access.log": str(folder / "access.log"),
        "listen 8443;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8080 max_fails=0;": "".join(f"server 127.0.0.1:{each} max_fails=0;" for each in services),
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    (folder / "nginx.conf").write_text(text)
    as_this_user = f"daemon off; master_process off; pid {folder}/pid;"
    command = ["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log", "-g", as_this_user]
    running = subprocess.Popen(command)
    try:
        wait_until(lambda: running.poll() is not None or listens(port))
        assert running.poll() is None, (folder / "error.log").read_text()
        yield port
    finally:
        running.terminate()
        running.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Service:
    """``reco serve`` at a port, which can be started again."""

    port: int
    log: Path
    settings: dict[str, str]
    _running: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RECO_", "FORWARDED_"))}
        command = [sys.executable, "-m", "reco_plugin", "serve", "--port", str(self.port), "--no-page"]
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(command, stderr=log, env=clean | self.settings)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self._running.poll() is not None or (listens(self.port) and self._serves()))
        assert self._running.poll() is None, self.log.read_text()

    def _serves(self) -> bool:
        """Ready, but perhaps for its memory."""
        reasons = json.loads(ask(self.port, "/readyz").body)["reasons"]
        return all(one.startswith("memory: ") for one in reasons)

    def restart(self) -> None:
        """As docs/run.md says."""
        self._running.send_signal(signal.SIGTERM)
        assert self._running.wait(120) == 0, self.log.read_text()
        self.start()
        self.wait_until_ready()

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()


@dataclass
class Fleet:
    """nginx before two services on one memory."""

    port: int
    services: list[Service]


@pytest.fixture(scope="module")
def fleet(root: Path, model: Path, drawings: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("nginx")
    with serving() as memory, ExitStack() as ends:
        with Reco.open(model, memory=memory.url("grpc")) as writer:
            writer.memory.add(drawings)
        settings = {
            "RECO_MODEL": str(model),
            "RECO_MEMORY": memory.url("grpc"),
            "RECO_MEMORY_TIMEOUT_S": "60",  # on a machine with much to do
            "RECO_BREAKER_RETRY_S": "1",
            "RECO_ON_MEMORY_FAILURE": "fail",
            "RECO_SERVE_ALLOWED_HOSTS": "shop.example",
            "RECO_SERVE_ADMIN_KEY": KEY,
            "RECO_SERVE_DRAIN_S": "1",
            "RECO_SERVE_DEADLINE_S": "100",
        }
        services = [Service(port, folder / f"{port}.log", settings) for port in free_ports(2)]
        for one in services:
            one.start()
            ends.callback(one.kill)
        for one in services:
            one.wait_until_ready()
        with nginx(root, folder, [one.port for one in services]) as port:
            yield Fleet(port, services)


@dataclass
class Load:
    """What callers were answered: status, and why vectors are plain."""

    seen: list[tuple[int, str]] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)

    def wait(self, times: int = 4 * LOAD) -> None:
        """Until so many more answers have come."""
        begun = len(self.seen)
        wait_until(lambda: self.broken or len(self.seen) >= begun + times)


@contextmanager
def load(port: int) -> Iterator[Load]:
    """Callers that ask one query after another, each in a connection that it keeps; no request may break."""
    made, enough = Load(), threading.Event()

    def call() -> None:
        kept = HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while not enough.wait(PAUSE_S):
                kept.request("POST", EMBED, BODY, JSON)
                given = Answer.of(kept.getresponse())
                made.seen.append((given.status, given.headers.get("x-reco-degraded", "")))
        except Exception as error:
            made.broken.append(error)
        finally:
            kept.close()

    callers = [threading.Thread(target=call) for _ in range(LOAD)]
    for each in callers:
        each.start()
    try:
        yield made
    finally:
        enough.set()
        for each in callers:
            each.join()
    assert made.broken == []


FINE = (200, "")


@needs_nginx
def test_a_rolling_restart_breaks_no_request(fleet: Fleet) -> None:
    with load(fleet.port) as seen:
        for one in fleet.services:
            seen.wait()
            one.restart()
        seen.wait()
    assert set(seen.seen) == {FINE}


@contextmanager
def crowd(port: int, number: int) -> Iterator[list[HTTPConnection]]:
    """Requests that are all on their way: of each body the last byte is missing."""
    with ExitStack() as ends:
        callers = [HTTPConnection("127.0.0.1", port, timeout=120) for _ in range(number)]
        for each in callers:
            ends.callback(each.close)
            each.putrequest("POST", EMBED)
            each.putheader("content-type", "application/json")
            each.putheader("content-length", str(len(BODY)))
            each.endheaders(BODY[:-1])
        yield callers


@needs_nginx
def test_a_hundred_at_once_are_answered(fleet: Fleet) -> None:
    with crowd(fleet.port, 100) as callers:
        for each in callers:
            each.send(BODY[-1:])
        assert {each.getresponse().status for each in callers} == {200}


@needs_nginx
def test_many_more_of_one_address_are_told_to_wait(fleet: Fleet) -> None:
    with crowd(fleet.port, 257) as callers:
        refused = Answer.of(callers[-1].getresponse())
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "too_many_connections", "1")


def operations(root: Path) -> dict[tuple[str, str], bool]:
    """Each documented request, and whether strangers may make it."""
    paths: dict[str, Any] = json.loads((root / "docs" / "openapi.json").read_text("utf-8"))["paths"]
    return {
        (method.upper(), re.sub(r"{\w+(:path)?}", "clip", path)): not re.match("/v1/memory|/metrics", path)
        for path, methods in paths.items()
        for method in methods
    }


@needs_nginx
def test_what_embeds_is_open_and_the_rest_is_not(fleet: Fleet, root: Path) -> None:
    """As a client may write a path, with a prefix or slashes too many; and as no client writes one."""
    cases = operations(root) | {
        ("POST", "/"): True,
        ("POST", "/refined"): True,
        ("POST", "/plain//v1/v1/embeddings/"): True,
        ("POST", "/openai/deployments/clip/embeddings"): True,
        ("GET", "/health"): True,
        ("GET", "/"): False,
        ("GET", "/plain/"): False,
        ("GET", "/page/examples"): False,
        ("GET", "//metrics"): False,
        ("GET", "/plain/metrics"): False,
        ("GET", "/refined/v1/memory"): False,
        ("GET", "/v1/v1//memory/pairs"): False,
        ("GET", "/%76%31/memory"): False,
        ("GET", "/v1/embeddings/../memory"): False,
        ("GET", "/v1/embeddings/%2e%2e%2fmemory"): False,
    }
    assert {True, False} == set(operations(root).values())
    for (method, path), is_open in cases.items():
        given = ask(fleet.port, path, b"{}" if method == "POST" else None, method=method, authorization=f"Bearer {KEY}")
        closed = given.status == 403 and given.code == "path_closed"
        assert closed is not is_open and given.status not in (404, 405), (method, path, given)


@needs_nginx
def test_the_service_hears_which_host_was_asked_by_whom(fleet: Fleet) -> None:
    assert ask(fleet.port, "/v1/models", host="shop.example").status == 200
    assert ask(fleet.port, "/v1/models", host="evil.example").code == "host_unknown"
    forged = {"x_forwarded_for": "10.9.8.7", "x_request_id": "call-4711"}
    assert ask(fleet.port, EMBED, BODY, source="127.0.0.2", **forged).headers["x-request-id"] == "call-4711"
    unnamed = ask(fleet.port, EMBED, BODY, x_request_id="no id").headers["x-request-id"]

    def logged(name: str) -> list[Any]:
        lines = [line for one in fleet.services for line in one.log.read_text().splitlines() if name in line]
        return [json.loads(line)["client"] for line in lines]

    wait_until(lambda: logged("call-4711") and logged(unnamed))
    assert logged("call-4711") == ["127.0.0.2"]
    assert f" {unnamed}\n" in (fleet.services[0].log.parent / "access.log").read_text()


@needs_nginx
def test_what_nginx_says_of_itself_is_json(root: Path, tmp_path: Path) -> None:
    with nginx(root, tmp_path, free_ports(2)) as port:
        nobody = ask(port, EMBED, BODY, x_request_id="call-4711")
        large = HTTPConnection("127.0.0.1", port, timeout=120)
        large.putrequest("POST", EMBED)
        large.putheader("content-length", str(1 << 30))
        large.endheaders()
        refused = Answer.of(large.getresponse())
        large.close()
    assert (nobody.status, nobody.code) == (503, "service_unavailable")
    told = ("retry-after", "x-amzn-errortype", "x-request-id", "content-type")
    assert [nobody.headers[name] for name in told] == ["1", "ThrottlingException", "call-4711", "application/json"]
    assert (refused.status, refused.code) == (413, "body_too_large")
