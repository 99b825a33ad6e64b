"""Simulations with fixed seeds: what gains nothing is hardly ever called sure, what gains nearly as often as by t."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.nulls import NULLS, skewed
from reco_plugin.errors import InputError
from reco_plugin.evaluation.statistics import (
    MIN_CHANGED,
    MIN_GROUPS,
    Interval,
    bootstrap,
    compare_pairs,
)

SHOPS = 60  # of each null


def test_what_gains_nothing_is_hardly_ever_called_sure() -> None:
    """Of each null what chance allows for 3 %; `python -m benchmarks.nulls` draws each 2,000 times."""
    sure = dict.fromkeys(NULLS, 0)
    for number, (name, make) in enumerate(NULLS.items()):
        for shop in range(SHOPS):
            sure[name] += compare_pairs(*make(np.random.default_rng([1, shop, number])), seed=shop).is_gain
    assert sum(sure.values()) <= 0.03 * SHOPS * len(NULLS), sure
    assert all(stats.binomtest(found, SHOPS, 0.03, "greater").pvalue > 0.05 for found in sure.values()), sure
    assert sure["2 groups"] == sure["sparse"] == 0


def test_a_gain_is_told_nearly_as_often_as_by_a_t_test() -> None:
    """On normal differences, of a size that a t test tells in nine of ten tries."""
    queries = 40
    gain = 3.5 * 0.2 / np.sqrt(queries)
    drawn = [np.random.default_rng([shop, queries]).normal(gain, 0.2, queries) for shop in range(SHOPS)]
    by_t = sum(stats.ttest_1samp(one, 0).pvalue < 0.03 for one in drawn)
    assert sum(compare_pairs(one, seed=shop).is_gain for shop, one in enumerate(drawn)) >= 0.9 * by_t > 0.8 * SHOPS


def test_an_interval_of_skewed_differences_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for shop in range(SHOPS):
        found = bootstrap(skewed(np.random.default_rng([shop, 7]), 200, 0.1, 0.4, 0.02)[0])
        held += found.low <= 0 <= found.high
    assert held >= 0.92 * SHOPS


def test_what_is_too_few_is_called_that_and_how_many_more_it_takes() -> None:
    four = np.zeros(1000)
    four[:4] = 0.6
    assert compare_pairs(four).effect == "too few"
    assert compare_pairs(np.full(MIN_CHANGED - 1, 0.5)).effect == "too few"
    assert compare_pairs(np.full(MIN_CHANGED, 0.5)).effect == "gains"
    assert compare_pairs(np.full(MIN_CHANGED, -0.5)).effect == "loses"
    assert compare_pairs(np.full(400, 0.5), np.arange(400) % (MIN_GROUPS - 1)).effect == "too few"
    assert compare_pairs(np.full(400, 0.004)).effect == "no difference", "below half a point"
    rng = np.random.default_rng(0)
    few = rng.normal(size=30)
    few = 0.05 + 0.2 * (few - few.mean()) / few.std(ddof=1)
    found = compare_pairs(few)
    assert (found.effect, found.is_gain) == ("no difference", False)
    assert found.more == pytest.approx((3.0 * 0.2 / 0.05) ** 2 - 30, abs=1)
    more = np.concatenate([few, rng.normal(0.05, 0.2, found.more)])
    assert compare_pairs(more).effect == "gains"
    assert compare_pairs(np.tile([0.1, -0.1], 50)).more is None, "there is none to tell"


def test_of_several_that_were_tried_each_must_be_surer() -> None:
    gain = np.random.default_rng(3).normal(0.045, 0.2, 100)
    gain += 0.05 - gain.mean()
    once, often = compare_pairs(gain), compare_pairs(gain, tried=20)
    assert (once.effect, often.effect) == ("gains", "no difference")
    assert often.p == pytest.approx(20 * once.p)
    assert often.interval.low < once.interval.low < once.interval.high < often.interval.high


def test_bootstrap_has_the_width_of_theory_and_bounds_within_the_values() -> None:
    assert bootstrap([0.5] * 50) == Interval(0.5, 0.5, 0.5)
    found = bootstrap([1.0] + [0.0] * 9)
    assert 0.0 <= found.low <= 0.1 <= found.high <= 1.0
    hits = np.repeat([0.0, 1.0], 200)  # p = .5, n = 400: 2.17 * .5 / 20 = .054
    interval = bootstrap(hits)
    assert interval.mean == 0.5
    assert interval.high - 0.5 == pytest.approx(0.054, abs=0.006)
    assert 0.5 - interval.low == pytest.approx(0.054, abs=0.006)
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
