"""Ranks, recall and intervals: by hand, and against the formulas of open_clip and clip-benchmark in torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import InputError
from reco_plugin.evaluate import bootstrap, metrics, ranks, retrieval_recall, top_k
from reco_plugin.evaluate.table import gain, percent, table

DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
    monkeypatch.setattr(metrics, "_BLOCK", 60)  # three queries at a time
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


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 15), st.integers(1, 4), st.integers(0, 1000))
def test_recall_agrees_with_clip_benchmark(images: int, captions: int, seed: int) -> None:
    """clip-benchmark: a matrix of positive pairs, hits = any positive among the k best of a row."""
    owner = np.repeat(np.arange(images), captions)
    image, text = unit(images, 5, seed), unit(len(owner), 5, seed + 1)
    scores = torch.from_numpy(text) @ torch.from_numpy(image).T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
    ours = retrieval_recall(image, text, owner, ks=(1, 2))
    for k in (1, 2):
        for direction, s, p in [("text->image", scores, positive), ("image->text", scores.T, positive.T)]:
            best = torch.zeros_like(p).scatter(1, s.topk(min(k, s.shape[1]), 1).indices, True)
            assert ours[direction][k] == pytest.approx((best & p).any(1).float().mean().item())


def test_an_image_without_texts_distracts_but_is_no_query() -> None:
    image = np.float32([[1, 0], [0, 1]])
    found = retrieval_recall(image, np.float32([[0.6, 0.8]]), np.array([0]), ks=(1, 2))
    assert found == {"text->image": {1: 0.0, 2: 1.0}, "image->text": {1: 1.0, 2: 1.0}}


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


def test_bootstrap_has_the_width_of_theory() -> None:
    hits = np.repeat([0.0, 1.0], 200)  # p = .5, n = 400: 1.96 * .5 / 20 = .049
    interval = bootstrap(hits)
    assert interval.mean == 0.5
    assert interval.high - 0.5 == pytest.approx(0.049, abs=0.006)
    assert 0.5 - interval.low == pytest.approx(0.049, abs=0.006)
    assert bootstrap(hits) == interval  # seeded


def test_bootstrap_by_group_is_wider_when_groups_agree() -> None:
    """Ten copies of each of 40 values are 40 observations: sqrt(10) times as wide."""
    values = np.repeat(np.tile([0.0, 1.0], 20), 10)
    single, grouped = bootstrap(values), bootstrap(values, np.repeat(np.arange(40), 10))
    assert grouped.mean == single.mean == 0.5
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(np.sqrt(10), rel=0.15)
    assert bootstrap(values, np.zeros(400)) == single  # one group says nothing about the spread
    with pytest.raises(InputError, match="3 groups for 400 values"):
        bootstrap(values, [1, 2, 3])
    with pytest.raises(InputError, match="needs values"):
        bootstrap([])


def test_tables_align() -> None:
    assert table(["a", "bb"], [["ccc", "d"]]) == "a    bb\n---  --\nccc   d"
    assert percent(0.6234) == "62.3"
    assert gain(metrics.Interval(0.011, -0.002, 0.02)) == "+1.1 [-0.2, +2.0]"


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
