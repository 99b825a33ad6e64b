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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from ..errors import ConfigError
from ..reco import Reco
from .app import create_app
from .connections import make_protocol
from .logs import LOGGER, log_to_stderr
from .note import Note, answers
from .routes import is_loopback
from .settings import ServeSettings
from .versions import ServedVersions

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(LOGGER)
_PLACE, _SOCKET, _ABANDONED_S = "reco-serve-", "admin.sock", 60.0
_NOT_STARTED = 3
"""Exit code, as uvicorn's own."""


def server_options(settings: ServeSettings) -> dict[str, Any]:
    """Options of uvicorn; its access log is off, since ours has the request's id."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": make_protocol(settings),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
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
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ConfigError(f"cannot listen on {shown}: {why}. {_another_address(error.errno)}") from None


def _another_address(number: int | None) -> str:
    if number == errno.EADDRINUSE:
        return "Another program has this port, perhaps another reco serve: end it, or choose a port: --port 8081"
    if number == errno.EACCES:
        return "Ports below 1024 are reserved here: choose one above, --port 8080"
    return "Give an address of this machine: --host 127.0.0.1 for itself alone, --host 0.0.0.0 for all that reach it"


def run(settings: ServeSettings, reco: Reco) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first."""
    import uvicorn

    log_to_stderr(settings.log_format, settings.log_level)
    # uvicorn raises the signal again at its end, which would end the process before the memory is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    # against DNS rebinding: a web page whose name resolves to 127.0.0.1 could read answers
    hosts = settings.allowed_hosts if settings.allowed_hosts or is_loopback(settings.host) else None
    if not (is_loopback(settings.host) or settings.api_keys):
        log.warning(
            "whoever reaches %s:%d may use this: set api_keys (RECO_SERVE_API_KEYS)", settings.host, settings.port
        )
    app = create_app(settings, reco, hosts)
    gc.freeze()  # what is loaded by now stays: the collector would look through it every few hundred requests
    server = _announcing(app)(uvicorn.Config(app, **server_options(settings)))
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def _remove_abandoned() -> None:
    """Remove the sockets of services of this user that were killed, if they are old enough to have been opened."""
    for place in Path(tempfile.gettempdir()).glob(f"{_PLACE}*"):
        with suppress(OSError):
            found = place.stat()
            mine = found.st_uid == os.getuid() and time.time() - found.st_mtime > _ABANDONED_S
            if mine and not answers(place / _SOCKET):
                shutil.rmtree(place)


def _announcing(app: FastAPI) -> type[uvicorn.Server]:
    """Make uvicorn's server class that also listens on a socket of this user, and says both in the memory's folder."""
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            versions: ServedVersions = app.state.versions
            if self.started and versions.in_folder:
                await self._listen_here()
                versions.announce(Note(app.state.edge.name, self._url(), self._here, os.getpid()))
            if self.started:
                for line in places(app.state.edge.settings, self._url()):
                    log.info(line)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.versions.leave()
            await super().shutdown(sockets)
            if self._here is not None:
                shutil.rmtree(Path(self._here).parent, ignore_errors=True)

        _here: str | None = None

        async def _listen_here(self) -> None:
            """Listen in a folder that only this user may enter; where that fails, there is the URL."""
            try:
                _remove_abandoned()
                place = str(Path(tempfile.mkdtemp(prefix=_PLACE)) / _SOCKET)
                loop = asyncio.get_running_loop()
                self.servers.append(await loop.create_unix_server(self._make_connection, path=place))
            except (OSError, AttributeError, NotImplementedError) as error:
                log.warning("commands on this machine need the admin key: no socket could be made: %s", error)
            else:
                self._here = place

        def _make_connection(self) -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            connection: asyncio.Protocol = made(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return connection

        def _url(self) -> str:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            named = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - how others reach it
            return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"

    return Announcing


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
