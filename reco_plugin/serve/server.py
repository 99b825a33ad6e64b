"""Runs the application under uvicorn, in this process."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import ConfigError
from ..reco import Reco
from .app import create_app
from .app_state import AppState
from .auth import is_loopback
from .logs import LOGGER
from .note import Note
from .service_settings import ServeSettings

log = logging.getLogger(LOGGER)
_NOT_STARTED = 3
"""Exit code, as uvicorn's own."""
_IDLE_S = 75
"""Seconds after which a connection without a complete head of a request is closed. httpx (5), nginx and AWS's load
balancers (60) close theirs earlier, so none of them sends a request just as this service closes the connection."""
_MAX_HEAD_BYTES = 64_000
"""Limit of a request's head, twice that of nginx."""
_UPGRADE = re.compile(rb"\r\n(upgrade|http2-settings)[ \t]*:[^\r\n]*", re.IGNORECASE)
_QUIET_S, _POLL_S = 1.0, 0.05  # seconds without a connection that end the drain
_GRACE_S = 2.0  # to close the memory, once requests have ended
_GC_THRESHOLDS = 10_000, 20, 50
"""Of the garbage collector. Python has 700, 10 and 10."""
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 4_000_000
"""An option of glibc's mallopt, and its value: blocks from this size on are returned to the system when they are freed.
By default, the heap of each thread keeps the blocks of 16 MB that Pillow allocates for a large image."""
_SWITCH_INTERVAL_S = 0.0005
"""For how long a thread that computes keeps Python's lock from the one that reads HTTP. Python has ten times this."""


class Http1Protocol(HttpToolsProtocol):
    """Limits the head of a request in bytes and in time, and removes an offer of HTTP/2 from it.

    Java's client makes this offer in each request, and uvicorn would not read the body then.
    """

    _head_bytes = 0  # received since the last head or part of a body
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_IDLE_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Receive bytes, without an offer of HTTP/2 in their head."""
        head, end, body = data.partition(b"\r\n\r\n")
        if end and b" HTTP/1.1\r\n" in head and b"h2c" in head:
            data = _UPGRADE.sub(b"", head) + end + body
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(
                f"the head of the request has more than {_MAX_HEAD_BYTES:,} bytes: send shorter headers"
            )

    def on_message_begin(self) -> None:
        """Start the timer for the rest of the head."""
        super().on_message_begin()
        if self._timer is None:
            self._timer = self.loop.call_later(_IDLE_S, self.transport.close)

    def on_headers_complete(self) -> None:
        """Stop the timer."""
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self._head_bytes = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def server_options(settings: ServeSettings) -> dict[str, Any]:
    """Return the options of uvicorn. Its access log is off, since ours has the id of the request."""
    return {
        "http": Http1Protocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": _IDLE_S,
        "timeout_graceful_shutdown": settings.shutdown_s,
    }


def bind(settings: ServeSettings) -> socket.socket:
    """Bind a socket to the address, before a model is loaded. It does not listen yet.

    Raises:
        ConfigError: the address is in use, or this machine does not have it.
    """
    host, port = settings.host, settings.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        address, why = _address(host, port), error.strerror
        raise ConfigError(f"cannot listen on {address}: {why}. Choose another --port or --host") from None
    return listener


def run(settings: ServeSettings, reco: Reco, listener: socket.socket) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. Requests in flight are answered first.

    Args:
        settings: of the service.
        reco: what is served.
        listener: from :func:`bind`.
    """
    # uvicorn raises the signal again when it ends, and the process would end before the memory is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # against DNS rebinding: a web page could read answers if its name resolved to 127.0.0.1
    hosts = settings.allowed_hosts if settings.allowed_hosts or is_loopback(settings.host) else None
    if not (is_loopback(settings.host) or settings.api_keys or settings.keys_file):
        address = _address(settings.host, settings.port)
        log.warning("everybody who reaches %s may use this service: set keys_file or api_keys", address)
    token = secrets.token_urlsafe(32)
    app = create_app(settings, reco, hosts, token)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*_GC_THRESHOLDS)  # it holds Python's lock, and requests have few cycles
    gc.freeze()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl's has none
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    server = _Server(app, settings, token)
    with suppress(KeyboardInterrupt):
        server.run([listener])
    if not server.started:
        sys.exit(_NOT_STARTED)
    if not app.state.shared.is_busy:  # closing may try a server that is down for a minute; all writes are stored
        _end_in(_GRACE_S, 0, "the memory is left as it is, since it does not close")


class _Server(uvicorn.Server):
    """Drains after SIGTERM, ends in time even if a call hangs, and leaves a note in the memory's folder."""

    def __init__(self, app: FastAPI, settings: ServeSettings, token: str) -> None:
        super().__init__(uvicorn.Config(app, **server_options(settings)))
        self._shared: AppState = app.state.shared
        self._settings, self._token = settings, token
        app.state.metrics.connections = lambda: len(self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and log the address."""
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        url, version = local_url(*sockets[0].getsockname()[:2]), self._shared.live_version
        if version.is_folder:
            version.write_note(Note(url, self._token, os.getpid()))
        for line in addresses(self._settings, url):
            log.info(line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: at once after SIGINT or a second signal, else after a load balancer had time to notice."""
        again, self._shared.is_stopping = self._shared.is_stopping, True
        drain_s = 0.0 if again or sig == signal.SIGINT else self._settings.drain_s
        seconds = _GRACE_S if again else drain_s + self._settings.shutdown_s + _GRACE_S
        _end_in(seconds, 1, "calls hang, and the process ends without them")
        if drain_s:
            threading.Thread(target=self._drain, args=(drain_s, sig, frame), daemon=True).start()
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Remove the note, and wait for requests in flight."""
        self._shared.live_version.remove_note()
        await super().shutdown(sockets)

    def _drain(self, seconds: float, sig: int, frame: FrameType | None) -> None:
        """Wait until no client is connected, while each answer closes its connection."""
        quiet_since, answered = time.monotonic(), 0
        until = quiet_since + seconds
        while (now := time.monotonic()) < until and now - quiet_since < _QUIET_S:
            if self.server_state.connections or self.server_state.total_requests > answered:
                quiet_since, answered = now, self.server_state.total_requests
            time.sleep(_POLL_S)
        super().handle_exit(sig, frame)


def _end_in(seconds: float, code: int, why: str) -> None:
    """End this process after so many seconds. Python itself would wait for the thread of a call that hangs."""

    def end() -> None:
        log.warning("%s", why)
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def local_url(host: str, port: int) -> str:
    """Return the URL of a service for clients on the same machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the addresses of all interfaces
    return f"http://{_address(name, port)}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses(settings: ServeSettings, url: str) -> list[str]:
    """Return lines for people: where the service listens, and the addresses of the playground and the interface.

    >>> addresses(ServeSettings(page=False, host="0.0.0.0"), "http://127.0.0.1:8080")
    ['listening on 0.0.0.0; from here: http://127.0.0.1:8080', 'interface: http://127.0.0.1:8080/openapi.json']
    """
    host = "" if settings.host in url else f"{settings.host}; from here: "
    page = [f"playground: {url}/"] if settings.page else []
    return [f"listening on {host}{url}", *page, f"interface: {url}/openapi.json"]
