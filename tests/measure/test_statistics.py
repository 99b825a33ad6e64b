"""Simulations with fixed seeds: what gains nothing is hardly ever called sure, what gains nearly as often as by t."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from reco_plugin.errors import InputError
from reco_plugin.measure.statistics import (
    CHANGED,
    GROUPS,
    Interval,
    bootstrap,
    compare_pairs,
    level,
)

Drawn = tuple[np.ndarray, np.ndarray | None]
Rng = np.random.Generator
SHOPS = 100  # of each null


def skewed(rng: Rng, queries: int, drops: float, fall: float, noise: float = 0.0) -> Drawn:
    """Many small rises and a few large drops, which together are nothing."""
    fell = rng.random(queries) < drops
    return np.where(fell, -fall, fall * drops / (1 - drops)) + noise * rng.normal(size=queries), None


def sparse(rng: Rng, queries: int, changed: float) -> Drawn:
    return rng.choice([-1, 0, 1], queries, p=[changed / 2, 1 - changed, changed / 2]) * rng.uniform(
        0.1, 0.6, queries
    ), None


def clustered(rng: Rng, groups: int, each: int, even: bool = True) -> Drawn:
    """Queries of a group share most of their change, which the groups together do not have."""
    share = np.ones(groups) if even else 1 / np.arange(1, groups + 1)
    group = rng.choice(groups, groups * each, p=share / share.sum())
    return rng.normal(0, 0.2, groups)[group] + rng.normal(0, 0.1, len(group)), group


NULLS: dict[str, Callable[[Rng], Drawn]] = {
    "normal": lambda rng: (rng.normal(0, 0.2, 100), None),
    "skewed, few queries": lambda rng: skewed(rng, 100, 0.05, 0.4),
    "skewed, rare drops": lambda rng: skewed(rng, 200, 0.02, 0.5),
    "skewed, many queries": lambda rng: skewed(rng, 400, 0.05, 0.4),
    "skewed and noisy": lambda rng: skewed(rng, 100, 0.1, 0.4, 0.02),
    "sparse, 5 to 10 changed": lambda rng: sparse(rng, 1000, 0.007),
    "sparse, 30 changed": lambda rng: sparse(rng, 1000, 0.03),
    "tied": lambda rng: (rng.choice([-0.37, 0, 0.37], 200, p=[0.1, 0.8, 0.1]), None),
    "2 groups": lambda rng: clustered(rng, 2, 100),
    "10 groups": lambda rng: clustered(rng, 10, 20),
    "50 groups": lambda rng: clustered(rng, 50, 10),
    "30 uneven groups": lambda rng: clustered(rng, 30, 10, even=False),
}


def test_what_gains_nothing_is_hardly_ever_called_sure() -> None:
    """Of all nulls together at most 2.5 %, of each what chance allows for that."""
    sure = dict.fromkeys(NULLS, 0)
    for number, (name, make) in enumerate(NULLS.items()):
        for shop in range(SHOPS):
            sure[name] += compare_pairs(*make(np.random.default_rng([1, shop, number])), samples=200, seed=shop).sure
    assert sum(sure.values()) <= 0.025 * SHOPS * len(NULLS), sure
    assert all(stats.binomtest(found, SHOPS, 0.025, "greater").pvalue > 0.05 for found in sure.values()), sure
    assert sure["2 groups"] == sure["sparse, 5 to 10 changed"] == 0


def test_a_gain_is_told_nearly_as_often_as_by_a_t_test() -> None:
    """On normal differences, of a size that a t test tells in nine of ten tries."""
    queries = 40
    gain = 3.24 * 0.2 / np.sqrt(queries)
    drawn = [np.random.default_rng([shop, queries]).normal(gain, 0.2, queries) for shop in range(SHOPS)]
    by_t = sum(stats.ttest_1samp(one, 0).pvalue < 0.05 for one in drawn)
    assert (
        sum(compare_pairs(one, samples=200, seed=shop).sure for shop, one in enumerate(drawn))
        >= 0.9 * by_t
        > 0.8 * SHOPS
    )


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
    assert compare_pairs(np.full(CHANGED - 1, 0.5)).effect == "too few"
    assert compare_pairs(np.full(CHANGED, 0.5)).effect == "gains"
    assert compare_pairs(np.full(CHANGED, -0.5)).effect == "loses"
    assert compare_pairs(np.full(400, 0.5), np.arange(400) % (GROUPS - 1)).effect == "too few"
    assert compare_pairs(np.full(400, 0.004)).effect == "no difference", "below half a point"
    rng = np.random.default_rng(0)
    few = rng.normal(size=30)
    few = 0.05 + 0.2 * (few - few.mean()) / few.std(ddof=1)
    found = compare_pairs(few)
    assert (found.effect, found.sure) == ("no difference", False)
    assert found.more == pytest.approx((2.8 * 0.2 / 0.05) ** 2 - 30, abs=1)
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


def test_a_query_counts_as_often_as_it_was_asked() -> None:
    gain = np.where(np.arange(400) < 100, -0.2, 0.2)
    often = np.where(np.arange(400) < 100, 100.0, 1.0)
    assert compare_pairs(gain).effect == "gains"
    found = compare_pairs(gain, weights=often)
    assert found.effect == "loses"
    assert found.interval.mean == pytest.approx((-0.2 * 10_000 + 0.2 * 300) / 10_300)


def test_the_exchange_of_very_many_is_normal() -> None:
    gain = np.random.default_rng(1).normal(0.01, 0.2, 5000)
    assert compare_pairs(gain).p == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, rel=0.1)


def test_bootstrap_has_the_width_of_theory_and_bounds_within_the_values() -> None:
    assert bootstrap([0.5] * 50) == Interval(0.5, 0.5, 0.5)
    found = bootstrap([1.0] + [0.0] * 9)
    assert 0.0 <= found.low <= 0.1 <= found.high <= 1.0
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


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_the_interval_of_a_level_holds_the_truth_near_its_ends_too(share: float) -> None:
    held = 0
    for shop in range(SHOPS):
        hits = (np.random.default_rng([shop, 9]).random(60) < share).astype(float)
        held += level(hits).low <= share <= level(hits).high
    assert held >= 0.92 * SHOPS
    assert level([1.0] * 59 + [0.0]).low > 0.9, "no bound of 0 because one is wrong"


def test_a_level_of_groups_that_agree_is_wider() -> None:
    values, groups = np.repeat(np.tile([0.0, 1.0], 20), 10), np.repeat(np.arange(40), 10)
    single, grouped = level(values), level(values, groups)
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(np.sqrt(10), rel=0.15)
