"""What every engine in process has to do: ONNX Runtime and OpenVINO run the same graphs and name the same faults."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

from reco_plugin import Reco
from reco_plugin.encoders.model_folder import GRAPHS, Artifact
from reco_plugin.encoders.runtimes.graphs import Session, describe_engines
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.errors import SessionError
from reco_plugin.export.folder import save
from reco_plugin.files import weights_file
from reco_plugin.settings import Settings, load_settings

OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(params=["cpu", pytest.param("openvino", marks=OPENVINO)])
def engine(request: pytest.FixtureRequest) -> Settings:
    return load_settings(provider=request.param)


def open_session(path: Path, settings: Settings) -> Session:
    """One graph on the engine of the settings."""
    if settings.provider == "cpu":
        return OrtSession(path, settings)
    from reco_plugin.encoders.runtimes.openvino import OpenVinoSession

    return OpenVinoSession(path, settings)


def test_arrays_go_in_and_come_out_by_name(graph, engine, tokens):
    out = open_session(graph, engine).run(tokens)
    assert list(out) == ["features"]
    assert out["features"].dtype == np.float32
    assert len(out["features"]) == 2
    assert np.isfinite(out["features"]).all()


def test_a_damaged_graph_is_named(engine, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(SessionError, match=r"cannot load .*model\.onnx.*reco model export"):
        open_session(path, engine)


def test_weights_in_a_second_file_give_the_same_vectors_and_are_named_when_gone(graph, engine, tokens, tmp_path):
    path = tmp_path / "model.onnx"
    save(onnx.load(graph), path, limit=0)
    expected = open_session(graph, engine).run(tokens)["features"]
    session = open_session(path, engine)
    np.testing.assert_allclose(session.run(tokens)["features"], expected, atol=1e-6)
    del session  # which has the file mapped
    weights_file(path).unlink()
    with pytest.raises(SessionError, match=r"cannot load .*model\.onnx\.data.*reco model export"):
        open_session(path, engine)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"tokens": np.zeros((2, 3, 4), np.int32)}, r"'tokens': 'int32\[2, 3, 4\]'"),
        ({"tokens": np.zeros((2, 3), np.float32)}, r"'tokens': 'float32\[2, 3\]'"),
    ],
    ids=["rank", "type"],
)
def test_inputs_that_do_not_fit_are_named_with_type_and_shape(inputs, named, graph, engine, tokens):
    session = open_session(graph, engine)
    session.run(tokens)  # whose arrays must not be taken for those that are missing
    with pytest.raises(SessionError, match=rf"clip_text.*failed on .*{named}"):
        session.run(inputs)


@OPENVINO
def test_an_option_that_openvino_does_not_know_is_refused(graph):
    settings = load_settings(provider="openvino", provider_options={"device_id": "1"})
    with pytest.raises(SessionError, match=r"OpenVINO cannot run .*device_id"):
        open_session(graph, settings)


@OPENVINO
def test_openvino_as_the_provider_gives_the_vectors_of_onnx_runtime(model):
    """In bf16 where the processor has it; of texts of all lengths, which are cut, alone and in batches."""
    texts = ["red", "a photo of a blue circle", "a small bird on a branch " * 3, "word " * 40]
    with Reco.open(model, ":memory:") as plain, Reco.open(model, ":memory:", provider="openvino") as reco:
        expected, batch = plain.embed_texts(texts), reco.embed_texts(texts)
        alone = np.concatenate([reco.embed_texts([text]) for text in texts])
    assert (expected * batch).sum(1).min() >= 0.9995
    assert (expected * alone).sum(1).min() >= 0.9995


@OPENVINO
def test_what_runs_the_graphs_is_said(model):
    said = describe_engines(Artifact.load(model), load_settings(provider="openvino"))
    assert list(said) == list(GRAPHS)
    assert said["clip_text"] == said["clip_image"] in {"OpenVINO in bf16", "OpenVINO in f32"}
