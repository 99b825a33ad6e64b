"""ONNX Runtime in process: the provider that was asked for or an error, and errors that name what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from reco_plugin.encoders.runtimes import onnxruntime as runtime
from reco_plugin.errors import SessionError
from reco_plugin.settings import load_settings

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime does know CUDA"
)
def test_a_provider_that_is_not_there_is_refused_with_the_way_out(graph):
    with pytest.raises(SessionError, match=r"'cuda'.*CPUExecutionProvider.*reco-plugin\[gpu\].*provider='cpu'"):
        runtime.OrtSession(graph, load_settings(provider="cuda"))


def test_a_fallback_to_another_provider_is_refused(graph, monkeypatch):
    """Libraries of CUDA that do not load: the runtime names the provider, but then quietly takes the CPU."""
    asked = []

    def quiet(path: str, options: Any, providers: Any, **more: Any) -> onnxruntime.InferenceSession:
        asked.extend(providers)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], **more)

    fallback = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=quiet,
    )
    monkeypatch.setattr(runtime, "ort", fallback)
    settings = load_settings(provider="cuda", provider_options={"device_id": "1"})
    with pytest.raises(SessionError, match=r"CUDAExecutionProvider.*chose CPUExecutionProvider.*provider='cpu'"):
        runtime.OrtSession(graph, settings)
    assert asked == [("CUDAExecutionProvider", {"device_id": "1"})]


def test_an_option_that_the_provider_drops_is_refused(graph):
    with pytest.raises(SessionError, match=r"CPUExecutionProvider does not know.*device_id.*leave"):
        runtime.OrtSession(graph, load_settings(provider_options={"device_id": "1"}))


ROWS = 37


def many(tokens: Any) -> dict[str, Any]:
    """Rows of their own for two threads, and no equal share."""
    rng = np.random.default_rng(0)
    return {name: rng.permuted(np.resize(array, (ROWS, *array.shape[1:])), axis=0) for name, array in tokens.items()}


def test_each_thread_has_rows_of_its_own_in_a_large_batch(graph, tokens, monkeypatch):
    """The graph is loaded once more for it, with one thread, when the first large batch comes."""
    loaded = []

    def watched(path: str, options: Any, **more: Any) -> onnxruntime.InferenceSession:
        loaded.append(options.intra_op_num_threads)
        return onnxruntime.InferenceSession(path, options, **more)

    monkeypatch.setattr(runtime, "ort", SimpleNamespace(**{**vars(onnxruntime), "InferenceSession": watched}))
    shared, split = (runtime.OrtSession(graph, load_settings(threads=threads)) for threads in (1, 2))
    split.run(tokens)
    assert loaded == [1, 2]
    for _ in range(2):
        ours, theirs = split.run(many(tokens))["features"], shared.run(many(tokens))["features"]
        assert np.allclose(ours, theirs, atol=1e-6)
        assert len(ours) == ROWS
    assert loaded == [1, 2, 1]
    assert split._pool is not None
    assert len(split._pool._threads) == 1


@pytest.mark.parametrize("refused", ["its size", "a second session"])
def test_a_graph_that_cannot_be_loaded_twice_goes_on_with_one(graph, tokens, monkeypatch, caplog, refused):
    session = runtime.OrtSession(graph, load_settings(threads=2))
    expected = runtime.OrtSession(graph, load_settings(threads=1)).run(many(tokens))["features"]
    if refused == "its size":
        monkeypatch.setattr(runtime, "_MAX_COPY_BYTES", 1)
    else:
        monkeypatch.setattr(runtime, "ort", SimpleNamespace(**{**vars(onnxruntime), "InferenceSession": None}))
    with caplog.at_level("INFO", runtime.__name__):
        for _ in range(2):
            assert np.allclose(session.run(many(tokens))["features"], expected, atol=1e-6)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "threads share the products of large batches"
    ]
    assert session._single is None


def test_a_large_batch_that_fails_names_the_inputs(graph, tokens):
    session = runtime.OrtSession(graph, load_settings(threads=2))
    wrong = {name: np.full_like(array, 10**9) for name, array in many(tokens).items()}  # no such token
    with pytest.raises(SessionError, match=rf"failed on .*{ROWS}"):
        session.run(wrong)
    assert len(session.run(many(tokens))["features"]) == ROWS


@pytest.mark.parametrize(
    ("code", "silent"),
    [
        ("import onnxruntime", False),  # shows that the test sees it
        ("import reco_plugin.encoders.runtimes.onnxruntime", True),
        pytest.param("import reco_plugin.export.onnx_export", True, marks=pytest.mark.torch),
    ],
)
def test_the_runtime_reports_to_nobody(code, silent, tmp_path):
    """It makes a name for this machine, and a queue of what to send, as soon as it is imported."""
    known = ("ORT_", "CI", "GITHUB_", "TF_BUILD", "XDG_", "PYTEST_")
    place = {name: value for name, value in os.environ.items() if not name.startswith(known)}
    done = subprocess.run([sys.executable, "-c", code], env={**place, "HOME": str(tmp_path)}, check=False)
    assert done.returncode == 0
    left = [path.name for path in tmp_path.rglob("*") if "onnxruntime" in str(path) and path.is_file()]
    if not silent and not left:
        pytest.skip("this build of ONNX Runtime has no telemetry")
    assert (not left) == silent
