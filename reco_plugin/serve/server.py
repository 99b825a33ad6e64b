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
from .hosts import is_loopback
from .logs import LOGGER
from .note import Note
from .service_settings import ServeSettings

log = logging.getLogger(LOGGER)
_NOT_STARTED = 3
"""Exit code, as uvicorn's own."""
_IDLE_S = 75
"""A connection without a request, or whose request's head is not complete, is closed: later than httpx (5), nginx and
AWS's balancers (60) close theirs, so none sends a request just as it is closed here."""
_MOST_HEAD = 64_000
"""Bytes of a request's head; twice what nginx takes."""
_OFFER = re.compile(rb"\r\n(upgrade|http2-settings)[ \t]*:[^\r\n]*", re.IGNORECASE)
_QUIET_S, _LOOK_S = 1.0, 0.05  # without a connection, after which nobody is waited for
_GRACE_S = 2.0  # to close the memory, once requests have ended
_COLLECTED_AFTER = 10_000, 20, 50
"""Objects, collections of young ones, and of older ones, where Python has 700, 10 and 10."""
_MMAP_THRESHOLD, _MMAP_FROM = -3, 4_000_000
"""An option of glibc's mallopt, and its value: a block of so many bytes goes back to the system when it is freed. By
default, the heap of each thread keeps the blocks of 16 MB that Pillow allocates for a large image."""
_TURN_S = 0.0005
"""For how long a thread that computes keeps Python's lock from the one that reads HTTP; Python has ten times this."""


class HttpOne(HttpToolsProtocol):
    """Bounds the head of a request, in bytes and in time, and passes over an offer of HTTP/2.

    Java's client makes this offer in each request: its body would not be read.
    """

    _unread = 0  # bytes since the end of a head or of a part of a body: of a head, or of what follows a body
    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._closing = self.loop.call_later(_IDLE_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Take what came, without an offer in its head."""
        head, end, body = data.partition(b"\r\n\r\n")
        if end and b" HTTP/1.1\r\n" in head and b"h2c" in head:
            data = _OFFER.sub(b"", head) + end + body
        self._unread += len(data)
        super().data_received(data)
        if self._unread > _MOST_HEAD and not self.transport.is_closing():
            self.send_400_response(f"the head of the request has more than {_MOST_HEAD:,} bytes: send shorter headers")

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        if self._closing is None:
            self._closing = self.loop.call_later(_IDLE_S, self.transport.close)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._unread = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body."""
        self._unread = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None


def server_options(settings: ServeSettings) -> dict[str, Any]:
    """Options of uvicorn; its access log is off, since ours has the request's id."""
    return {
        "http": HttpOne,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": _IDLE_S,
        "timeout_graceful_shutdown": settings.shutdown_s,
    }


def bind(settings: ServeSettings) -> socket.socket:
    """A socket at the address, made before a model is loaded; it does not listen yet.

    Raises:
        ConfigError: another program listens there, or this machine has no such address.
    """
    host, port = settings.host, settings.port
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name != "nt":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        place, why = _joined(host, port), error.strerror
        raise ConfigError(f"cannot listen on {place}: {why}. Choose another --port or --host") from None
    return made


def run(settings: ServeSettings, reco: Reco, listener: socket.socket) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests in flight are answered first.

    Args:
        settings: of the service.
        reco: what it serves.
        listener: at its address, of :func:`bind`.
    """
    # uvicorn raises the signal again at its end, which would end the process before the memory is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup's goes on
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    # against DNS rebinding: a web page whose name resolves to 127.0.0.1 could read answers
    hosts = settings.allowed_hosts if settings.allowed_hosts or is_loopback(settings.host) else None
    if not (is_loopback(settings.host) or settings.api_keys or settings.keys_file):
        place = _joined(settings.host, settings.port)
        log.warning("whoever reaches %s may use this: set keys_file or api_keys", place)
    token = secrets.token_urlsafe(32)
    app = create_app(settings, reco, hosts, token)
    sys.setswitchinterval(_TURN_S)
    gc.set_threshold(*_COLLECTED_AFTER)  # which holds Python's lock, and finds few circles in requests
    gc.freeze()
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl's has none
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _MMAP_FROM)
    server = _Server(app, settings, token)
    with suppress(KeyboardInterrupt):
        server.run([listener])
    if not server.started:
        sys.exit(_NOT_STARTED)
    if not app.state.edge.busy:  # a memory whose server is away may be tried for a minute: what it was told is stored
        _end_in(_GRACE_S, 0, "the memory is left as it is, since it does not close")


class _Server(uvicorn.Server):
    """Drains after SIGTERM, ends in time whatever hangs, and says where it listens in the memory's folder."""

    def __init__(self, app: FastAPI, settings: ServeSettings, token: str) -> None:
        super().__init__(uvicorn.Config(app, **server_options(settings)))
        self._state, self._settings, self._token = app.state, settings, token
        self._state.metrics.connections = lambda: len(self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        url, in_use = shown_url(*sockets[0].getsockname()[:2]), self._state.edge.in_use
        if in_use.in_folder:
            in_use.announce(Note(url, self._token, os.getpid()))
        for line in places(self._settings, url):
            log.info(line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: at once if a person waits for it, or asks again; else go on while a balancer looks elsewhere."""
        again, self._state.edge.stopping = self._state.edge.stopping, True
        drain_s = 0.0 if again or sig == signal.SIGINT else self._settings.drain_s
        seconds = _GRACE_S if again else drain_s + self._settings.shutdown_s + _GRACE_S
        _end_in(seconds, 1, "calls hang, and the process ends without them")
        if drain_s:
            threading.Thread(target=self._drain, args=(drain_s, sig, frame), daemon=True).start()
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the note away, and wait for requests in flight."""
        self._state.edge.in_use.leave()
        await super().shutdown(sockets)

    def _drain(self, seconds: float, sig: int, frame: FrameType | None) -> None:
        """Each answer closes its connection meanwhile; it ends where nobody is connected any more."""
        quiet_since, answered = time.monotonic(), 0
        until = quiet_since + seconds
        while (now := time.monotonic()) < until and now - quiet_since < _QUIET_S:
            if self.server_state.connections or self.server_state.total_requests > answered:
                quiet_since, answered = now, self.server_state.total_requests
            time.sleep(_LOOK_S)
        super().handle_exit(sig, frame)


def _end_in(seconds: float, code: int, why: str) -> None:
    """End this process by then: a call that hangs keeps its thread, and Python would wait for it."""

    def end() -> None:
        log.warning("%s", why)
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def shown_url(host: str, port: int) -> str:
    """The URL by which a service is reached from its own machine."""
    named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - how others reach it
    return f"http://{_joined(named, port)}"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def places(settings: ServeSettings, url: str) -> list[str]:
    """Where a service is found at this address, for people: in a browser, and by programs.

    >>> places(ServeSettings(page=False, host="0.0.0.0"), "http://127.0.0.1:8080")
    ['listening on 0.0.0.0; from here: http://127.0.0.1:8080', 'interface: http://127.0.0.1:8080/openapi.json']
    """
    way = "" if settings.host in url else f"{settings.host}; from here: "
    shown = [f"listening on {way}{url}"]
    if settings.page:
        shown.append(f"playground: {url}/")
    return [*shown, f"interface: {url}/openapi.json"]
