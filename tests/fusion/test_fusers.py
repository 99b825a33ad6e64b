"""The fusion graphs of the shipped model: the paper's layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.fusion.base import Fuser, open_fusers
from reco_plugin.settings import load_settings
from reco_plugin.types import MODALITIES, Modality, Neighbours

B, K = 9, 6


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def artifact(model) -> Artifact:
    return Artifact.load(model)


@pytest.fixture(scope="module")
def fuser(artifact) -> Fuser:
    return open_fusers(artifact, load_settings())["paper"]


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
        return Neighbours(
            ids, self.similarity[rows], self.vectors[rows], self.found[rows], np.zeros_like(self.similarity[rows])
        )

    def fuse(self, fuser: Fuser, modality: Modality, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        return fuser.fuse(modality, self.query[rows], self.neighbours(rows), self.trust[rows])


@pytest.fixture(scope="module")
def case(artifact) -> Case:
    return Case(artifact.manifest.dimension)


def test_the_model_says_which_fusions_it_has(artifact):
    assert artifact.manifest.fusers == ("reco", "paper")
    assert {name: fuser.name for name, fuser in open_fusers(artifact, load_settings()).items()} == {"paper": "paper"}


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
def test_a_batch_is_its_rows_one_by_one(fuser, case, modality):
    refined, weights = case.fuse(fuser, modality)
    for row in range(B):
        alone = case.fuse(fuser, modality, slice(row, row + 1))
        assert np.allclose(alone[0][0], refined[row], atol=1e-6)
        assert np.allclose(alone[1][0], weights[row], atol=1e-6)
