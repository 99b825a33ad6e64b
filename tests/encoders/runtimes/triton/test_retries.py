"""What is tried again, and what never is; a client that fails on command stands in for the server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from reco_plugin.encoders.runtimes import triton as servers
from reco_plugin.encoders.runtimes.triton import Inference, TritonConnection
from reco_plugin.encoders.runtimes.triton_address import address_of
from reco_plugin.errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable
from reco_plugin.settings import load_settings

pytestmark = pytest.mark.triton

CALL = Inference("graph", "1", {"x": np.arange(6, dtype=np.float32)}, ("y",))
NEVER_SENT = InferenceServerException("failed to connect to all addresses", "StatusCode.UNAVAILABLE")


class Answer:
    def as_numpy(self, _: str) -> np.ndarray:
        return np.zeros(1)


class FailingClient:
    """Raises the given errors, one per request, then answers."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.errors: list[Exception] = []
        self.asked, self.closed = 0, False

    def infer(self, *_: Any, client_timeout: float, **__: Any) -> Answer:
        assert client_timeout > 0
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return Answer()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> FailingClient:
    made = FailingClient()
    monkeypatch.setattr(servers.client, "InferenceServerClient", lambda *_, **__: made)
    return made


@pytest.fixture
def server(failing: FailingClient) -> TritonConnection:
    return TritonConnection(address_of(load_settings(triton_url="grpc://localhost")))


def test_what_was_never_sent_is_sent_again(failing, server):
    failing.errors = [NEVER_SENT] * 2
    assert set(server.infer(CALL, 60)) == {"y"}
    assert failing.asked == 3


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        ("DEADLINE_EXCEEDED", "late", SessionTimeout),
        ("UNAVAILABLE", "connection reset", SessionUnavailable),
        ("UNAVAILABLE", "Exceeds maximum queue size", SessionOverloaded),
        ("UNAVAILABLE", "This protocol is restricted", servers.AccessRefused),
        ("UNAUTHENTICATED", "who are you", servers.AccessRefused),
        ("INVALID_ARGUMENT", "unexpected shape", SessionError),
    ],
)
def test_what_may_have_been_run_is_never_sent_again(failing, server, code, said, kind):
    failing.errors = [InferenceServerException(said, f"StatusCode.{code}")]
    with pytest.raises(SessionError) as caught:
        server.infer(CALL, 60)
    assert type(caught.value) is kind
    assert failing.asked == 1
