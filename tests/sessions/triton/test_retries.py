"""What is tried again, and what never is; a wire that fails on command stands in for the server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reco_plugin.config import load_settings
from reco_plugin.errors import MissingExtra, SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable
from reco_plugin.sessions import open_graph
from reco_plugin.sessions.triton import connection as connections
from reco_plugin.sessions.triton import regions
from reco_plugin.sessions.triton.address import address_of
from reco_plugin.sessions.triton.connection import Connection, TimeLimit
from reco_plugin.sessions.triton.wire import Inference, NotReached, RegionLost

CALL = Inference("graph", "1", {"x": np.arange(6, dtype=np.float32)}, ("y",))


class FailingWire:
    """Raises the given errors, one per request, then answers; notes how the inputs came."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.asked: list[bool] = []
        self.registered: list[str] = []
        self.closed = False

    def infer(self, call: Inference, timeout: float) -> dict[str, Any]:
        assert timeout > 0
        self.asked.append(bool(call.placed))
        if self.errors:
            raise self.errors.pop(0)
        return {"y": np.zeros(1)}

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        assert key == f"/{region}"
        self.registered.append(region)

    def unregister(self, region: str, timeout: float) -> None:
        self.registered.remove(region)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wire(monkeypatch) -> FailingWire:
    failing = FailingWire()
    monkeypatch.setattr(connections, "open_wire", lambda address: failing)
    return failing


@pytest.fixture
def connect(wire, monkeypatch) -> Callable[..., Connection]:
    monkeypatch.setattr(regions, "WORTH_IT", 1)
    address = address_of(load_settings(triton_url="grpc://localhost"))
    return lambda mode="off": Connection(address, mode)


def test_what_was_never_sent_is_sent_again(wire, connect):
    wire.errors = [NotReached("no"), NotReached("no")]
    assert set(connect().infer(CALL, TimeLimit.after(60))) == {"y"}
    assert len(wire.asked) == 3


def test_it_is_given_up_after_the_third_try(wire, connect):
    wire.errors = [NotReached(f"no {i}") for i in range(9)]
    with pytest.raises(SessionUnavailable, match="no 2"):
        connect().infer(CALL, TimeLimit.after(60))
    assert len(wire.asked) == 3


def test_it_is_not_tried_again_when_the_deadline_comes_first(wire, connect):
    wire.errors = [NotReached("no")] * 9
    with pytest.raises(NotReached):
        connect().infer(CALL, TimeLimit.after(0.01))
    assert len(wire.asked) == 1


@pytest.mark.parametrize("kind", [SessionTimeout, SessionUnavailable, SessionOverloaded, SessionError])
def test_what_may_have_been_run_is_never_sent_again(wire, connect, kind):
    wire.errors = [kind("failed")]
    with pytest.raises(kind, match="within 60 s" if kind is SessionTimeout else "failed"):
        connect().infer(CALL, TimeLimit.after(60))
    assert len(wire.asked) == 1


def test_a_region_is_used_again(wire, connect):
    connection = connect("on")
    for _ in range(5):
        connection.infer(CALL, TimeLimit.after(60))
    assert wire.asked == [True] * 5
    assert len(wire.registered) == 1


def test_a_larger_request_replaces_the_region(wire, connect):
    connection = connect("on")
    connection.infer(CALL, TimeLimit.after(60))
    (small,) = wire.registered
    connection.infer(Inference("graph", "1", {"x": np.zeros(10_000)}, ("y",)), TimeLimit.after(60))
    assert len(wire.registered) == 1
    assert wire.registered != [small]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_server_that_forgot_its_regions_is_told_again(wire, connect, mode):
    connection = connect(mode)
    connection.infer(CALL, TimeLimit.after(60))
    (old,) = wire.registered
    wire.errors = [RegionLost("unable to find it")]
    connection.infer(CALL, TimeLimit.after(60))
    assert wire.asked == [True, True, True]
    assert len(wire.registered) == 2  # the old one is not unregistered from a server that has it no more
    assert wire.registered[0] == old


def test_a_server_that_never_has_them_is_sent_the_inputs(wire, connect):
    connection = connect("auto")
    wire.errors = [RegionLost("what region"), RegionLost("what region")]
    connection.infer(CALL, TimeLimit.after(60))
    connection.infer(CALL, TimeLimit.after(60))
    assert wire.asked == [True, True, False, False]


def test_it_is_an_error_when_shared_memory_is_a_must(wire, connect):
    wire.errors = [RegionLost("what region"), RegionLost("what region")]
    with pytest.raises(SessionError, match=r"triton_shared_memory is on.*what region.*--ipc=host"):
        connect("on").infer(CALL, TimeLimit.after(60))


def test_all_is_let_go_with_the_last_session(wire, connect):
    connection = connect("on")
    connection.infer(CALL, TimeLimit.after(60))
    assert wire.registered
    del connection
    assert (wire.registered, wire.closed) == ([], True)


def test_the_client_that_is_not_installed_is_named_with_the_way_to_install_it(artifact, monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.model_config_pb2", None)
    with pytest.raises(MissingExtra, match=r"tritonclient.*pip install 'reco-plugin\[triton\]'"):
        open_graph(artifact, "paper_text", load_settings(triton_url="http://localhost"))


def test_sessions_of_one_server_share_a_connection(wire):
    address = address_of(load_settings(triton_url="grpc://localhost:1"))
    first = connections.connect(address, "off")
    assert connections.connect(address, "off") is first
    assert connections.connect(address, "auto") is not first
