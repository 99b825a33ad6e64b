"""The shipped model, end to end: real graphs, a real memory, no figure that a re-export would change."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spoiled_features import SpoiledFeatures

from reco_plugin import Reco, Refinement
from reco_plugin.errors import (
    ConfigError,
    InputError,
    MemoryStoreError,
    UnusableFeatures,
)
from reco_plugin.types import MODALITIES, other

TEXTS = ["a red circle", "an orange square", "a small blue triangle", "something quite different"]


def embed(reco: Reco, modality: str, drawings: Any, **options: Any) -> np.ndarray:
    """Embed for the other modality, which moves images with few pairs, too."""
    if modality == "text":
        return reco.embed_texts(TEXTS, **options)
    return reco.embed_images([pair.image for pair in drawings[: len(TEXTS)]], target="text", **options)


@pytest.fixture(params=MODALITIES)
def modality(request) -> Any:
    return request.param


@pytest.fixture
def frozen(reco, drawings, modality) -> np.ndarray:
    return embed(reco, modality, drawings, refine=False)


@pytest.fixture
def with_policy(model, tmp_path) -> Callable[..., Path]:
    """A function that makes a copy of the shipped model with other defaults."""

    def make(**policy: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        for entry in model.iterdir():
            if entry.name != "manifest.json":
                (folder / entry.name).symlink_to(entry)
        manifest = json.loads((model / "manifest.json").read_text())
        manifest["policy"] |= policy
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


def test_frozen_embeddings_are_unit_float32(reco, frozen):
    assert (frozen.dtype, frozen.shape) == (np.float32, (len(TEXTS), reco.manifest.dimension))
    assert np.allclose(np.linalg.norm(frozen, axis=1), 1, atol=1e-6)
    assert np.abs(frozen[0] - frozen[1]).max() > 1e-2


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e30])
def test_features_without_a_direction_name_their_input(reco, value):
    texts = [f"a text of its own, {row}" + " and more" * (row % 7) for row in range(150)]
    SpoiledFeatures(reco, texts[130], value)
    with pytest.raises(UnusableFeatures, match=r"text .a text of its own, 130.* at position 130") as error:
        reco.embed_texts(texts)
    assert error.value.position == 130
    arrays = [reco.encoder.preparation.text(text, "a text").array for text in texts[128:]]
    with pytest.raises(UnusableFeatures) as error:
        reco.encoder.arrays([reco.encoder.texts(["a vector"])[0], *arrays], "text")
    assert error.value.position == 3
    assert len(reco.embed_texts(texts[:130])) == 130


def test_threads_get_the_vectors_that_they_get_alone(reco, drawings):
    texts = [pair.text + " and more" * (row % 12) for row, pair in enumerate(drawings)]
    images = [pair.image for pair in drawings]
    alone = reco.encoder.texts(texts), reco.encoder.images(images)
    apart = np.concatenate([reco.encoder.texts([text]) for text in texts])  # each cut to a length of its own
    assert np.allclose(apart, alone[0], atol=1e-5)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            one_by_one = list(threads.map(lambda text: reco.encoder.texts([text]), texts))
            pictures = list(threads.map(lambda image: reco.encoder.images([image]), images))
            assert np.allclose(np.concatenate(one_by_one), alone[0], atol=1e-5)
            assert np.allclose(np.concatenate(pictures), alone[1], atol=1e-5)


def test_a_filled_memory_moves_what_is_refined_and_keeps_it_unit(filled, frozen, modality):
    result = filled.refine(frozen, modality=modality, target=other(modality), gate=False)
    assert isinstance(result, Refinement)
    assert (result.vectors.dtype, result.vectors.shape) == (np.float32, frozen.shape)
    assert np.allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)
    assert result.moved.min() > 1e-6
    assert result.frozen.tobytes() == frozen.tobytes()


@pytest.mark.parametrize("role", ["query", "candidate"])
def test_the_policy_decides_when_the_caller_does_not(filled, drawings, modality, role):
    assert filled.refines(modality, role) == (modality in filled.manifest.policy.refine.get(role, ()))
    by_policy = embed(filled, modality, drawings, role=role)
    assert np.array_equal(
        by_policy, embed(filled, modality, drawings, role=role, refine=filled.refines(modality, role))
    )


@pytest.mark.parametrize("target", [None, "image", "text"])
def test_candidates_are_for_the_other_modality_whatever_queries_are_for(target, model, drawings, frozen, modality):
    with Reco.open(model, memory=":memory:", **({} if target is None else {"target": target})) as reco:
        reco.memory.add(drawings)
        assert reco.refine(frozen, modality=modality, role="candidate").coverage.found > 0
        queries = reco.refine(frozen, modality=modality).coverage.found
    assert (queries > 0) == (modality != (target or "image"))  # no pair is searched for the query's own modality


@pytest.mark.parametrize("policy", [{"query": ["text"], "candidate": ["image"]}, {}])
def test_another_policy_decides_otherwise(policy, with_policy, drawings, modality):
    path = with_policy(refine=policy, gate=False, k=2)
    with Reco.open(path, memory=":memory:") as reco:
        reco.memory.add(drawings)
        frozen = embed(reco, modality, drawings, refine=False)
        for role in ("query", "candidate"):
            refined = not np.array_equal(embed(reco, modality, drawings, role=role), frozen)
            assert refined == (modality in policy.get(role, []))
        neighbours = reco.refine(frozen, modality=modality, target=other(modality), explain=True).neighbours
        assert neighbours.found.shape == (len(frozen), 2)


@pytest.mark.parametrize("fuser", ["reco", "paper"])
def test_the_gate_is_of_the_closed_form(fuser, model, drawings, frozen, modality):
    with Reco.open(model, memory=":memory:", fuser=fuser) as reco:
        reco.memory.add(drawings)
        on, off = (
            reco.refine(frozen, modality=modality, target=other(modality), gate=gate, explain=True)
            for gate in (True, False)
        )
    assert np.allclose(np.linalg.norm(off.vectors, axis=1), 1, atol=1e-5)
    assert (off.reliability == 1).all()
    assert (fuser == "reco") == bool((on.reliability < 1).any())
    if fuser == "paper":
        assert np.array_equal(on.vectors, off.vectors)


def test_a_pair_is_found_unless_it_is_hidden(filled, drawings):
    images = [pair.image for pair in drawings]
    vectors, ids = filled.encoder.images(images), [pair.id for pair in drawings]
    asked: Any = {"modality": "image", "target": "text", "explain": True}
    usual = filled.refine(vectors, **asked).neighbours.ids
    assert [row[0] for row in usual] == ids
    own = filled.refine(vectors, exclude=[[name] for name in ids], **asked).neighbours.ids
    assert not any(name in row for name, row in zip(ids, own, strict=True))
    reds = [pair.id for pair in drawings if pair.payload["colour"] == "red"]
    none_red = filled.refine(vectors, exclude=reds, **asked).neighbours.ids
    assert not set(reds) & {name for row in none_red for name in row}


def tell_apart(reco: Reco) -> None:
    """Let queries move, though they are unlike the memory's pairs: these are few."""
    state = reco.memory.calibration
    unlike = np.linspace(-1.0, 1.5, 11)
    sides = {name: replace(side, typical=unlike) for name, side in state.sides.items()}
    reco.memory._learned = (reco.memory.searches.header, replace(state, sides=sides))


def test_scores_are_frozen_without_a_memory_and_exact_with_one(filled, drawings):
    images = [pair.image for pair in drawings[:5]]
    tell_apart(filled)
    found = filled.scores(images, TEXTS)
    vectors, prompts = filled.embed_images(images, refine=False), filled.embed_texts(TEXTS, refine=False)
    assert np.allclose(found.frozen, vectors @ prompts.T, atol=1e-6)
    assert found.scores.shape == (5, len(TEXTS))
    assert not np.allclose(found.scores, found.frozen, atol=1e-3)
    assert np.allclose(filled.scores(vectors, prompts).scores, found.scores, atol=1e-6)
    assert found.coverage.asked == len(found.coverage.covered) == len(TEXTS)
    rows = [filled.scores(vectors[row : row + 1], prompts).scores[0] for row in range(5)]
    assert np.allclose(rows, found.scores, atol=1e-5)
    with pytest.raises(InputError, match="no exact scores"):
        filled.scores(vectors, prompts, fuser="paper")
    filled.memory.remove([pair.id for pair in drawings])
    assert np.array_equal(filled.scores(vectors, prompts).scores, found.frozen)


def test_closing_twice_is_fine_and_a_closed_memory_says_so(model, drawings):
    reco = Reco.open(model, memory=":memory:")
    reco.close()
    reco.close()
    with pytest.raises(MemoryStoreError, match="closed"):
        reco.memory.add(drawings)
    with Reco.open(model, memory=":memory:") as again:
        again.close()


def test_an_error_inside_the_block_still_closes_the_memory(model, tmp_path, drawings):
    with pytest.raises(ZeroDivisionError), Reco.open(model, memory=tmp_path / "m") as reco:
        reco.memory.add(drawings[:3])
        _ = 1 / 0
    with Reco.open(model, memory=tmp_path / "m") as reco:
        assert len(reco.memory) == 3


def test_what_is_wrong_is_said_before_the_memory_is_opened(model, tmp_path):
    with pytest.raises(ConfigError, match="mean"):
        Reco.open(model, memory=tmp_path / "m", fuser="mean")
    assert not (tmp_path / "m").exists()
