"""The closed form's step: numpy, the graph in process and the graph on a real server agree."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.calibration.gate import step
from reco_plugin.config import load_settings
from reco_plugin.refine import refiner_for_vectors
from reco_plugin.sessions import open_graph
from reco_plugin.train.graph_inputs import step_inputs
from reco_plugin.types import MODALITIES, Records, Search, other

pytestmark = pytest.mark.xdist_group("triton")

NOTHING = slice(None, None, 8)
"""Rows of the inputs that have found nothing."""


@pytest.fixture(params=["process", "grpc"])
def place(request):
    """Settings that say where the graphs run."""
    if request.param == "process":
        return load_settings()
    return load_settings(triton_url=request.getfixturevalue("server").grpc, triton_timeout_s=60)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_thousand_queries_are_refined_alike(place, artifact, modality):
    given = step_inputs(artifact.manifest.dimension, batch=1000, seed=7)
    found = open_graph(artifact, f"reco_{modality}", place).run(given)
    refined, strength = step(**given)
    np.testing.assert_allclose(found["refined"], refined, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["strength"], strength, rtol=1e-5)
    moved = np.linalg.norm(found["refined"] - given["query"], axis=1)
    assert (moved[NOTHING] < 1e-6).all()
    assert np.median(moved) > 1e-3  # shares of the strength are drawn too


@pytest.mark.parametrize("name", ["query", "evidence", "signals", "constants"])
def test_a_row_that_is_not_finite_spoils_no_other_and_stops_no_server(place, artifact, name):
    given = step_inputs(artifact.manifest.dimension, batch=32)
    session = open_graph(artifact, "reco_text", place)
    expected = session.run(given)["refined"]
    spoilt = {**given, name: given[name].copy()}
    spoilt[name][3], spoilt[name][5] = np.nan, np.inf
    others = np.delete(np.arange(32), [3, 5])
    np.testing.assert_allclose(session.run(spoilt)["refined"][others], expected[others], rtol=0, atol=1e-5)
    np.testing.assert_allclose(session.run(given)["refined"], expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def learned(artifact):
    """A refiner that has learned from its pairs, and queries."""
    records, queries = clusters(artifact.manifest.dimension)
    return refiner_for_vectors([records]), queries


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_graph_refines_as_this_process_does(place, artifact, learned, modality):
    """What a client in another language sends: the evidence of the memory's state."""
    refiner, queries = learned
    expected = refiner.refine(queries, modality=modality)
    state = refiner.memory.calibration
    gate = state.gate(modality, "balanced")
    assert gate is not None
    assert expected.moved.max() > 0.01
    found = refiner.memory.store.search(Search(queries, modality, other(modality), 10, witnesses=True))
    evidence, side = state.weigh(modality, queries, found, gate), state.sides[modality]
    row = gate.gate.constants(side.spread, side.unit)
    sent = {"query": queries, "evidence": evidence.direction, "signals": evidence.signals}
    sent["constants"] = np.repeat(row[None], len(queries), axis=0)
    answer = open_graph(artifact, f"reco_{modality}", place).run(sent)
    np.testing.assert_allclose(answer["refined"], expected.vectors, rtol=0, atol=1e-5)


def clusters(dimension: int) -> tuple[Records, np.ndarray]:
    """800 pairs of 100 things that each modality places on its own, and one query of each thing."""
    rng = np.random.default_rng(0)

    def unit(x: np.ndarray) -> np.ndarray:
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    thing = np.repeat(np.arange(100), 8)
    image, text = (unit(rng.normal(size=(100, dimension))) for _ in MODALITIES)
    sides = [unit(x[thing] + 0.05 * rng.normal(size=(len(thing), dimension))) for x in (image, text)]
    records = Records([str(row) for row in range(len(thing))], *sides, [{}] * len(thing))
    return records, unit(image + text + 0.1 * rng.normal(size=(100, dimension)))
