"""Cut-offs with a promise: the bounds are exact, and the promise breaks as rarely as it says."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin.extras.cutoff import FirstAnswers, binomial_tail, fewest, find_cutoff, interval


def judged(rng: np.random.Generator, many: int, wrong: float = 0.0) -> FirstAnswers:
    """Questions whose answers are right with a chance of their score, less a constant."""
    score = rng.random(many)
    return FirstAnswers(score, rng.random(many) < score - wrong)


def precision_at(cut: float, wrong: float = 0.0) -> float:
    """True share of right ones above a cut-off."""
    return (1.0 + cut) / 2.0 - wrong


def test_the_tail_of_a_binomial_is_the_sum_of_its_terms() -> None:
    from math import comb

    for of, share in ((7, 0.1), (200, 0.03), (3_000, 0.4)):
        for at_most in (0, 2, of // 2):
            # the terms of the largest would underflow as plain products
            terms = [comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(at_most + 1)] if of < 1_000 else []
            if terms:
                assert binomial_tail(at_most, of, share) == pytest.approx(sum(terms))
    assert binomial_tail(1_200, 3_000, 0.4) == pytest.approx(0.5, abs=0.02)
    assert (binomial_tail(5, 5, 0.3), binomial_tail(0, 5, 1.0), binomial_tail(2, 5, 0.0)) == (1.0, 0.0, 1.0)


def test_an_interval_holds_the_share_and_ends_at_0_and_1() -> None:
    share, low, high = interval(45, 50)
    assert (share, round(low, 4), round(high, 4)) == (0.9, 0.7819, 0.9667)  # as R's binom.test says
    assert interval(0, 10)[1] == 0.0
    assert interval(10, 10)[2] == 1.0
    assert interval(0, 0) == (0.0, 0.0, 1.0)


def test_the_promise_breaks_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [find_cutoff([judged(rng, 400)], [judged(rng, 800)], 0.8) for _ in range(100)]
    cuts = [one.cut for one in found if one is not None]
    assert len(cuts) > 90, "a promise can be given nearly always"
    broken = sum(precision_at(cut) < 0.8 for cut in cuts)
    assert broken / len(found) <= 0.1
    assert np.mean(cuts) < 0.7, "and passes much of what labels would allow, which is from .6 on"


def test_a_promise_for_two_kinds_holds_for_the_worse_one() -> None:
    rng = np.random.default_rng(1)
    one = [judged(rng, 2_000)], [judged(rng, 2_000)]
    two = [*one[0], judged(rng, 2_000, 0.1)], [*one[1], judged(rng, 2_000, 0.1)]
    easy, both = find_cutoff(*one, 0.8), find_cutoff(*two, 0.8)
    assert easy is not None
    assert both is not None
    assert precision_at(both.cut, 0.1) >= 0.8 > precision_at(easy.cut, 0.1)
    assert both.right[0] >= 0.8
    assert both.passing[1] < both.passing[0] < both.passing[2]
    assert both.passing == min(interval(one.pass_at(both.cut)[0], 2_000) for one in two[1]), "not of all together"


def test_without_enough_questions_that_pass_nothing_is_promised() -> None:
    rng = np.random.default_rng(2)
    right = FirstAnswers(rng.random(fewest(0.9) - 1), np.ones(fewest(0.9) - 1, np.bool_))
    assert find_cutoff([right], [right], 0.9) is None
    enough = FirstAnswers(rng.random(fewest(0.9)), np.ones(fewest(0.9), np.bool_))
    kept = find_cutoff([enough], [enough], 0.9)
    assert kept is not None
    assert kept.passing[0] == 1.0
    wrong = FirstAnswers(rng.random(500), np.zeros(500, np.bool_))
    assert find_cutoff([wrong], [wrong], 0.9) is None
