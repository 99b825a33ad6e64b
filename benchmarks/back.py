"""How long after a memory's server is gone, or back, ``reco serve`` knows it.

Run ``python -m benchmarks.back [http|grpc]``. Before the tests' stand-in stands a proxy that is cut off and paused.
With ``--hosts`` the server moves to another address, too: the file must stand at /etc/hosts, as in
``unshare -m bash -c 'mount --bind FILE /etc/hosts && python -m benchmarks.back --hosts FILE'``.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from reco_plugin import Reco
from reco_plugin.demo.tasks import pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, load

from .load.service import free_port, started
from .page import machine, table
from .stand_in import server

NAME, PAIRS, DOWN_S = "qdrant.test", 100, 6.0


class Proxy:
    """Carries bytes to a server until it is stopped; it may hold them back."""

    def __init__(self, host: str, port: int, to: int) -> None:
        self.host, self.port, self.to = host, port, to
        self.flows = threading.Event()
        self._open: list[socket.socket] = []

    def start(self) -> None:
        """Listen."""
        self.flows.set()
        self._listener = socket.create_server((self.host, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Close all, as a machine does that is killed."""
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                behind = socket.create_connection(("127.0.0.1", self.to))
                self._open += [client, behind]
                for ends in ((client, behind), (behind, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self.flows.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Print a table: seconds until ``/readyz`` knew, until answers were refined again, and the slowest callers."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.back", description=__doc__)
    words.add_argument("scheme", nargs="?", choices=("grpc", "http"), default="grpc")
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--hosts", type=Path, help="file at /etc/hosts, which is written")
    told = words.parse_args()
    with server(told.scheme) as url, tempfile.TemporaryDirectory() as folder:
        with Reco.open(told.model, memory=url) as reco:
            reco.memory.add(pairs(load(), ALL_SPLITS)[:PAIRS])
        front, behind = free_port(), int(url.rpartition(":")[2])
        here, there = (Proxy(host, front, behind) for host in ("127.0.0.1", "127.0.0.2"))
        stand_at(told.hosts, here)
        memory = f"{told.scheme}://{NAME if told.hosts else here.host}:{front}"
        with started(told.model, memory, Path(folder, "log"), ("--no-page",)) as service:
            rows = [
                [name, *outage(service.url, down, up)]
                for name, down, up in (
                    ("cut off", here.stop, here.start),
                    ("paused", here.flows.clear, here.flows.set),
                    *(moves(told.hosts, here, there) if told.hosts else ()),
                )
            ]
        (there if told.hosts else here).stop()
    head = ["server", "/readyz knew after, s", "refined again after, s", "slowest caller meanwhile, s"]
    print(f"{table(head, rows)}\n\n{machine('qdrant-client')}")


def moves(hosts: Path, here: Proxy, there: Proxy) -> Sequence[tuple[str, Callable[[], None], Callable[[], None]]]:
    """It is cut off, and comes back at another address."""
    return [("cut off, back at another address", here.stop, lambda: stand_at(hosts, there))]


def stand_at(hosts: Path | None, proxy: Proxy) -> None:
    """Let the server's name have the address of a proxy, which begins to listen."""
    if hosts is not None:
        hosts.write_text(f"127.0.0.1 localhost\n{proxy.host} {NAME}\n")
    proxy.start()


def outage(url: str, down: Callable[[], None], up: Callable[[], None]) -> list[str]:
    """Make one while a caller asks."""
    slowest, known = 0.0, None
    if asks(url) is not None:
        raise SystemExit("answers are not refined before the outage")
    down()
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + DOWN_S:
        asks(url)
        slowest = max(slowest, time.perf_counter() - now)
        if known is None and httpx.get(f"{url}/readyz").json()["degraded"]:
            known = time.perf_counter() - begun
        time.sleep(0.05)
    up()
    begun = time.perf_counter()
    while asks(url) is not None:
        time.sleep(0.02)
    back = time.perf_counter() - begun
    return ["never" if known is None else f"{known:.2f}", f"{back:.2f}", f"{slowest:.2f}"]


def asks(url: str) -> str | None:
    """Ask for a refined text; why it was not refined."""
    body = {"model": "clip-reco-query", "input": ["a red fox"]}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=30).raise_for_status()
    why: str | None = answer.headers.get("x-reco-degraded")
    return why


if __name__ == "__main__":
    main()
