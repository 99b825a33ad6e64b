"""A live service for the examples, which are called as their readers would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import uvicorn

from reco_plugin import Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.run import server_options
from reco_plugin.serve.settings import ServeSettings

PATIENCE_S = 60  # until a test is given up; nothing waits that long when all is well

Live = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def live() -> Live:
    """Serve a Reco on a free port: ``with live(reco, api_keys=["k"]) as url``."""

    @contextmanager
    def start(reco: Reco, **settings: object) -> Iterator[str]:
        chosen = ServeSettings.model_validate({"page": False, "port": 0, **settings})
        server = uvicorn.Server(uvicorn.Config(create_app(chosen, reco), **server_options(chosen)))
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
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)

    return start
