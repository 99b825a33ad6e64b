"""The gate and the training-free fusion: properties, a synthetic CLIP-like geometry, and real CLIP vectors."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clusters import DIM, GROUPS, Clusters, search, unit

from reco_plugin.calibration import Calibration, calibrate
from reco_plugin.gate import STRENGTH, TextGate, estimate_covered, fuse_training_free, level, trust

K = 10
ALL_FOUND = np.ones((1, K), np.bool_)
GATE = TextGate(similarity=12.0, standout=4.0, bias=-9.0, answered=0.8, unanswered=0.2, honesty=0.8)


@pytest.fixture(scope="module")
def clusters():
    return Clusters()


@pytest.fixture(scope="module")
def calibration(clusters):
    return calibrate(clusters.image, clusters.text)


def test_the_geometry_of_these_tests_has_a_gap(clusters):
    across = float(np.mean(clusters.image @ clusters.text.T))
    within = float(np.mean(clusters.image @ clusters.image.T))
    assert across < 0.1 < 0.25 < within


@pytest.mark.parametrize("modality", ["image", "text"])
def test_trust_is_a_share_and_nothing_where_nothing_was_found(calibration, modality):
    similarity = np.random.default_rng(0).uniform(-1, 1, (50, K)).astype(np.float32)
    found = np.random.default_rng(1).random((50, K)) < 0.5
    found[0] = False
    result = trust(calibration, modality, np.where(found, similarity, 0), found)
    assert result.dtype == np.float32
    assert np.all((result >= 0) & (result <= 1))
    assert np.array_equal(result > 0, found)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_padding_does_not_change_the_trust_of_what_was_found(calibration, modality):
    similarity = np.linspace(0.9, 0.5, 4, dtype=np.float32)[None]
    alone = trust(calibration, modality, similarity, np.ones((1, 4), np.bool_))
    padded = trust(calibration, modality, np.pad(similarity, ((0, 0), (0, 3))), np.arange(7)[None] < 4)
    assert np.allclose(padded[:, :4], alone, rtol=1e-5)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_nearer_neighbour_is_trusted_more(calibration, modality):
    result = trust(calibration, modality, np.linspace(0.99, 0.3, K, dtype=np.float32)[None], ALL_FOUND)
    assert np.all(np.diff(result[0]) < 0)


def test_neighbours_with_the_right_caption_get_more_trust(clusters, calibration):
    nearest, similarity = search(clusters.query, clusters.image)
    right = clusters.group[nearest] == clusters.group[:, None]
    result = trust(calibration, "image", similarity, np.ones_like(right))
    assert result[right].mean() > 3 * result[~right].mean()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_memory_of_other_things_gets_little_trust(clusters, modality):
    known = clusters.group < GROUPS // 2
    calibration = calibrate(clusters.image[known], clusters.text[known])
    keys, query = (
        (clusters.image[known], clusters.query) if modality == "image" else (clusters.text[known], clusters.text)
    )
    _, similarity = search(query, keys)
    best = trust(calibration, modality, similarity, np.ones_like(similarity, np.bool_)).max(axis=1)
    assert best[known].mean() > 3 * best[~known].mean()


def chance(gate, logit):
    """Trust of a neighbour alone, whose similarity makes this logit."""
    similarity = np.float32([[(logit - gate.bias) / gate.similarity]])
    return gate.trust(similarity, np.ones((1, 1), np.bool_))[0, 0]


@pytest.mark.parametrize(
    ("logit", "expected"),
    [(0.0, 0.5), (np.log(3), 0.9), (-np.log(3), 0.1), (np.log(9), 81 / 82), (100, 1.0), (-100, 0.0)],
)
def test_a_trained_gate_decides_by_the_squares_of_the_chances(logit, expected):
    """Chance 3/4 is 9 times as likely, squared: 0.9; a half stays a half."""
    assert chance(GATE, logit) == pytest.approx(expected, abs=1e-6)
    assert chance(GATE, logit) > 0  # a trust of 0 means that nothing was found


def test_only_the_best_neighbour_is_decided_and_the_others_keep_their_share():
    similarity = np.float32([[np.log(3), -np.log(3), 0.0]])  # chances 3/4 and 1/4; the last one is padding
    plain = replace(GATE, similarity=1.0, standout=0.0, bias=0.0)
    assert np.allclose(plain.trust(similarity, np.array([[True, True, False]])), [[0.9, 0.3, 0.0]])
    assert not plain.trust(similarity, np.zeros((1, 3), np.bool_)).any()
    assert plain.trust(np.zeros((2, 0), np.float32), np.zeros((2, 0), np.bool_)).shape == (2, 0)


def test_a_trained_gate_asks_how_far_a_neighbour_stands_out():
    alike, apart = np.float32([[0.8] * 4]), np.float32([[0.8, 0.3, 0.3, 0.3]])
    four = np.ones((1, 4), np.bool_)
    gate = replace(GATE, similarity=1.0, standout=10.0, bias=-2.0)
    assert gate.trust(apart, four)[0, 0] > 3 * gate.trust(alike, four)[0, 0]
    padded = gate.trust(np.pad(apart, ((0, 0), (0, 3))), np.arange(7)[None] < 4)
    assert np.allclose(padded[:, :4], gate.trust(apart, four), rtol=1e-5)


def test_a_trained_gate_speaks_for_texts_alone(calibration):
    similarity = np.linspace(0.95, 0.5, K, dtype=np.float32)[None]
    image = [trust(calibration, "image", similarity, ALL_FOUND, text_gate=gate) for gate in (None, GATE)]
    text = [trust(calibration, "text", similarity, ALL_FOUND, text_gate=gate) for gate in (None, GATE)]
    assert np.array_equal(*image)
    assert not np.allclose(*text, atol=1e-2)
    expected = GATE.max_trust(calibration) * GATE.trust(similarity, ALL_FOUND)
    assert np.allclose(text[1], expected)


def test_the_largest_trust_falls_with_wrong_captions_and_with_what_clip_knows():
    honesty, alignment = np.linspace(0.0, 0.8, 9), np.linspace(0.0, 1.0, 11)
    most = np.array([[GATE.max_trust(Calibration(honesty=h, alignment=a)) for a in alignment] for h in honesty])
    assert np.all((most >= 0) & (most <= 1))
    assert np.all(np.diff(most[:, -1]) >= 0)
    assert most[0, -1] == 0
    assert np.all(np.diff(most, axis=1) <= 0)
    assert np.allclose(most[-1, :6], 1, atol=1e-3), "captions as good as in training, and CLIP knows half of it"
    assert np.allclose(most[:, 0], 1), "the encoder knows nothing: nothing can be lost"


def test_where_all_captions_lie_and_clip_knows_better_texts_stay():
    lies = Calibration(honesty=0.0, alignment=1.0)
    found = trust(lies, "text", np.float32([[0.99, 0.9]]), np.ones((1, 2), np.bool_), text_gate=GATE)
    assert not found.any()
    assert not level(lies, "text", found, text_gate=GATE).any()


def test_the_memory_itself_trusts_captions_less_that_are_less_honest():
    similarity = np.float32([[0.99, 0.9]])
    whole, half = (trust(Calibration(honesty=h), "text", similarity, np.ones((1, 2), np.bool_)) for h in (1.0, 0.5))
    assert np.allclose(half, 0.5 * whole)


def test_rows_without_trust_come_back_bit_for_bit(clusters):
    query = clusters.query[:8]
    values = clusters.text[: 8 * K].reshape(8, K, DIM)
    given = np.zeros((8, K), np.float32)
    given[::2, 0] = 0.4
    refined, weights = fuse_training_free("image", query, values, given)
    assert np.array_equal(refined[1::2], query[1::2])
    assert not np.any(weights[1::2])
    assert np.all(np.linalg.norm(refined[::2] - query[::2], axis=1) > 0.05)


def test_fusion_is_the_documented_sum_one_row_at_a_time(clusters):
    rng = np.random.default_rng(0)
    query, values = clusters.query[:5], clusters.text[: 5 * K].reshape(5, K, DIM)
    given = rng.random((5, K)).astype(np.float32)
    refined, weights = fuse_training_free("text", query, values, given)
    for row in range(5):
        total = query[row].astype(np.float64)
        for i in range(K):
            total = total + STRENGTH["text"] * given[row].max() * given[row, i] / given[row].sum() * values[row, i]
        assert np.allclose(refined[row], total / np.linalg.norm(total), atol=1e-6)
    assert np.allclose(weights.sum(axis=1), STRENGTH["text"] * given.max(axis=1))


def test_no_neighbours_at_all(clusters):
    query = clusters.query[:3]
    empty = np.zeros((3, 0), np.float32)
    refined, weights = fuse_training_free("image", query, np.zeros((3, 0, DIM), np.float32), empty)
    assert np.array_equal(refined, query)
    assert weights.shape == (3, 0)


def test_candidates_move_equally_far(calibration):
    given = np.float32([[0.3, 0.1], [0.01, 0.0]])
    levelled = level(calibration, "image", given, height=0.5)
    assert np.allclose(levelled.max(axis=1), 0.5 * calibration.image_loudness)
    assert np.allclose(levelled[0], levelled[0, 0] * given[0] / given[0, 0])


@pytest.mark.parametrize("text_gate", [None, GATE], ids=["memory", "trained"])
@pytest.mark.parametrize(("answered", "moves"), [(0, False), (66, False), (67, True), (100, True)])
def test_text_candidates_move_together_where_two_in_three_are_answered(text_gate, answered, moves):
    calibration = Calibration(text_loudness=0.4, honesty=0.5)
    most = 0.2 if text_gate is None else GATE.max_trust(calibration)
    high, low = (1.0, 0.0) if text_gate is None else (GATE.answered, GATE.unanswered)
    best = np.where(np.arange(100) < answered, high, low)[:, None]
    given = (most * best * [[1.0, 0.25]] + 1e-12).astype(np.float32)
    assert estimate_covered(best.astype(np.float32), text_gate) == pytest.approx(answered / 100, abs=1e-6)
    levelled = level(calibration, "text", given, height=0.5, text_gate=text_gate)
    if not moves:
        assert not levelled.any()
    else:
        assert np.allclose(levelled.max(axis=1), 0.5 * most)
        assert np.allclose(levelled[0], 0.5 * most * np.array([1.0, 0.25]))


def test_a_text_candidate_that_found_nothing_stays_where_the_others_move():
    given = np.float32([[0.25, 0.1]] * 9 + [[0.0, 0.0]])
    levelled = level(Calibration(), "text", given)
    assert levelled[:9].any(axis=1).all()
    assert not levelled[9].any()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_levelling_keeps_nothing_at_nothing(calibration, modality):
    assert not level(calibration, modality, np.zeros((4, 2), np.float32)).any()
    assert level(calibration, modality, np.zeros((4, 0), np.float32)).shape == (4, 0)


# --- real CLIP ViT-B/32 vectors; the margins are about a point from what benchmarks/realclip_gate.py prints


def load(name):
    """Arrays of one file of real CLIP vectors, unit-norm; labels as they are."""
    folder = os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    path = Path(folder) / f"clip_vit_b32_{name}.npz"
    if not path.is_file():
        pytest.skip(f"no real CLIP vectors at {path}; set SHARED_DATA")
    with np.load(path) as arrays:
        return {key: unit(a.astype(np.float32)) if (a := arrays[key]).ndim > 1 else a for key in arrays.files}


@pytest.fixture(scope="module")
def imagenet():
    return load("imagenet")


@pytest.fixture(scope="module")
def odd_memory(imagenet):
    """Pairs of the odd ImageNet classes: images (1000, D), captions (1000, D), calibration."""
    image = imagenet["image"][1::2, :2].reshape(1000, -1)
    text = np.repeat(imagenet["text_a"][1::2], 2, axis=0)
    return image, text, calibrate(image, text)


def test_image_queries_gain_where_the_memory_knows_and_keep_where_not(imagenet, odd_memory):
    image, text, calibration = odd_memory
    query, label = imagenet["image"][:, 2:].reshape(2000, -1), np.repeat(np.arange(1000), 2)
    nearest, similarity = search(query, image)
    given = trust(calibration, "image", similarity, np.ones_like(similarity, np.bool_))
    refined, _ = fuse_training_free("image", query, text[nearest], given)
    frozen_hit, hit = (((q @ imagenet["text_b"].T).argmax(axis=1) == label) for q in (query, refined))
    gain = 100.0 * (hit.astype(float) - frozen_hit)
    assert gain[label % 2 == 1].mean() > 1.5
    assert gain[label % 2 == 0].mean() > -1.5


def test_text_queries_gain_where_the_memory_knows_and_keep_where_not(imagenet, odd_memory):
    image, text, calibration = odd_memory
    gallery, label = imagenet["image"][:, 2:].reshape(2000, -1), np.repeat(np.arange(1000), 2)
    nearest, similarity = search(imagenet["text_b"], text)
    given = trust(calibration, "text", similarity, np.ones_like(similarity, np.bool_))
    refined, _ = fuse_training_free("text", imagenet["text_b"], image[nearest], given)
    frozen_hit, hit = (
        (label[(q @ gallery.T).argmax(axis=1)] == np.arange(1000)) for q in (imagenet["text_b"], refined)
    )
    gain = 100.0 * (hit.astype(float) - frozen_hit)
    assert gain[1::2].mean() > 1.5
    assert gain[::2].mean() > -0.5


def test_image_search_in_a_set_that_the_memory_does_not_know_is_kept(odd_memory):
    image, text, calibration = odd_memory
    pets = load("oxford_pets")
    query, index, answer, label = (pets[key] for key in ("test_image", "val_image", "val_label", "test_label"))
    nearest, similarity = search(query, image)
    given = trust(calibration, "image", similarity, np.ones_like(similarity, np.bool_))
    refined, _ = fuse_training_free("image", query, text[nearest], given)
    frozen, gated = (100.0 * (answer[(q @ index.T).argmax(axis=1)] == label).mean() for q in (query, refined))
    assert gated > frozen - 0.5


def test_a_levelled_gallery_serves_known_and_unknown_classes(imagenet, odd_memory):
    image, text, calibration = odd_memory
    gallery, label = imagenet["image"][:, 2:].reshape(2000, -1), np.repeat(np.arange(1000), 2)
    nearest, similarity = search(gallery, image)
    given = level(calibration, "image", trust(calibration, "image", similarity, np.ones_like(similarity, np.bool_)))
    refined, _ = fuse_training_free("image", gallery, text[nearest], given)
    frozen_hit, hit = (label[(imagenet["text_b"] @ g.T).argmax(axis=1)] == np.arange(1000) for g in (gallery, refined))
    gain = 100.0 * (hit.astype(float) - frozen_hit)
    assert gain[1::2].mean() > 1.0
    assert gain[::2].mean() > -1.0
