"""A graph on a Triton server gives what it gives in process; test_engines.py says what is the same of every session."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from triton_server import TritonServer

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.encoders.runtimes.graphs import Session, open_graph
from reco_plugin.errors import SessionError
from reco_plugin.settings import load_settings

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("triton")]

EXACT = {"rtol": 0.0, "atol": 1e-5}
MAX_BATCH = 64

Open = Callable[[str], Session]


@pytest.fixture
def opened(server: TritonServer, artifact: Artifact) -> Open:
    """Opens a graph on the server."""
    settings = load_settings(triton_url=server.grpc, triton_timeout_s=60)
    return lambda graph: open_graph(artifact, graph, settings)


@pytest.fixture(scope="module")
def reference(artifact: Artifact) -> Open:
    """In process, on one thread."""
    return lambda graph: open_graph(artifact, graph, load_settings(threads=1))


def compare(session: Session, reference: Session, inputs: dict[str, np.ndarray]) -> None:
    found, expected = session.run(inputs), reference.run(inputs)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, **EXACT)


def tokens(batch: int, length: int, artifact: Artifact, seed: int = 0) -> dict[str, np.ndarray]:
    end = artifact.manifest.text.end_id
    ids = np.random.default_rng(seed).integers(1, end, (batch, length), dtype=np.int32)
    ids[:, -1] = end
    return {"tokens": ids}


def pixels(batch: int, artifact: Artifact) -> dict[str, np.ndarray]:
    shape = (batch, *artifact.manifest.image.size, 3)
    return {"pixels": np.random.default_rng(batch).integers(0, 256, shape, dtype=np.uint8)}


@pytest.mark.parametrize(("batch", "k"), [(1, 1), (7, 5), (MAX_BATCH, 20)])
@pytest.mark.parametrize("graph", ["paper_image", "paper_text"])
def test_fusions_are_equal_with_any_number_of_neighbours(opened, reference, fusion_inputs, graph, batch, k):
    compare(opened(graph), reference(graph), fusion_inputs(batch, k, seed=k))


@pytest.mark.parametrize("batch", [MAX_BATCH + 1, 200])
def test_a_batch_above_the_models_maximum_is_split(opened, reference, fusion_inputs, batch):
    compare(opened("paper_text"), reference("paper_text"), fusion_inputs(batch, 4, seed=batch))


@pytest.mark.parametrize("batch", [1, MAX_BATCH + 3])
def test_images_are_equal(opened, reference, artifact, batch):
    compare(opened("clip_image"), reference("clip_image"), pixels(batch, artifact))


@pytest.mark.parametrize("length", [3, 20])
def test_texts_of_any_length_are_equal(opened, reference, artifact, length):
    compare(opened("clip_text"), reference("clip_text"), tokens(6, length, artifact))


def test_an_empty_batch_has_empty_results_of_the_right_shapes(opened, fusion_inputs, artifact):
    out = opened("paper_text").run(fusion_inputs(0, 5))
    assert out["refined"].shape == (0, artifact.manifest.dimension)
    assert out["weights"].shape == (0, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": np.zeros((2, 3, 4), np.int32)},
        {"tokens": np.zeros((2, 3), np.float32)},
    ],
    ids=["rank", "type"],
)
def test_inputs_that_do_not_fit_are_named_and_do_no_harm(opened, reference, artifact, wrong):
    session = opened("clip_text")
    shapes = [f"{array.dtype}{list(array.shape)}" for array in wrong.values()]
    with pytest.raises(SessionError, match=r"clip_text.*failed on") as caught:
        session.run(wrong)
    assert type(caught.value) is SessionError
    assert all(shape in str(caught.value) for shape in shapes)
    compare(session, reference("clip_text"), tokens(2, 8, artifact))
