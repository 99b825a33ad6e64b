"""An API that has another model one day, or is down: what is stored, answered and said then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_server import Api, Reply
from live_service import wait_until
from PIL import Image
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from reco_plugin.encoders import remote
from reco_plugin.errors import FingerprintMismatch, SessionUnavailable
from reco_plugin.retrieval.guard import DegradedWarning
from reco_plugin.serve.app import create_app
from reco_plugin.serve.service_settings import ServeSettings

PAIR = Pair("a", Image.new("RGB", (9, 9), "red"), "a red square")


def opened(api: Api, memory: Path, **settings: Any) -> Reco:
    """A memory of what the API encodes."""
    said = {"encoder_patience_s": 0.0, **settings}
    return Reco.open(f"jina+{api.url}/v1?model=m", memory=memory, **said)


@pytest.fixture
def always_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each call instead of each hour."""
    monkeypatch.setattr(remote, "CHECKED_EVERY_S", 0.0)


@pytest.mark.usefixtures("always_checked")
def test_another_model_stops_writes_and_queries_stay_plain_until_it_is_back(
    api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(api, tmp_path / "m") as reco:
        reco.memory.add([PAIR])
        assert reco.embed(["a red square"], modality="text", refine=True).degraded is None
        api.model = 1
        with pytest.warns(DegradedWarning, match="another model"):
            result = reco.embed(["a red square"], modality="text", refine=True)
        assert (result.degraded, result.moved.tolist()) == ("encoder_changed", [0.0])
        with pytest.raises(FingerprintMismatch):
            reco.memory.add([PAIR])
        assert len(reco.memory) == 1
        api.model = 0
        assert reco.embed(["a red square"], modality="text", refine=True).degraded is None
        assert reco.memory.add([PAIR]) == 1
    said = [(record.levelname, record.message) for record in caplog.records if "another model" in record.message]
    assert [level for level, _ in said] == ["ERROR"]
    assert "has the model of the memory again" in caplog.text


@pytest.mark.filterwarnings("ignore:answering with frozen:reco_plugin.retrieval.guard.DegradedWarning")
@pytest.mark.usefixtures("always_checked")
def test_a_service_says_that_the_model_is_another_one(api: Api, tmp_path: Path) -> None:
    with opened(api, tmp_path / "m") as reco:
        reco.memory.add([PAIR])
        keys = ServeSettings(page=False, admin_key="k")
        with TestClient(create_app(keys, reco)) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            api.model = 1
            answer = client.post("/refined/v1/embeddings", json={"model": "clip", "input": ["fox"], "refine": True})
            ready = client.get("/readyz").json()
            pairs = {"pairs": [{"id": "b", "text": "b", "image_vector": api.vector("b")}]}
            stored = client.post("/v1/memory/pairs", json=pairs, headers={"authorization": "Bearer k"})
            metrics = client.get("/metrics").text
    assert answer.headers["x-reco-degraded"] == "encoder_changed"
    assert ready["status"] == "ready"
    assert any("has another model than the memory" in one for one in ready["degraded"])
    assert (stored.status_code, stored.json()["error"]["code"]) == (503, "other_encoder")
    assert 'reco_degraded{part="encoder_changed"} 1.0' in metrics
    assert 'reco_degraded_total{reason="encoder_changed"}' in metrics


def test_a_memory_does_not_open_with_another_model_of_the_same_name(api: Api, tmp_path: Path) -> None:
    opened(api, tmp_path / "m").close()
    opened(api, tmp_path / "m").close()
    api.model = 1
    with pytest.raises(FingerprintMismatch):
        opened(api, tmp_path / "m")


def test_an_api_that_is_back_is_measured_first(api: Api, tmp_path: Path) -> None:
    with opened(api, tmp_path / "m") as reco:
        api.next = [Reply(500, {})]
        with pytest.raises(SessionUnavailable, match="answered 500"):
            reco.embed_texts(["fox"])
        api.model = 1  # it was down to get another one
        with pytest.warns(DegradedWarning):
            reco.embed_texts(["fox"])
        assert reco.encoder.changed is not None
