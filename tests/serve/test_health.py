"""Liveness, readiness and metrics, with everything up, while warming, and with the memory down."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from unittest.mock import Mock

import numpy as np
import pytest
from live_service import wait_until
from prometheus_client.parser import text_string_to_metric_families
from qdrant_stand_in import serving

from reco_plugin import Reco
from reco_plugin.errors import MemoryStoreError, MemoryUnavailable, SessionError, SessionUnavailable
from reco_plugin.fusion.explain import why_plain
from reco_plugin.serve import health
from reco_plugin.serve.app_state import AppState
from reco_plugin.serve.embedder import Embedder
from reco_plugin.serve.logs import LOGGER
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.types import MODALITIES

QUESTION = {"input": [{"text": "a small red circle"}]}


def down() -> None:
    raise MemoryUnavailable("nobody answers at memory:6333")


def test_it_is_alive_at_once_and_ready_when_warm(filled):
    state = health.Health(AppState(Embedder(filled, ServeSettings()), ServeSettings()))
    assert state.ready().reasons == ["the models are being loaded"]
    state.warm_up()
    assert (state.ready().status, state.ready().reasons) == ("ready", [])
    counted = filled.metrics()
    assert counted['reco_encode_seconds_count{modality="image"}'] == 1
    for modality in MODALITIES:  # a warm-up moves nothing
        assert counted[f'reco_left_plain_total{{modality="{modality}"}}'] == 1
        assert counted[f'reco_refined_total{{modality="{modality}"}}'] == 0
    state.state.is_stopping = True
    assert state.ready().reasons == ["the service is stopping"]


def test_the_start_says_that_queries_stay_plain(model, caplog):
    with Reco.open(model, memory=":memory:") as reco:
        health.Health(AppState(Embedder(reco, ServeSettings()), ServeSettings())).warm_up()
        assert why_plain(reco.memory.store.header, 0) in caplog.text


def test_a_model_that_does_not_run_is_named_while_liveness_answers(troubled, served, caplog, monkeypatch):
    made = troubled()
    monkeypatch.setattr(made.reco.encoder, "texts", Mock(side_effect=SessionError("the graph is broken")))
    with served(made.reco) as client:
        assert client.get("/livez").json() == {"status": "live"}
        answer = client.get("/readyz")
        assert answer.status_code == 503
        (reason,) = answer.json()["reasons"]
        assert reason.startswith("the models do not run: the model failed; the service's log has the details")
        assert "the graph is broken" in caplog.text


@pytest.mark.filterwarnings("ignore::reco_plugin.retrieval.guard.DegradedWarning")
def test_a_memory_that_is_down_degrades_answers_and_says_so(troubled, served):
    made = troubled(breaker_failures=2)
    frozen = made.reco.embed_texts(["a small red circle"], refine=False)[0]
    with served(made.reco) as client:
        made.seam.trouble = down
        reasons = []
        for _ in range(3):
            answer = client.post("/v1/explain", json=QUESTION)
            assert answer.status_code == 200
            assert np.allclose(answer.json()["data"][0]["embedding"], frozen, atol=1e-7)
            assert answer.json()["data"][0]["refined"] is False
            assert answer.headers["x-reco-refined"] == "false"
            assert answer.headers["x-reco-degraded"] == answer.json()["degraded"]
            reasons.append(answer.json()["degraded"])
        assert reasons == ["memory_error", "memory_error", "memory_circuit_open"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (200, [])
        assert ready.json()["degraded"] == ["memory: open after 2 failures in a row; the log has the latest"]
        assert client.get("/metrics").text.count("reco_circuit_open 1.0") == 1


def test_with_the_policy_to_fail_it_is_an_error_and_the_service_is_not_ready(troubled, served):
    made = troubled(breaker_failures=1, on_memory_failure="fail")
    with served(made.reco) as client:
        made.seam.trouble = down
        answer = client.post("/v1/explain", json=QUESTION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "memory_unavailable")
        assert answer.headers["retry-after"] == "1"
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["degraded"] == []
        assert "memory: open" in ready.json()["reasons"][0]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_gone_is_known_without_a_request(model, scheme, caplog):
    caplog.set_level("INFO", LOGGER)
    with serving() as server, Reco.open(model, memory=server.url(scheme)) as reco:
        state = health.Health(AppState(Embedder(reco, ServeSettings()), ServeSettings()))
        state.warm = True
        state.check()
        assert state.ready().degraded == []
        server.stop()
        state.check()
        assert state.ready().degraded == ["memory: its server does not answer"]
        server.start()
        state.check()
        assert (state.ready().status, state.ready().degraded) == ("ready", [])
    assert "the memory's server is back" in caplog.text


@pytest.mark.filterwarnings("ignore:.*pairs of the memory are lost")
def test_a_folder_that_lost_pairs_or_is_gone_is_shown(model, drawn_records, served, tmp_path, caplog):
    with Reco.open(model, memory=tmp_path / "memory") as reco:
        reco.memory.add_records([drawn_records])
    shutil.rmtree(tmp_path / "memory" / "shard" / "wal")  # which would replay the latest write
    (ids,) = tmp_path.rglob("mutable_id_tracker.mappings")
    os.truncate(ids, ids.stat().st_size // 2)
    with suppress(MemoryStoreError), Reco.open(model, memory=tmp_path / "memory") as reco:  # it cannot be flushed
        state = health.Health(AppState(Embedder(reco, ServeSettings()), ServeSettings()))
        state.warm = True
        state.check()
        lost = len(drawn_records) - len(reco.memory)
        (shown,) = state.ready().degraded
        assert lost > 0
        assert shown.startswith(f"memory: {lost} pairs of the memory are lost")
        (tmp_path / "memory").rename(tmp_path / "elsewhere")
        state.check()
        assert state.ready().degraded[0] == "memory: its folder is gone"
        assert state.ready().status == "ready"
    assert "the memory's folder is down" in caplog.text


def test_a_write_to_a_server_that_is_gone_ends_before_the_deadline(model, served, admin):
    vector = np.eye(1, 128, dtype=np.float32)[0].tolist()
    pairs = {"pairs": [{"id": "fox", "text_vector": vector, "image_vector": vector}]}
    with (
        serving() as server,
        Reco.open(model, memory=server.url("grpc")) as reco,
        served(reco, deadline_s=4) as client,
    ):
        assert client.post("/v1/memory/pairs", json=pairs, headers=admin).status_code == 200
        server.stop()
        answer = client.post("/v1/memory/pairs", json=pairs, headers=admin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "memory_unavailable")
        assert client.app.state.shared.writer.pending == 0, "no call is left that tries on"


def test_a_memory_that_is_back_is_found_without_a_request(troubled, caplog):
    made = troubled(breaker_failures=1, breaker_retry_s=1e-6, on_memory_failure="fail")
    state = health.Health(AppState(Embedder(made.reco, ServeSettings()), ServeSettings()))
    state.warm_up()
    made.seam.trouble = down
    with pytest.raises(MemoryUnavailable):
        made.reco.embed_texts(["a small red circle"], refine=True)
    state.check()
    assert state.ready().status == "not ready", "while requests are kept away, nobody else asks"
    assert "the memory is down: nobody answers at memory:6333" in caplog.text
    made.seam.trouble = None
    state.check()
    assert state.ready().status == "ready"


def test_a_warm_up_that_failed_for_a_server_is_tried_again(troubled, monkeypatch):
    made = troubled()
    state = health.Health(AppState(Embedder(made.reco, ServeSettings()), ServeSettings()))
    monkeypatch.setattr(health, "_EVERY_S", 0.01)
    encode = Mock(side_effect=SessionUnavailable("nobody answers at 10.0.0.7:8001"))
    monkeypatch.setattr(made.reco.encoder, "texts", encode)
    check = Mock(side_effect=encode.side_effect)
    monkeypatch.setattr(made.reco.encoder, "check", check)
    watching = threading.Thread(target=state.watch)
    watching.start()
    try:
        wait_until(lambda: state.problems()["encoder"])
        assert state.ready().reasons == ["the model server is down: try again later"]
        check.side_effect = None
        encode.side_effect = lambda texts: np.eye(len(texts), made.reco.manifest.dimension, dtype=np.float32)
        wait_until(lambda: state.ready().status == "ready")
    finally:
        state.stop()
        watching.join()
    assert state.ready().reasons == ["the service is stopping"] and not state.problems()["encoder"]


def families(text: str) -> dict[str, dict[str, float]]:
    """Sample name -> labels as text -> value."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_metrics_are_what_the_counters_count(client, filled):
    client.post("/v1/explain", json=QUESTION)
    client.post("/v1/refine", json={"vectors": [[0.0]], "modality": "text"})
    client.get("/nowhere/at/all")
    shown = families(client.get("/metrics").text)
    assert shown["reco_left_plain_total"] == {"modality=image": 1, "modality=text": 1}  # by the warm-up
    assert shown["reco_refined_total"] == {"modality=image": 0, "modality=text": 1}
    assert all(shown["reco_encode_seconds_count"][f"modality={part}"] > 0 for part in MODALITIES)
    assert all(shown[f"reco_{name}_count"][""] > 0 for name in ("retrieve_seconds", "fuse_seconds", "moved"))
    assert shown["reco_queue_seconds_count"][""] == 2
    requests = shown["reco_http_requests_total"]
    assert requests["route=/v1/explain,status=200"] == 1
    assert requests["route=/v1/refine,status=400"] == 1
    assert requests["route=other,status=404"] == 1
    assert shown["reco_http_request_duration_seconds_count"]["route=/v1/explain"] == 1
