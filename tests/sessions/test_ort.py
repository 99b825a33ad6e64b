"""ONNX Runtime in process: the provider that was asked for or an error, and errors that name what went wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from reco_plugin.config import load_settings
from reco_plugin.errors import SessionError
from reco_plugin.sessions import open_session, ort


@pytest.fixture
def graph(model: Path) -> Path:
    return model / "clip_text" / "1" / "model.onnx"


@pytest.fixture
def tokens() -> dict[str, Any]:
    return {"tokens": np.arange(1, 13, dtype=np.int32).reshape(2, 6)}


def test_arrays_go_in_and_come_out_by_name(graph, tokens):
    out = open_session(graph, load_settings()).run(tokens)
    assert list(out) == ["features"]
    assert out["features"].dtype == np.float32
    assert len(out["features"]) == 2
    assert np.isfinite(out["features"]).all()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime does know CUDA"
)
def test_a_provider_that_is_not_there_is_refused_with_the_way_out(graph):
    with pytest.raises(SessionError, match=r"'cuda'.*CPUExecutionProvider.*reco-plugin\[gpu\].*provider='cpu'"):
        open_session(graph, load_settings(provider="cuda"))


def test_a_fallback_to_another_provider_is_refused(graph, monkeypatch):
    """Libraries of CUDA that do not load: the runtime names the provider, but then quietly takes the CPU."""
    asked = []

    def quiet(path: str, options: Any, providers: Any) -> onnxruntime.InferenceSession:
        asked.extend(providers)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    fallback = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=quiet,
    )
    monkeypatch.setattr(ort, "ort", fallback)
    settings = load_settings(provider="cuda", provider_options={"device_id": "1"})
    with pytest.raises(SessionError, match=r"CUDAExecutionProvider.*chose CPUExecutionProvider.*provider='cpu'"):
        open_session(graph, settings)
    assert asked == [("CUDAExecutionProvider", {"device_id": "1"})]


def test_an_option_that_the_provider_drops_is_refused(graph):
    with pytest.raises(SessionError, match=r"CPUExecutionProvider does not know.*device_id.*leave"):
        open_session(graph, load_settings(provider_options={"device_id": "1"}))


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)], ids=["empty", "text", "zeros"])
def test_a_damaged_graph_is_named(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError, match=r"cannot load .*model\.onnx.*reco export"):
        open_session(path, load_settings())


def test_a_graph_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SessionError, match=r"cannot load .*missing\.onnx"):
        open_session(tmp_path / "missing.onnx", load_settings())


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"tokens": np.zeros((2, 3, 4), np.int32)}, r"'tokens': 'int32\[2, 3, 4\]'"),
        ({"tokens": np.zeros((2, 3), np.float32)}, r"'tokens': 'float32\[2, 3\]'"),
        ({"words": np.zeros((2, 3), np.int32)}, r"'words': 'int32\[2, 3\]'"),
        ({}, r"\{\}"),
    ],
    ids=["rank", "type", "name", "nothing"],
)
def test_inputs_that_do_not_fit_are_named_with_type_and_shape(inputs, named, graph):
    with pytest.raises(SessionError, match=rf"clip_text.*failed on .*{named}"):
        open_session(graph, load_settings()).run(inputs)


def test_wrong_widths_are_named(model):
    session = open_session(model / "paper_text" / "1" / "model.onnx", load_settings())
    inputs = {
        "query": np.zeros((2, 7), np.float32),
        "neighbours": np.zeros((2, 3, 7), np.float32),
        "similarity": np.zeros((2, 3), np.float32),
        "trust": np.zeros((2, 3), np.float32),
    }
    with pytest.raises(SessionError, match=r"'query': 'float32\[2, 7\]'.*'neighbours': 'float32\[2, 3, 7\]'"):
        session.run(inputs)


def test_threads_and_arena_reach_the_runtime_and_change_no_result(graph, tokens, monkeypatch):
    given = []

    def watched(path: str, options: Any, providers: Any) -> onnxruntime.InferenceSession:
        given.append((options.intra_op_num_threads, options.enable_cpu_mem_arena))
        return onnxruntime.InferenceSession(path, options, providers=providers)

    usual = open_session(graph, load_settings(threads=0)).run(tokens)["features"]
    watching = SimpleNamespace(**{**vars(onnxruntime), "InferenceSession": watched})
    monkeypatch.setattr(ort, "ort", watching)
    other = open_session(graph, load_settings(threads=1, arena=False)).run(tokens)["features"]
    assert given == [(1, False)]
    assert np.allclose(usual, other, atol=1e-5)


def test_one_session_serves_several_threads(graph):
    session = open_session(graph, load_settings(threads=1))
    batches = [{"tokens": np.full((2, 5), value, np.int32)} for value in range(1, 9)]
    alone = [session.run(batch)["features"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: session.run(batch)["features"], batches))
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))
    assert not np.allclose(alone[0], alone[1], atol=1e-3)
