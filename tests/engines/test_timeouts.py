"""An engine that takes a connection and never answers is asked once."""

from __future__ import annotations

import socket
import time
from contextlib import closing

import pytest

from reco_plugin.engines import asking, open_index
from reco_plugin.errors import EngineTimeout, EngineUnavailable


@pytest.mark.parametrize(("kind", "calls"), [(EngineTimeout, 1), (EngineUnavailable, 3)])
def test_what_timed_out_is_not_repeated(kind: type[EngineUnavailable], calls: int) -> None:
    asked = list[int]()

    def call() -> None:
        asked.append(1)
        raise kind("away")

    with pytest.raises(kind):
        asking.ask(call, waits=(0.0, 0.0))
    assert len(asked) == calls


@pytest.mark.parametrize("scheme", ["opensearch", "elasticsearch"])
def test_a_silent_engine_ends_within_its_time(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/shop?vector=clip&timeout_s=0.3"
        begun = time.monotonic()
        with pytest.raises(EngineTimeout), closing(open_index(address)) as index:
            index.describe()
        assert time.monotonic() - begun < 3
