"""ONNX Runtime in process: arrays by name, and faults that are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from reco_plugin.encoders.runtimes.graphs import Session
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.errors import SessionError
from reco_plugin.export.folder import save
from reco_plugin.files import weights_file
from reco_plugin.settings import load_settings


def open_session(path: Path) -> Session:
    return OrtSession(path, load_settings(provider="cpu"))


def test_arrays_go_in_and_come_out_by_name(graph, tokens):
    out = open_session(graph).run(tokens)
    assert list(out) == ["features"]
    assert out["features"].dtype == np.float32
    assert len(out["features"]) == 2
    assert np.isfinite(out["features"]).all()


def test_a_damaged_graph_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(SessionError, match=r"cannot load .*model\.onnx.*reco model export"):
        open_session(path)


def test_weights_in_a_second_file_give_the_same_vectors_and_are_named_when_gone(graph, tokens, tmp_path):
    path = tmp_path / "model.onnx"
    save(onnx.load(graph), path, limit=0)
    expected = open_session(graph).run(tokens)["features"]
    session = open_session(path)
    np.testing.assert_allclose(session.run(tokens)["features"], expected, atol=1e-6)
    del session  # which has the file mapped
    weights_file(path).unlink()
    with pytest.raises(SessionError, match=r"cannot load .*model\.onnx\.data.*reco model export"):
        open_session(path)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"tokens": np.zeros((2, 3, 4), np.int32)}, r"'tokens': 'int32\[2, 3, 4\]'"),
        ({"tokens": np.zeros((2, 3), np.float32)}, r"'tokens': 'float32\[2, 3\]'"),
    ],
    ids=["rank", "type"],
)
def test_inputs_that_do_not_fit_are_named_with_type_and_shape(inputs, named, graph, tokens):
    session = open_session(graph)
    session.run(tokens)  # whose arrays must not be taken for those that are missing
    with pytest.raises(SessionError, match=rf"clip_text.*failed on .*{named}"):
        session.run(inputs)
