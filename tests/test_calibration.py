"""The gate's constants are measured on a memory's own pairs: on clean and spoiled ones, on tiny and odd memories."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clusters import DIM, PER_GROUP, Clusters, search, unit

from reco_plugin.calibration import Calibration, calibrate
from reco_plugin.errors import ConfigError
from reco_plugin.gate import trust


@pytest.fixture(scope="module")
def clusters():
    return Clusters()


@pytest.fixture(scope="module")
def calibration(clusters):
    return calibrate(clusters.image, clusters.text)


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


def shuffled(clusters, share):
    """Captions, of which a share have changed places."""
    rng, place = np.random.default_rng(0), np.arange(len(clusters.text))
    wrong = np.flatnonzero(rng.random(len(place)) < share)
    place[wrong] = rng.permutation(wrong)
    return clusters.text[place]


def test_honesty_falls_with_every_wrong_caption(clusters):
    honesty = [calibrate(clusters.image, shuffled(clusters, share)).honesty for share in (0.0, 0.3, 0.6, 1.0)]
    assert honesty[0] > 0.9
    assert np.all(np.diff(honesty) < -0.1)
    assert honesty[-1] < 0.1


def test_shuffled_captions_are_believed_less(clusters, calibration):
    spoiled = calibrate(clusters.image, shuffled(clusters, 1.0))
    speaks = [c.honesty * c.text_loudness for c in (spoiled, calibration)]
    assert speaks[0] < 0.2 * speaks[1]
    assert spoiled.text_loudness == pytest.approx(calibration.text_loudness, rel=0.02)  # it is of the encoder alone


def test_honesty_is_believed_where_no_caption_comes_twice(clusters):
    one_each = slice(None, None, PER_GROUP)
    assert calibrate(clusters.image[one_each], clusters.text[one_each]).honesty == 1.0


def test_alignment_tells_an_encoder_that_knows_the_pairs_from_one_that_does_not(clusters):
    strangers = unit(np.random.default_rng(1).normal(size=clusters.text.shape) + 6.0 * np.eye(2, DIM)[1])
    assert calibrate(clusters.image, clusters.text).alignment > 0.9
    assert calibrate(clusters.image, strangers).alignment < 0.15
    half = np.where(np.arange(len(strangers))[:, None] % 2, strangers, clusters.text)
    assert 0.3 < calibrate(clusters.image, half).alignment < 0.7


def test_alignment_of_identical_sides_is_whole():
    same = np.eye(40, 48, dtype=np.float32)
    assert calibrate(same, same).alignment > 0.9  # a caption that meets itself ties, one time in 40
    assert calibrate(same, -same).alignment == 0.0


def test_loudness_is_the_ratio_of_the_spreads_and_at_most_one(clusters):
    """Captions that say only a little of what they mean, beside a large part that all share."""
    quiet = unit(0.2 * clusters.text + np.eye(1, DIM)[0])
    calibration = calibrate(clusters.image, quiet)
    across = (clusters.image @ quiet.T).std(axis=1).mean()
    assert calibration.image_loudness == pytest.approx(
        min(1.0, across / (quiet @ quiet.T).std(axis=1).mean()), rel=0.01
    )
    within = (clusters.image @ clusters.image.T).std(axis=1).mean()
    assert calibration.text_loudness == pytest.approx((quiet @ clusters.image.T).std(axis=1).mean() / within, rel=0.01)
    assert calibration.text_loudness < 0.9
    assert calibrate(clusters.image, clusters.image).image_loudness == 1.0


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
