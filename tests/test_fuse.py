"""Both fusions behind one protocol: the graphs of the shipped model, and the one without learned weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin.artifact import Artifact, Manifest
from reco_plugin.config import load_settings
from reco_plugin.errors import ArtifactError
from reco_plugin.fuse import Fuser, TrainingFreeFuser, open_fuser
from reco_plugin.gate import STRENGTH, TextGate
from reco_plugin.types import MODALITIES, Modality, Neighbours

B, K = 9, 6


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def artifact(model) -> Artifact:
    return Artifact.load(model)


@pytest.fixture(scope="module", params=["model", "training-free"])
def fuser(request, artifact) -> Fuser:
    return open_fuser(artifact, load_settings(fuser=request.param))


class Case:
    """Queries with neighbours; the last neighbours are padding, more of it in later rows."""

    def __init__(self, dimension: int, rows: int = B) -> None:
        rng = np.random.default_rng(1)
        self.query = unit(rng.normal(size=(rows, dimension)))
        self.found = np.arange(K)[None] < K - np.arange(rows)[:, None] % K
        vectors = unit(0.5 * self.query[:, None] + rng.normal(size=(rows, K, dimension)) / dimension**0.5)
        self.vectors = np.where(self.found[..., None], vectors, 0).astype(np.float32)
        similarity = -np.sort(-rng.uniform(0.3, 0.95, (rows, K)), axis=1)
        self.similarity = np.where(self.found, similarity, 0).astype(np.float32)
        self.trust = np.where(self.found, rng.uniform(0.2, 1.0, (rows, K)), 0).astype(np.float32)

    def neighbours(self, rows: Any = slice(None)) -> Neighbours:
        ids = [[str(i) for i in range(count)] for count in self.found[rows].sum(axis=1)]
        return Neighbours(ids, self.similarity[rows], self.vectors[rows], self.found[rows])

    def fuse(self, fuser: Fuser, modality: Modality, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        return fuser.fuse(modality, self.query[rows], self.neighbours(rows), self.trust[rows])


@pytest.fixture(scope="module")
def case(artifact) -> Case:
    return Case(artifact.manifest.dimension)


def test_the_names_are_those_of_manifest_and_protocol(artifact):
    assert open_fuser(artifact, load_settings()).name == artifact.manifest.fusion.fuser
    free = open_fuser(artifact, load_settings(fuser="training-free"))
    assert (free.name, free.text_gate) == ("training-free", None)


@pytest.mark.parametrize("gate", [None, TextGate(9.0, 2.0, -5.0, 0.9, 0.1, 0.8)], ids=["no gate", "gate"])
def test_the_text_gate_is_the_manifests_and_survives_json(gate, artifact):
    fusion = artifact.manifest.fusion.model_copy(update={"text_gate": gate})
    manifest = Manifest.model_validate_json(artifact.manifest.model_copy(update={"fusion": fusion}).model_dump_json())
    assert manifest.fusion.text_gate == gate
    assert open_fuser(replace(artifact, manifest=manifest), load_settings()).text_gate == gate


def test_a_manifest_with_a_damaged_text_gate_is_refused(model, tmp_path):
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["fusion"]["text_gate"] = {"similarity": 9.0}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"not a manifest: fusion\.text_gate"):
        Artifact.load(tmp_path)


@pytest.mark.parametrize("modality", MODALITIES)
def test_refined_vectors_are_unit_float32_and_differ(fuser, case, modality):
    refined, weights = case.fuse(fuser, modality)
    assert (refined.dtype, refined.shape) == (np.float32, case.query.shape)
    assert (weights.dtype, weights.shape) == (np.float32, (B, K))
    assert np.allclose(np.linalg.norm(refined, axis=1), 1, atol=1e-5)
    assert np.abs(refined - case.query).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("modality", MODALITIES)
def test_padding_has_no_weight_and_no_say(fuser, case, modality):
    refined, weights = case.fuse(fuser, modality)
    assert not weights[~case.found].any()
    assert (weights[case.found] > 0).any()
    other = Case(case.query.shape[1])
    other.vectors[~other.found] = case.query[0]
    assert np.allclose(other.fuse(fuser, modality)[0], refined, atol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_row_without_trust_comes_back_bit_by_bit(fuser, artifact, modality):
    case = Case(artifact.manifest.dimension)
    case.trust[::2] = 0
    refined, weights = case.fuse(fuser, modality)
    assert refined[::2].tobytes() == case.query[::2].tobytes()
    assert not weights[::2].any()
    assert np.abs(refined[1::2] - case.query[1::2]).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_same_call_gives_the_same_bits(fuser, case, modality):
    first, second = case.fuse(fuser, modality), case.fuse(fuser, modality)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_batch_is_its_rows_one_by_one(fuser, case, modality):
    refined, weights = case.fuse(fuser, modality)
    for row in range(B):
        alone = case.fuse(fuser, modality, slice(row, row + 1))
        assert np.allclose(alone[0][0], refined[row], atol=1e-6)
        assert np.allclose(alone[1][0], weights[row], atol=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
def test_less_trust_moves_less(fuser, artifact, modality):
    if fuser.name == "paper":
        pytest.skip("the paper's fusion knows only whether a neighbour is trusted at all")
    full, little = Case(artifact.manifest.dimension), Case(artifact.manifest.dimension)
    little.trust *= np.float32(0.05)
    far, near = (np.linalg.norm(c.fuse(fuser, modality)[0] - c.query, axis=1) for c in (full, little))
    assert near.mean() < far.mean()


@pytest.mark.parametrize("modality", MODALITIES)
def test_training_free_fusion_by_hand(modality):
    """Trust 0.6 and 0.2 of orthogonal neighbours: the better one says how much, the shares 3/4 and 1/4 say what."""
    neighbours = Neighbours(
        [["a", "b"]],
        np.float32([[0.9, 0.8, 0.0]]),
        np.float32([[[0, 1, 0], [0, 0, 1], [0, 0, 0]]]),
        np.array([[True, True, False]]),
    )
    fused = TrainingFreeFuser().fuse(modality, np.float32([[1, 0, 0]]), neighbours, np.float32([[0.6, 0.2, 0.0]]))
    weights = STRENGTH[modality] * 0.6 * np.array([0.75, 0.25, 0.0])
    moved = np.array([1.0, weights[0], weights[1]])
    assert np.allclose(fused.weights, weights[None], atol=1e-7)
    assert np.allclose(fused.vectors, (moved / np.linalg.norm(moved))[None], atol=1e-7)
