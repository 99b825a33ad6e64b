"""Runs the application under uvicorn, in this process."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
from typing import Any

from ..errors import ConfigError
from ..reco import Reco
from .app import create_app
from .connections import make_protocol
from .logs import LOGGER, log_to_stderr
from .middleware import is_loopback
from .settings import ServeSettings

log = logging.getLogger(LOGGER)


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
    uvicorn.run(app, **server_options(settings))
