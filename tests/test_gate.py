"""The gate and the training-free fusion: properties, a synthetic CLIP-like geometry, and real CLIP vectors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.errors import ConfigError
from reco_plugin.gate import STRENGTH, Calibration, calibrate, fuse_training_free, level, trust

K, DIM, GROUPS, PER_GROUP = 10, 64, 120, 3
ALL_FOUND = np.ones((1, K), np.bool_)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def search(query, keys, k=K):
    similarity = query @ keys.T
    nearest = np.argsort(-similarity, axis=1)[:, :k]
    return nearest, np.take_along_axis(similarity, nearest, axis=1)


class Clusters:
    """Groups of pairs that share a caption; images and captions lie apart, as behind CLIP's modality gap."""

    def __init__(self, groups=GROUPS, seed=0):
        rng = np.random.default_rng(seed)
        meaning = rng.normal(size=(groups, DIM))
        gap = 6.0 * np.eye(2, DIM)  # one direction for each modality
        self.group = np.repeat(np.arange(groups), PER_GROUP)
        self.caption = unit(meaning + gap[1])
        self._image = lambda: unit(meaning[self.group] + 0.7 * rng.normal(size=(len(self.group), DIM)) + gap[0])
        self.image, self.query = self._image(), self._image()
        self.text = self.caption[self.group]


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


def test_text_candidates_move_together_or_not_at_all():
    calibration = Calibration(text_loudness=0.4)
    answered, alone = np.float32([[0.4, 0.1]]), np.float32([[0.01, 0.0]])
    assert np.all(level(calibration, "text", np.repeat(answered, 3, 0)).max(axis=1) > 0)
    assert not level(calibration, "text", np.vstack([answered, answered, alone])).any()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_levelling_keeps_nothing_at_nothing(calibration, modality):
    assert not level(calibration, modality, np.zeros((4, 2), np.float32)).any()
    assert level(calibration, modality, np.zeros((4, 0), np.float32)).shape == (4, 0)


@pytest.mark.parametrize("pairs", [1, 2, 9, 10, 11, 40])
def test_tiny_memories_get_usable_constants(clusters, pairs):
    calibration = calibrate(clusters.image[:pairs], clusters.text[:pairs])
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    _, similarity = search(clusters.query, clusters.image[:pairs])
    result = trust(calibration, "image", similarity, np.ones_like(similarity, np.bool_))
    assert np.isfinite(result).all()
    if pairs < 10:
        assert calibration == Calibration()


def test_a_memory_that_repeats_one_pair(clusters):
    calibration = calibrate(np.repeat(clusters.image[:1], 80, 0), np.repeat(clusters.text[:1], 80, 0))
    assert Calibration.from_dict(calibration.to_dict()) == calibration


def test_more_neighbours_than_pairs(clusters):
    assert calibrate(clusters.image[:60], clusters.text[:60], neighbours=100).neighbours == 100


def test_same_memory_and_seed_give_the_same_constants(clusters):
    first, second = (calibrate(clusters.image, clusters.text, seed=3, sample=64) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("groups", [4, 8, 20, 60])
def test_few_groups_with_many_pairs_each_do_not_hide_what_a_caption_means(groups):
    """A group then holds more than a hundredth of the pairs, so the 0.99 quantile of cosines lies within groups."""
    rng = np.random.default_rng(groups)
    clusters = Clusters(groups)
    group = np.repeat(np.arange(groups), 15)
    text = unit(clusters.caption[group] + 0.02 * rng.normal(size=(len(group), DIM)))  # worded differently
    image = np.repeat(clusters.image[::PER_GROUP], 15, axis=0)
    cosines, together = text @ text.T, group[:, None] == group
    same = calibrate(unit(image + 0.02 * rng.normal(size=image.shape)), text).same_caption
    assert cosines[~together].max() < same < np.quantile(cosines[together], 0.05)


def test_shuffled_captions_are_believed_less(clusters, calibration):
    shuffled = clusters.text[np.random.default_rng(0).permutation(len(clusters.text))]
    assert calibrate(clusters.image, shuffled).text_loudness < 0.2 * calibration.text_loudness


def test_calibration_survives_json(calibration):
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d | {"colour": 1.0},
        lambda d: {name: value for name, value in d.items() if name != "image_bias"},
        lambda d: d | {"image_bias": float("nan")},
        lambda d: d | {"image_bias": "high"},
        lambda d: {},
    ],
    ids=["unknown", "missing", "nan", "text", "empty"],
)
def test_a_damaged_calibration_is_refused(calibration, spoil):
    with pytest.raises(ConfigError, match="calibrate the memory again"):
        Calibration.from_dict(spoil(calibration.to_dict()))


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
