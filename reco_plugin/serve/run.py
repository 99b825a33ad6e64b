"""Runs the application under uvicorn, in this process."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from ..errors import ConfigError
from ..reco import Reco
from .app import create_app
from .connections import PROBE_CONNECTIONS, make_protocol
from .door import Door
from .hosts import is_loopback
from .listening import MOST_WAITING, Arrivals
from .logs import LOGGER
from .note import Note, answers
from .settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(LOGGER)
PLACE, DOOR = "reco-serve-", "admin.sock"
"""A folder that only this user may enter, and the socket in it for commands, which need no key."""
_ABANDONED_S = 60.0
_NOT_STARTED = 3
"""Exit code, as uvicorn's own."""
_OTHER_FILES = 128  # that a service has open, besides connections
_QUIET_S = 1.0  # without a request and a connection, after which nobody is waited for
_LOOK_S = 0.05
_COLLECTED_AFTER = 10_000, 20, 50
"""Objects, collections of young ones, and of older ones, where Python has 700, 10 and 10."""
_TURN_S = 0.0003
"""For how long a thread that computes keeps Python's lock from one that reads HTTP, which wants it for less, and often:
it wants it four times or more for each new connection. Beside two threads that compute, some 600 new connections are
answered a second with 5 ms, as Python has it, 1,000 with 1 ms, and 1,800 with .3; less brings no more."""


def server_options(settings: ServeSettings, door: Door) -> dict[str, Any]:
    """Options of uvicorn; its access log is off, since ours has the request's id."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": make_protocol(settings, door),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": settings.idle_timeout_s,
        "timeout_graceful_shutdown": settings.shutdown_s,
        "root_path": settings.root_path,
    }


def check_address(settings: ServeSettings) -> None:
    """Check that the address is free, before a model is loaded.

    Raises:
        ConfigError: another program listens there, or this machine has no such address.
    """
    host, port = settings.host, settings.port
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in places:
            socket.create_server(address, family=family).close()
    except OSError as error:
        unknown = isinstance(error, socket.gaierror)  # its errno is not the system's
        why = error.strerror if unknown else os.strerror(error.errno or 0)
        raise ConfigError(f"cannot listen on {_joined(host, port)}: {why}. {_another_address(error.errno)}") from None


def _another_address(number: int | None) -> str:
    if number == errno.EADDRINUSE:
        return "Another program has this port, perhaps another reco serve: end it, or choose a port: --port 8081"
    if number == errno.EACCES:
        return "Ports below 1024 are reserved here: choose one above, --port 8080"
    return "Give an address of this machine: --host 127.0.0.1 for itself alone, --host 0.0.0.0 for all that reach it"


def run(settings: ServeSettings, reco: Reco) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; requests in flight are answered first.

    Args:
        settings: of the service.
        reco: what it serves.
    """
    import uvicorn

    _allow_open_files(settings.max_connections + PROBE_CONNECTIONS + MOST_WAITING + _OTHER_FILES)
    # uvicorn raises the signal again at its end, which would end the process before the memory is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    end_on_hang_up()
    # against DNS rebinding: a web page whose name resolves to 127.0.0.1 could read answers
    hosts = settings.allowed_hosts if settings.allowed_hosts or is_loopback(settings.host) else None
    warn_of_open_door(settings)
    app = create_app(settings, reco, hosts)
    sys.setswitchinterval(_TURN_S)
    spare_the_collector()
    server = _announcing(app)(uvicorn.Config(app, **server_options(settings, app.state.door)))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def spare_the_collector() -> None:
    """Let Python's collector look for circles less often, and not through what is loaded by now, which stays.

    It holds Python's lock meanwhile, took a tenth of the CPU of many callers, and what requests hold has no circles.
    """
    gc.set_threshold(*_COLLECTED_AFTER)
    gc.freeze()


def end_on_hang_up() -> None:
    """Take SIGHUP, of a terminal that closes, for SIGTERM; what `nohup` started goes on."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def warn_of_open_door(settings: ServeSettings) -> None:
    """Warn where others reach the service and need no key."""
    if not (is_loopback(settings.host) or settings.api_keys):
        log.warning(
            "whoever reaches %s may use this: set api_keys (RECO_SERVE_API_KEYS)",
            _joined(settings.host, settings.port),
        )


def _allow_open_files(needed: int) -> None:
    """Let this process open so many files, if the system lets it; a warning where it does not."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= needed:
        return
    allowed = needed if most == resource.RLIM_INFINITY else min(needed, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    if allowed < needed:
        message = "max_connections needs %d open files, the system allows %d (ulimit -n): lower it, or raise that"
        log.warning(message, needed, allowed)


def remove_abandoned() -> None:
    """Remove the sockets of services of this user that were killed, if they are old enough to have been opened."""
    for place in Path(tempfile.gettempdir()).glob(f"{PLACE}*"):
        with suppress(OSError):
            found = place.stat()
            mine = found.st_uid == os.getuid() and time.time() - found.st_mtime > _ABANDONED_S
            if mine and not answers(place / DOOR):
                shutil.rmtree(place)


def _announcing(app: FastAPI) -> type[uvicorn.Server]:
    """Make uvicorn's server class that also listens on a socket of this user, and says both in the memory's folder."""
    import uvicorn

    in_use = app.state.edge.in_use

    class Announcing(uvicorn.Server):
        _arrivals: Arrivals | None = None
        _here: str | None = None
        _at_once = False

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.started:
                return
            answer = partial(_protocol_class(self).answer_at_once, state=self.server_state)
            self._arrivals = Arrivals(_protocol_of(self), answer)
            self.servers += await self._arrivals.take_from(self.servers, self.config.backlog)
            if in_use.in_folder:
                await self._listen_here()
                in_use.announce(Note(in_use.name, self._url(), self._here, os.getpid()))
            for line in places(app.state.edge.settings, self._url()):
                log.info(line)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self._at_once = self._at_once or sig == signal.SIGINT  # of a person, who waits for it
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            in_use.leave()
            app.state.health.stopping = True
            await _drain(self, self._arrivals, 0.0 if self._at_once else app.state.edge.settings.drain_s)
            await super().shutdown(sockets)
            if self._here is not None:
                shutil.rmtree(Path(self._here).parent, ignore_errors=True)

        async def _listen_here(self) -> None:
            """Listen in a folder that only this user may enter; where that fails, there is the URL."""
            try:
                remove_abandoned()
                place = str(Path(tempfile.mkdtemp(prefix=PLACE)) / DOOR)
                await self._accept_at(path=place)
            except (OSError, AttributeError, NotImplementedError) as error:
                log.warning("commands on this machine need the admin key: no socket could be made: %s", error)
            else:
                self._here = place

        async def _accept_at(self, **where: Any) -> None:
            self.servers.append(await _serve_unix(_protocol_of(self), **where))

        def _url(self) -> str:
            return shown_url(*self.servers[0].sockets[0].getsockname()[:2])

    return Announcing


def _protocol_class(server: uvicorn.Server) -> Any:
    return server.config.http_protocol_class


def _protocol_of(server: uvicorn.Server) -> Callable[[], asyncio.Protocol]:
    return partial(
        _protocol_class(server), config=server.config, server_state=server.server_state, app_state=server.lifespan.state
    )


async def _serve_unix(make: Callable[[], asyncio.Protocol], **where: Any) -> asyncio.Server:
    """Serve at a path."""
    return await asyncio.get_running_loop().create_unix_server(make, **where)


def shown_url(host: str, port: int) -> str:
    """The URL by which a service is reached from its own machine."""
    named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - how others reach it
    return f"http://{_joined(named, port)}"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _drain(server: uvicorn.Server, arrivals: Arrivals | None, seconds: float) -> None:
    """Go on for a while, since a balancer still sends requests here: each connection is told to close by an answer.

    It ends where nobody asks any more.
    """
    protocol = _protocol_class(server)
    until = time.monotonic() + seconds
    protocol.stop(server.server_state.connections)
    while (now := time.monotonic()) < until and not server.force_exit:
        if not server.server_state.connections and now - protocol.service.asked_at > _QUIET_S:
            break
        await asyncio.sleep(_LOOK_S)
    if arrivals is not None:
        await arrivals.end(server.servers)


def places(settings: ServeSettings, url: str) -> list[str]:
    """Where a service is found at this address, for people: in a browser, and by programs.

    >>> places(ServeSettings(page=False, host="0.0.0.0"), "http://127.0.0.1:8080")
    ['listening on 0.0.0.0; from here: http://127.0.0.1:8080', 'interface: http://127.0.0.1:8080/docs']
    """
    way = "" if settings.host in url else f"{settings.host}; from here: "
    shown = [f"listening on {way}{url}"]
    if settings.page:
        shown.append(f"playground: {url}{settings.root_path}/")
    return [*shown, f"interface: {url}{settings.root_path}/docs"]
