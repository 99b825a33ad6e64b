"""Why a line gained little: each rule by hand, and none where it gained."""

from __future__ import annotations

import pytest

from reco_plugin.evaluate.intervals import Interval
from reco_plugin.evaluate.reasons import why
from reco_plugin.types import Coverage, Role

NOTHING, LOSS, GAIN, UNSURE = (
    Interval(0, 0, 0),
    Interval(-0.2, -0.3, -0.1),
    Interval(0.2, 0.1, 0.3),
    Interval(0.2, 0, 0.4),
)


@pytest.mark.parametrize(
    ("role", "coverage", "rule", "says"),
    [
        ("query", Coverage(9, 0), "nothing found", "no pair was found for any of 9 images: the memory is empty"),
        ("query", Coverage(9, 9), "no better", "images moved by a cosine distance of 0.02, and no gate says"),
        ("query", Coverage(9, 9, 0.9, voice=0.05), "gate shut", "may weigh only 0.05 of 1"),
        ("candidate", Coverage(9, 9, 0.0, 2 / 3, 0.0), "gate shut", "may weigh only 0.00 of 1"),
        (
            "candidate",
            Coverage(1500, 1500, 0.6, 2 / 3, 1.0),
            "too few answered",
            "about 900 of 1,500 images (60 %) found",
        ),
        (
            "candidate",
            Coverage(10, 10, 0.7, 2 / 3, 1.0),
            "few answered",
            "the others moved as far; add pairs for those",
        ),
        (
            "query",
            Coverage(10, 10, 0.4, voice=0.3),
            "few answered",
            "about 4 of 10 images (40 %) found a pair",
        ),
        ("query", Coverage(10, 10, 0.7, voice=0.3), "no better", "the mean move is a cosine distance of 0.02, but"),
        ("candidate", Coverage(10, 10, 1.0, 2 / 3, 1.0), "no better", "add more pairs of each"),
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
        "voice": coverage.voice,
    }


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
    reason = why("text", "class prompts", "candidate", gain, Coverage(9, 9, 0.7, 2 / 3, 1.0), 0.5)
    assert (reason is None) == (starts is None)
    assert starts is None or str(reason).startswith(starts)


def test_nothing_is_said_of_a_refinement_that_tells_nothing() -> None:
    assert why("text", "class prompts", "candidate", NOTHING, None, 0.0) is None
