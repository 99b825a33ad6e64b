"""``provider = "auto"``: measured once, remembered, within bounds, and OpenVINO is never a reason to fail."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.errors import ConfigError, SessionError
from reco_plugin.sessions import fastest, open_graph, ort
from reco_plugin.sessions.ort import OrtSession

OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
AUTO = load_settings(provider="auto", threads=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fastest, "_busy", lambda: False)
    return tmp_path / "cache" / "reco-plugin" / "engines"


@pytest.fixture
def artifact(model: Path) -> Artifact:
    return Artifact.load(model)


@pytest.fixture
def lead(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says how much faster OpenVINO is, instead of a clock."""
    return lambda gain: monkeypatch.setattr(fastest, "_gain", lambda *_: gain)


@pytest.fixture
def no_comparison(monkeypatch: pytest.MonkeyPatch) -> Any:
    def fail(*_: Any) -> None:
        raise AssertionError("measured again")

    return lambda: monkeypatch.setattr(fastest, "_compare", fail)


def opened(artifact: Artifact, name: str = "clip_text") -> tuple[str, str]:
    session, why = fastest.open_fastest(artifact, name, AUTO)
    return type(session).__name__, why


@OPENVINO
def test_the_faster_engine_is_taken_and_remembered(artifact, cache, lead, no_comparison):
    lead(2.0)
    first = opened(artifact)
    assert first[0] == "OpenVinoSession"
    assert "2.00 times as fast as ONNX Runtime here, least cosine 0.9999" in first[1] or "cosine 1.0" in first[1]
    assert len(list(cache.iterdir())) == 1
    no_comparison()
    assert opened(artifact) == first


@OPENVINO
def test_a_choice_on_a_busy_machine_is_not_remembered(artifact, cache, lead, monkeypatch):
    monkeypatch.setattr(fastest, "_busy", lambda: True)
    lead(2.0)
    name, why = opened(artifact)
    assert name == "OpenVinoSession" and "not remembered since the machine is busy" in why
    assert not cache.exists()


@OPENVINO
def test_a_small_lead_is_no_reason(artifact, lead, no_comparison, monkeypatch):
    lead(1.05)
    first = opened(artifact)
    assert (
        first[0] == "OrtSession"
        and "1.05 times as fast" in first[1]
        and first[1].startswith("ONNX Runtime on the CPU: ")
    )
    no_comparison()
    monkeypatch.setitem(sys.modules, "openvino", None)  # need not be imported any more
    assert opened(artifact) == first


@OPENVINO
@pytest.mark.parametrize("change", ["graph", "processor", "version", "threads", "what is timed", "damaged note"])
def test_a_change_measures_again(change, artifact, cache, lead, monkeypatch):
    lead(2.0)
    opened(artifact)
    lead(3.0)
    settings = AUTO
    if change == "graph":
        graphs = dict(artifact.manifest.graphs)
        graphs["clip_text"] = graphs["clip_text"].model_copy(update={"sha256": "0" * 64})
        artifact = replace(artifact, manifest=artifact.manifest.model_copy(update={"graphs": graphs}))
    elif change == "processor":
        monkeypatch.setattr(fastest, "_processor", lambda: "another")
    elif change == "version":
        monkeypatch.setattr(fastest, "_openvino_version", lambda: "2027.0")
    elif change == "what is timed":
        monkeypatch.setattr(fastest, "_SAMPLES", "1")
    elif change == "threads":
        settings = AUTO.model_copy(update={"threads": 2})
    else:
        next(cache.iterdir()).write_text('{"arithmetic": "int3"}')
    assert "3.00 times" in fastest.open_fastest(artifact, "clip_text", settings)[1]


@OPENVINO
@pytest.mark.parametrize("wrong", [0.999, float("nan")])
def test_an_arithmetic_out_of_bounds_is_passed_over(wrong, artifact, lead, monkeypatch):
    lead(2.0)
    monkeypatch.setattr("reco_plugin.sessions.openvino.fastest_arithmetic", lambda: "bf16")
    found = iter([wrong, wrong, 1.0, 1.0])
    monkeypatch.setattr(fastest, "_least_cosine", lambda *_: next(found))
    name, why = opened(artifact)
    assert name == "OpenVinoSession"
    assert "bf16 has a cosine of" in why and "below 0.9995" in why and "OpenVINO in f32 is 2.00 times" in why


@OPENVINO
def test_an_engine_out_of_bounds_in_all_is_not_taken(artifact, lead, monkeypatch):
    lead(9.0)
    monkeypatch.setattr(fastest, "_least_cosine", lambda *_: 0.9)
    name, why = opened(artifact)
    assert name == "OrtSession" and "cosine of 0.90000, below 0.9995" in why


@OPENVINO
def test_a_failure_of_openvino_is_said_and_does_no_harm(artifact, cache, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("reco_plugin.sessions.openvino.OpenVinoSession.run", fail)
    assert opened(artifact) == ("OrtSession", "ONNX Runtime on the CPU: OpenVINO failed: no such instruction")
    assert not cache.exists(), "it may work the next time"


@OPENVINO
def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(artifact, lead, tmp_path, monkeypatch):
    lead(2.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened(artifact)[0] == "OpenVinoSession"


def test_openvino_that_is_not_installed_is_said(artifact, monkeypatch):
    monkeypatch.setattr(fastest, "_openvino_version", lambda: None)
    assert opened(artifact) == ("OrtSession", "ONNX Runtime on the CPU: OpenVINO is not installed")


def test_int8_and_fusions_stay_with_onnx_runtime(artifact, no_comparison):
    no_comparison()
    small = replace(artifact, manifest=artifact.manifest.model_copy(update={"precision": "int8"}))
    for name, some, word in (("clip_text", small, "int8"), ("reco_text", artifact, "too small")):
        engine, why = opened(some, name)
        assert engine == "OrtSession" and word in why


def test_cuda_comes_first(artifact, no_comparison, monkeypatch):
    no_comparison()
    asked = []
    monkeypatch.setattr(fastest, "has_cuda", lambda: True)
    monkeypatch.setattr(fastest, "OrtSession", lambda path, settings: asked.append(settings.provider))
    assert fastest.open_fastest(artifact, "clip_text", AUTO)[1] == "ONNX Runtime on CUDA"
    assert asked == ["cuda"]


def test_cuda_that_does_not_load_is_said(artifact, monkeypatch, caplog):
    monkeypatch.setattr(fastest, "_openvino_version", lambda: None)
    monkeypatch.setattr(fastest, "has_cuda", lambda: True)

    def without_cuda(path: Path, settings: Any) -> OrtSession:
        if settings.provider == "cuda":
            raise SessionError("cuDNN is missing")
        return OrtSession(path, settings)

    monkeypatch.setattr(fastest, "OrtSession", without_cuda)
    ort.warn_of_cpu.cache_clear()
    for name in ("clip_image", "clip_text"):
        _, why = fastest.open_fastest(artifact, name, AUTO)
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.message == "the models run on the CPU: CUDA was tried and failed: cuDNN is missing"
    assert why == "ONNX Runtime on the CPU (CUDA failed: cuDNN is missing): OpenVINO is not installed"


@pytest.mark.parametrize(("given", "warned"), [({}, 1), ({"provider": "cpu"}, 0)])
def test_a_runtime_for_cuda_that_nobody_asks_for_cuda_is_said(artifact, monkeypatch, caplog, given, warned):
    ort.warn_of_cpu.cache_clear()
    monkeypatch.setattr(ort, "has_cuda", lambda: True)
    full = replace(artifact, manifest=artifact.manifest.model_copy(update={"precision": "fp32"}))
    open_graph(full, "clip_text", load_settings(threads=1, **given))
    assert caplog.text.count("RECO_PROVIDER is not set: cuda or auto takes the GPU") == warned


def test_options_need_a_named_provider(artifact):
    with pytest.raises(ConfigError, match="provider_options need the provider"):
        fastest.open_fastest(artifact, "clip_text", load_settings(provider="auto", provider_options={"a": "b"}))


def test_a_damaged_graph_fails_as_with_a_named_provider(artifact, tmp_path):
    graph = tmp_path / "clip_text" / "1" / "model.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"not a graph")
    with pytest.raises(SessionError, match=r"cannot load .*reco export"):
        fastest.open_fastest(replace(artifact, folder=tmp_path), "clip_text", AUTO)


def test_the_log_says_what_runs(artifact, caplog):
    with caplog.at_level(logging.INFO, "reco_plugin.sessions"):
        open_graph(artifact, "reco_text", AUTO)
    assert caplog.messages == ["reco_text: ONNX Runtime on the CPU: a fusion is too small to gain"]


def test_auto_gives_the_vectors_of_onnx_runtime(model, cache):
    """With no clock and no bound replaced, whatever this machine takes."""
    texts = ["red", "a photo of a blue circle", "word " * 40]
    with Reco.open(model, ":memory:") as plain, Reco.open(model, ":memory:", provider="auto", threads=1) as reco:
        assert (plain.embed_texts(texts) * reco.embed_texts(texts)).sum(1).min() >= fastest.LEAST_COSINE
    assert cache.exists() == (find_spec("openvino") is not None)


def test_samples_are_a_single_one_and_a_batch_of_the_graphs_own_shape(artifact):
    size = artifact.manifest.image.size
    images = fastest._samples(artifact, "clip_image")
    assert [ours["pixels"].shape for ours, _ in images] == [(1, *size, 3), (4, *size, 3)]
    assert all(ours is not theirs and (ours["pixels"] == theirs["pixels"]).all() for ours, theirs in images)
    texts = [(ours["tokens"], theirs["tokens"]) for ours, theirs in fastest._samples(artifact, "clip_text")]
    assert [len(ours) for ours, _ in texts] == [len(theirs) for _, theirs in texts] == [1, 8]
    for ours, theirs in texts:  # OpenVINO is given few lengths
        assert (
            ours.dtype == theirs.dtype == np.int32 and ours.shape[1] < theirs.shape[1] in artifact.manifest.text.lengths
        )
        assert (theirs[:, : ours.shape[1]] == ours).all()


@OPENVINO
@pytest.mark.parametrize("first", [0, 1])
def test_a_signal_is_heard_after_sessions_were_dropped(first, artifact):
    """Two of OpenVINO's cores that lived at the same time left the thread a stack for signals that was gone."""
    script = f"""
import signal
from pathlib import Path
from reco_plugin.config import load_settings
from reco_plugin.sessions.openvino import OpenVinoSession, fastest_arithmetic

graph = Path({str(artifact.graph("clip_text"))!r})
sessions = [OpenVinoSession(graph, load_settings(threads=1), fastest_arithmetic()) for _ in range(2)]
del sessions[{first}]
del sessions
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
