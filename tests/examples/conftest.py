"""A live service for the examples, which are called as their readers would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from live_service import serve_on_a_free_port

from reco_plugin import Reco

Live = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def live() -> Live:
    """Serve a Reco on a free port: ``with live(reco, api_keys=["k"]) as url``."""

    @contextmanager
    def start(reco: Reco, **settings: object) -> Iterator[str]:
        with serve_on_a_free_port(reco, **settings) as (url, _):
            yield url

    return start
