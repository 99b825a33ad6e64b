"""Ranks, accuracy, recall, nDCG and intervals: by hand, and against torchmetrics, clip-benchmark and open_clip."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import InputError
from reco_plugin.evaluate import (
    Interval,
    ndcg,
    rank_blocks,
    ranking,
    ranks,
    recall,
    top_k,
)
from reco_plugin.evaluate.results import percent, table
from reco_plugin.measure.statistics import points

DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def unit(rows: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_ranks_by_hand() -> None:
    candidates = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    queries = np.float32([[1, 0], [1, 0], [0, 1]])
    assert ranks(queries, candidates, np.array([0, 2, 1])).tolist() == [0, 2, 1]
    assert top_k(np.array([0, 2, 1]), 1) == pytest.approx(1 / 3)
    assert top_k(np.array([0, 2, 1]), 2) == pytest.approx(2 / 3)


def test_ties_count_against_us() -> None:
    """Vectors that collapsed to one point are as bad as can be, whatever the order of the candidates."""
    same = np.tile(np.float32([[0.6, 0.8]]), (4, 1))
    assert ranks(same, same, np.arange(4)).tolist() == [3, 3, 3, 3]


def test_the_best_of_several_true_candidates_counts() -> None:
    candidates = np.float32([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    found = ranks(np.float32([[1, 0]]), candidates, np.array([7]), np.array([5, 7, 7, 5]))
    assert found.tolist() == [1]  # only [1, 0] is before [0.8, 0.6]; the other 7 is no rival


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, candidates, labels = unit(50, 8, 0), unit(20, 8, 1), np.random.default_rng(2).integers(0, 20, 50)
    whole = ranks(queries, candidates, labels)
    monkeypatch.setattr(ranking, "_BLOCK", 60)  # three queries at a time
    np.testing.assert_array_equal(ranks(queries, candidates, labels), whole)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 1000))
def test_ranks_agree_with_topk_of_torch(rows: int, classes: int, seed: int) -> None:
    """open_clip's accuracy: the label is among the k largest logits."""
    queries, candidates = unit(rows, 6, seed), unit(classes, 6, seed + 1)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    logits = torch.from_numpy(queries) @ torch.from_numpy(candidates).T
    found = ranks(queries, candidates, labels)
    for k in {1, min(5, classes)}:
        correct = logits.topk(k, 1).indices.eq(torch.from_numpy(labels)[:, None]).any(1)
        assert top_k(found, k) == pytest.approx(correct.float().mean().item())


def captions(images: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of images and of their texts, and the image of each text; every second image has one text less."""
    owner = np.array([row for row in range(images) for number in range(each) if number == 0 or (row + number) % 2])
    return unit(images, 5, seed), unit(len(owner), 5, seed + 1), owner


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 15), st.integers(1, 4), st.integers(0, 1000))
def test_recall_agrees_with_clip_benchmark(images: int, each: int, seed: int) -> None:
    """Recall@k of any and of all texts of an image; clip-benchmark wants k candidates at least."""
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval", reason="clip-benchmark is not installed")
    image, text, owner = captions(images, each, seed)
    scores = torch.from_numpy(text) @ torch.from_numpy(image).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
    ours = {"text->image": ranks(text, image, owner), "image->text": ranks(image, text, np.arange(images), owner)}
    found = rank_blocks(image, [text], np.arange(images), owner, k=5)
    for k in (1, 2, 5):
        by_text = theirs.recall_at_k(scores, positive, k)
        by_image = theirs.recall_at_k(scores.T, positive.T, k)
        assert top_k(ours["text->image"], k) == pytest.approx((by_text > 0).float().mean().item())
        assert top_k(ours["image->text"], k) == pytest.approx((by_image > 0).float().mean().item())
        np.testing.assert_allclose(recall(found.hits, found.relevant, k), by_image.numpy(), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 12), st.integers(1, 4), st.integers(0, 1000))
def test_ndcg_and_recall_agree_with_torchmetrics(images: int, each: int, seed: int) -> None:
    from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_recall

    image, text, owner = captions(images, each, seed)
    found = rank_blocks(image, [text], np.arange(images), owner, k=4)
    scores = torch.from_numpy(2 + image @ text.T)  # torchmetrics takes what is not above 0 as not found at all
    positive = torch.from_numpy(owner == np.arange(images)[:, None])
    for k in (1, 3, 4):
        theirs = [retrieval_normalized_dcg(s, p, top_k=k).item() for s, p in zip(scores, positive, strict=True)]
        np.testing.assert_allclose(ndcg(found.hits, found.relevant, k), theirs, atol=1e-6)
        theirs = [retrieval_recall(s, p, top_k=k).item() for s, p in zip(scores, positive, strict=True)]
        np.testing.assert_allclose(recall(found.hits, found.relevant, k), theirs, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(6, 30), st.integers(0, 1000))
def test_accuracy_agrees_with_torchmetrics(rows: int, classes: int, seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_accuracy

    queries, candidates = unit(rows, 6, seed), unit(classes, 6, seed + 1)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    logits, target = torch.from_numpy(queries @ candidates.T), torch.from_numpy(labels)
    found = ranks(queries, candidates, labels)
    theirs = [multiclass_accuracy(logits, target, classes, average="micro", top_k=k).item() for k in (1, 5)]
    assert [top_k(found, k) for k in (1, 5)] == pytest.approx(theirs)


def test_ndcg_by_hand() -> None:
    """One true result at the first, second and third position, and none at all, of one; and two of two."""
    hits = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]], np.bool_)
    found = ndcg(hits, np.array([1, 1, 1, 1, 2]))
    np.testing.assert_allclose(found, [1, 1 / np.log2(3), 0.5, 0, 1])
    np.testing.assert_allclose(ndcg(hits[:1], np.array([7])), 1 / (1 + 1 / np.log2(3) + 0.5))  # 7 true, room for 3
    np.testing.assert_allclose(recall(hits[4:], np.array([4]), k=1), 0.25)


@pytest.mark.parametrize(
    ("hits", "relevant", "k", "message"),
    [
        (np.ones((2, 3), bool), np.array([3, 1]), None, r"query 1 has more hits \(3\) than true candidates \(1\)"),
        (np.zeros((2, 3), bool), np.array([1, 0]), None, "query 1 has no true candidate"),
        (np.zeros((2, 3), bool), np.array([1]), None, "k from 1 to K expected"),
        (np.zeros((1, 3), bool), np.array([1]), 4, "k from 1 to K expected"),
    ],
)
def test_impossible_hits_are_refused(hits, relevant, k, message: str) -> None:
    for metric in (ndcg, recall):
        with pytest.raises(InputError, match=message):
            metric(hits, relevant, k)


@pytest.mark.parametrize(
    ("queries", "candidates", "labels", "message"),
    [
        (unit(2, 3, 0), unit(2, 4, 0), np.array([0, 1]), "expected, got"),
        (unit(2, 3, 0), unit(2, 3, 0), np.array([0]), "do not fit"),
        (unit(2, 3, 0), unit(2, 3, 0), np.array([0, 2]), "query 1 has label 2, which no candidate has"),
    ],
)
def test_what_does_not_fit_is_refused(queries, candidates, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranks(queries, candidates, labels)
    with pytest.raises(InputError, match="no queries"):
        top_k(np.array([], int), 1)


def test_tables_align() -> None:
    assert table(["a", "bb"], [["ccc", "d"]]) == "a    bb\n---  --\nccc   d"
    assert percent(0.6234) == "62.3"
    assert points(Interval(0.011, -0.002, 0.02)) == "+1.1 [-0.2, +2.0]"


def test_zero_shot_of_real_clip_vectors() -> None:
    """CLIP ViT-B/32 on ImageNet, image slots 2-3 with the prompts text_b: 62.3 %, see shared/guide/realclip.md."""
    path = DATA / "clip_vit_b32_imagenet.npz"
    if not path.is_file():
        pytest.skip(f"real CLIP vectors are not at {path}; set SHARED_DATA to their folder")
    stored = np.load(path)
    image = stored["image"][:, 2:].reshape(-1, 512).astype(np.float32)
    prompts = stored["text_b"].astype(np.float32)
    unit_image, unit_prompts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (image, prompts))
    found = ranks(unit_image, unit_prompts, np.repeat(np.arange(1000), 2))
    assert top_k(found, 1) == pytest.approx(0.623, abs=0.002)
    assert top_k(found, 5) > 0.85
