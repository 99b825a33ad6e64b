"""``reco serve`` with its graphs on a real Triton server that goes and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient
from triton_server import ENCODERS, TritonServer

from reco_plugin import Reco
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]

KNOWN, NEW = {"input": "a red fox", "model": "clip"}, {"input": "a blue fox", "model": "clip"}


@pytest.fixture(autouse=True)
def what_is_down_is_looked_for_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reco_plugin.serve.health._EVERY_S", 0.05)


@pytest.fixture
def fragile(start_server: Callable[..., TritonServer], model) -> Iterator[TritonServer]:
    """A server of one's own, to be killed."""
    server = start_server(model, models=ENCODERS)
    yield server
    server.kill()


def becomes(client: TestClient, status: int) -> dict[str, list[str]]:
    """What `/readyz` says once its status is this one."""
    give_up = time.monotonic() + 60
    while (answer := client.get("/readyz")).status_code != status:
        assert time.monotonic() < give_up, answer.json()
        time.sleep(0.05)
    return dict(answer.json())


def test_it_is_not_ready_while_the_server_is_away_and_ready_again_by_itself(fragile, model):
    settings = ServeSettings(page=False)
    with (
        Reco.open(model, memory=":memory:", triton_url=fragile.grpc) as reco,
        TestClient(create_app(settings, reco)) as client,
    ):
        assert becomes(client, 200)["degraded"] == []
        fragile.kill()
        assert becomes(client, 503)["reasons"] == ["the model server is down: try again later"]
        answer = client.post("/v1/embeddings", json=NEW)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_server_unavailable")
        assert not any(word in answer.text for word in ("127.0.0.1", "localhost", "clip_text", str(fragile.ports[0])))
        fragile.start()
        assert becomes(client, 200)["reasons"] == []
        assert client.post("/v1/embeddings", json=NEW).status_code == 200
