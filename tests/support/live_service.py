"""A service of this process on a free port, for clients that need a socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from reco_plugin import Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.server import server_options
from reco_plugin.serve.service_settings import ServeSettings

PATIENCE_S = 60  # until a test is given up; nothing waits that long when all is well


@contextmanager
def serve_on_a_free_port(reco: Reco, **settings: Any) -> Iterator[tuple[str, uvicorn.Server]]:
    """Its URL and server, once it is warm; without the playground."""
    chosen = ServeSettings.model_validate({"page": False, "port": 0, **settings})
    app = create_app(chosen, reco)
    server = uvicorn.Server(uvicorn.Config(app, port=0, **server_options(chosen)))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    try:
        health = server.config.app.state.health
        while not (server.started and health.warm):
            assert thread.is_alive(), "the server did not start"
            assert health.warm_error is None
            assert time.monotonic() < deadline, "the server did not get warm"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_until(seen: Callable[[], Any], patience_s: float = 120) -> None:
    """Wait without taking a core from what is waited for; fails where it never comes."""
    deadline = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.005)
