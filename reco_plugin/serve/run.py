"""Runs the application under uvicorn, in this process."""

from __future__ import annotations

import signal
from typing import Any

from ..reco import Reco
from .app import create_app
from .connections import bounded
from .logs import log_to_stderr
from .middleware import is_loopback
from .settings import ServeSettings


def server_options(settings: ServeSettings) -> dict[str, Any]:
    """What uvicorn is told; its access log is off, since ours has the request's id."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": bounded(settings),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": settings.shutdown_s,
        "root_path": settings.root_path,
    }


def run(settings: ServeSettings, reco: Reco) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first."""
    import uvicorn

    log_to_stderr(settings.log_format, settings.log_level)
    # uvicorn sends the signal again when it has ended, which would end the process before the memory is closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    # a web page may give its own name the address 127.0.0.1, and would then read answers as if they were its own
    hosts = settings.allowed_hosts if settings.allowed_hosts or is_loopback(settings.host) else None
    uvicorn.run(create_app(settings, reco, hosts), **server_options(settings))
