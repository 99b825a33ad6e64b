"""Why a line gained little: each rule by hand, and none where it gained."""

from __future__ import annotations

import pytest

from reco_plugin.evaluate.reasons import Tried, why
from reco_plugin.measure.statistics import Interval
from reco_plugin.types import Coverage, Role

NOTHING, LOSS, GAIN, UNSURE = (
    Interval(0, 0, 0),
    Interval(-0.2, -0.3, -0.1),
    Interval(0.2, 0.1, 0.3),
    Interval(0.2, 0, 0.4),
)


SEVEN = Coverage(12, 12, 7 / 12, 0.5, 0.2, (True,) * 7 + (False,) * 5)
HELD = Coverage(12, 12, 0.25, 0.5, 0.2, (True,) * 3 + (False,) * 9)


@pytest.mark.parametrize(
    ("role", "coverage", "rule", "says"),
    [
        ("query", Coverage(9, 0), "nothing found", "no pair was found for any of 9 images: the memory is empty"),
        ("query", Coverage(9, 9), "no better", "images moved by a cosine distance of 0.02, and no gate says"),
        ("query", Coverage(9, 9, plain="it is not calibrated"), "left plain", "images stay plain, since it is not cal"),
        (
            "candidate",
            Coverage(9, 9, plain="its captions fit badly"),
            "left plain",
            "images stay plain, since its captions fit badly",
        ),
        (
            "candidate",
            HELD,
            "too few covered",
            "3 of 12 images have their own caption in the memory, and below 50 % no",
        ),
        ("candidate", SEVEN, "some covered", "7 of 12 images have their own caption in the memory, and as vectors"),
        (
            "candidate",
            SEVEN,
            "some covered",
            "exact scores refine those alone, and the others stay plain; add pairs for",
        ),
        ("query", Coverage(10, 10, strength=0.3), "no better", "0.02, and the neighbours separate them no better"),
        ("candidate", Coverage(2, 2, 1.0, 0.5, 1.0, (True, True)), "no better", "add more pairs of each"),
    ],
)
def test_each_rule_says_what_was_found_and_what_to_do(role: Role, coverage: Coverage, rule: str, says: str) -> None:
    reason = why("image", "images", role, NOTHING, coverage, 0.02)
    assert reason is not None
    assert (reason.rule, reason.refined, reason.coverage) == (rule, "image", coverage)
    assert says in reason.says
    assert "\n" not in str(reason)
    assert reason.to_dict() == {
        "refined": "image",
        "rule": rule,
        "says": reason.says,
        "asked": coverage.asked,
        "found": coverage.found,
        "answered": coverage.answered,
        "needed": coverage.needed,
        "strength": coverage.strength,
        "covered": sum(coverage.covered),
        "plain": coverage.plain,
    }


def test_the_prompts_that_the_memory_does_not_know_are_named() -> None:
    names = [f"thing {row}" for row in range(12)]
    reason = why("text", "class prompts", "candidate", NOTHING, SEVEN, 0.1, names)
    assert reason is not None
    assert "add pairs for 'thing 7', 'thing 8', 'thing 9', 2 more, or word prompts" in reason.says
    long = why("text", "class prompts", "candidate", NOTHING, SEVEN, 0.1, ["word " * 1000] * 12)
    assert long is not None
    assert len(long.says) < 500
    assert "1 of 2 class prompts has its own" in str(
        why("text", "class prompts", "candidate", LOSS, Coverage(2, 2, 0.5, 0.5, 0.1, (True, False)), 0.1, ["a", "b"])
    )


@pytest.mark.parametrize(
    ("gain", "starts"),
    [
        (NOTHING, "why text gains little: "),
        (UNSURE, "why text gains little: "),
        (Interval(0.005, 0.004, 0.006), "why text gains little: "),
        (LOSS, "why text loses: "),
        (GAIN, None),
    ],
)
def test_only_a_line_that_gained_little_has_a_reason(gain: Interval, starts: str | None) -> None:
    reason = why("text", "class prompts", "candidate", gain, Coverage(9, 9, 0.7, 0.5, 1.0), 0.5)
    assert (reason is None) == (starts is None)
    assert starts is None or str(reason).startswith(starts)


TRIED = Tried({"cautious": Interval(-0.05, -0.1, -0.01), "bold": Interval(-0.4, -0.5, -0.3)}, lost=["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("gain", "tried", "says", "never"),
    [
        (NOTHING, None, "add more pairs of each", "--caution"),
        (LOSS, None, "things than those asked for; leave images plain", "--caution"),
        (
            LOSS,
            TRIED,
            "leave images plain; --caution cautious changes them by -5.0 [-10.0, -1.0]; or add pairs",
            "bold",
        ),
        (LOSS, TRIED, "or add pairs of what was lost: 'a', 'b', 'c', 1 more", "bold"),
        (NOTHING, TRIED, "add more pairs of each", "--caution"),
        (NOTHING, Tried({"bold": GAIN}), "with --caution bold they gain +20.0 [+10.0, +30.0]", "plain"),
        (NOTHING, Tried({"bold": UNSURE}), "add more pairs of each", "--caution"),
        (LOSS, Tried({"cautious": NOTHING}, {"exact": GAIN}), "by +0.0 [+0.0, +0.0]; 'exact' gains +20.0", "add"),
    ],
)
def test_advice_names_what_was_measured_to_gain_and_the_way_out_of_a_loss(
    gain: Interval, tried: Tried | None, says: str, never: str
) -> None:
    reason = why("image", "images", "query", gain, Coverage(10, 10, strength=0.3), 0.02, tried=tried)
    assert reason is not None
    assert says in reason.says and never not in reason.says


def test_nothing_is_said_of_a_refinement_that_tells_nothing() -> None:
    assert why("text", "class prompts", "candidate", NOTHING, None, 0.0) is None
