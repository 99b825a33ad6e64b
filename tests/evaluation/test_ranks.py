"""Ranks, accuracy, recall and nDCG: by hand, and against torchmetrics and torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import InputError
from reco_plugin.evaluation import ranking
from reco_plugin.evaluation.judgments import measure_rankings
from reco_plugin.evaluation.ranking import hits_at, rank_candidates

DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def top_k(found: np.ndarray, k: int) -> float:
    return float(hits_at(found, k).mean())


def unit(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_ranks_by_hand() -> None:
    candidates = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    queries = np.float32([[1, 0], [1, 0], [0, 1]])
    assert rank_candidates(queries, candidates, np.array([0, 2, 1])).tolist() == [0, 2, 1]
    assert top_k(np.array([0, 2, 1]), 1) == pytest.approx(1 / 3)
    assert top_k(np.array([0, 2, 1]), 2) == pytest.approx(2 / 3)
    several = rank_candidates(
        queries[:1], np.float32([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]]), np.array([7]), np.array([5, 7, 7, 5])
    )
    assert several.tolist() == [1], "the other 7 is no rival"
    collapsed = np.tile(np.float32([[0.6, 0.8]]), (4, 1))
    assert rank_candidates(collapsed, collapsed, np.arange(4)).tolist() == [3, 3, 3, 3], "ties count against us"


def test_ndcg_by_hand() -> None:
    found = measure_rankings([["a", "b", "c"]], [{"b": 1.0, "c": 1.0}], 10)
    assert found["ndcg"][0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3)))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates, labels = unit(50, 8, 0), unit(20, 8, 1), np.random.default_rng(2).integers(0, 20, 50)
    whole = rank_candidates(queries, candidates, labels)
    monkeypatch.setattr(ranking, "_BLOCK", 60)  # three queries at a time
    np.testing.assert_array_equal(rank_candidates(queries, candidates, labels), whole)


@pytest.mark.torch
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1000))
def test_ranks_agree_with_topk_of_torch(rows: int, classes: int, seed: int) -> None:
    """open_clip's accuracy: the label is among the k largest logits."""
    import torch

    queries, candidates = unit(rows, 6, seed), unit(classes, 6, seed + 1)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    logits = torch.from_numpy(queries) @ torch.from_numpy(candidates).T
    found = rank_candidates(queries, candidates, labels)
    for k in {1, min(5, classes)}:
        correct = logits.topk(k, 1).indices.eq(torch.from_numpy(labels)[:, None]).any(1)
        assert top_k(found, k) == pytest.approx(correct.float().mean().item())


@pytest.mark.torch
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_ndcg_agrees_with_torchmetrics(right: int, seed: int) -> None:
    import torch
    from torchmetrics.functional.retrieval import retrieval_normalized_dcg

    rng = np.random.default_rng(seed)
    order = [f"d{n}" for n in rng.permutation(15)]
    grades = {f"d{n}": float(rng.integers(1, 4)) for n in range(right)}
    found = measure_rankings([order[:10]], [grades], 10)
    scores, target = torch.arange(15.0, 0.0, -1.0), torch.tensor([grades.get(one, 0.0) for one in order])
    assert found["ndcg"][0] == pytest.approx(retrieval_normalized_dcg(scores, target.long(), top_k=10).item())


@pytest.mark.parametrize(
    ("queries", "candidates", "labels", "message"),
    [
        (unit(2, 3, 0), unit(2, 4, 0), np.array([0, 1]), "expected, got"),
        (unit(2, 3, 0), unit(2, 3, 0), np.array([0, 2]), "query 1 has label 2, which no candidate has"),
    ],
)
def test_what_does_not_fit_is_refused(queries, candidates, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank_candidates(queries, candidates, labels)


def test_zero_shot_of_real_clip_vectors() -> None:
    """CLIP ViT-B/32 on ImageNet, image slots 2-3 with the prompts text_b: 62.3 %, see shared/guide/realclip.md."""
    path = DATA / "clip_vit_b32_imagenet.npz"
    if not path.is_file():
        pytest.skip(f"real CLIP vectors are not at {path}; set SHARED_DATA to their folder")
    stored = np.load(path)
    image = stored["image"][:, 2:].reshape(-1, 512).astype(np.float32)
    prompts = stored["text_b"].astype(np.float32)
    unit_image, unit_prompts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, prompts))
    found = rank_candidates(unit_image, unit_prompts, np.repeat(np.arange(1000), 2))
    assert top_k(found, 1) == pytest.approx(0.623, abs=0.002)
    assert top_k(found, 5) > 0.85
