"""One list of two: what is fair in it, whatever the lists; and what its clicks say, with and without a preference."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import InputError
from reco_plugin.measure.interleave import TEAMS, Interleaved, Votes, credit, interleave

LISTS = st.lists(st.integers(0, 12), max_size=12)
SEEDS = st.one_of(st.text(), st.binary(), st.integers())
ALPHA, BETA = [*"abcdefgh"], [*"aebxycdz"]


@given(LISTS, LISTS, st.integers(1, 30), SEEDS)
def test_of_any_lists(plain: list[int], refined: list[int], k: int, seed: Any) -> None:
    shown = interleave(plain, refined, k, seed=seed)
    assert len(shown.ids) == len(shown.teams) == min(k, len({*plain, *refined}))
    assert len(set(shown.ids)) == len(shown.ids)
    assert set(shown.ids) <= {*plain, *refined}
    assert abs(shown.teams.count("plain") - shown.teams.count("refined")) <= 1
    for team, given_ids in zip(TEAMS, (plain, refined), strict=True):
        picks = [id_ for id_, of in zip(shown.ids, shown.teams, strict=True) if of == team]
        assert picks == sorted(picks, key=given_ids.index), "each list's order is kept"
    tops = {ids[0] for ids in (plain, refined) if ids}
    assert {*shown.ids[:1]} <= tops, "the first is somebody's first"
    assert interleave(plain, refined, k, seed=seed) == shown
    assert interleave(plain, refined, k + 5, seed=seed).ids[: len(shown.ids)] == shown.ids, "a second page only adds"


@settings(max_examples=25, deadline=None)
@given(LISTS, LISTS, st.integers(1, 14))
def test_each_team_has_as_many_picks_and_as_good_places(plain: list[int], refined: list[int], k: int) -> None:
    """Over all coins: a list and its mirror image are as likely as one another, so half of 400 seeds show either."""
    drawn = 400
    places: Counter[tuple[int, str | None]] = Counter()
    for seed in range(drawn):
        places.update(enumerate(interleave(plain, refined, k, seed=seed).teams))
    for place in {place for place, team in places if team}:
        ours, theirs = (places[place, team] for team in TEAMS)
        assert abs(ours - theirs) <= 5 * math.sqrt(ours + theirs), f"place {place}: {ours} and {theirs}"
        assert ours + theirs == drawn or places[place, None] > 0


def test_what_both_lists_begin_with_has_no_team_and_what_one_has_alone_neither() -> None:
    same = interleave(ALPHA, ALPHA, 5, seed="u")
    assert (same.ids, same.teams) == (tuple("abcde"), (None,) * 5)
    for seed in range(50):
        shown = interleave(ALPHA, BETA, 20, seed=seed)
        assert (shown.ids[0], shown.teams[0]) == ("a", None)
        assert set(shown.ids[1:3]) <= {"b", "e"}, "the best of each, whichever began"
        short = interleave(["p"], ["r", "s", "t"], 9, seed=seed)
        assert set(short.ids[:2]) == {"p", "r"}
        assert (short.ids[2:], short.teams[2:]) == (("s", "t"), (None, None))
        tail = interleave(["x", "y"], ["z", "x"], 9, seed=seed)
        assert tail.teams.count("plain") == tail.teams.count("refined")
    assert interleave([], [], seed=1) == Interleaved((), ())
    assert interleave([], ["r"], seed=1) == Interleaved(("r",), (None,))


def test_a_text_in_the_place_of_a_list_is_refused() -> None:
    with pytest.raises(InputError):
        interleave("abc", ["b"], 3, seed="u")


def test_clicks_are_credited_once() -> None:
    shown = Interleaved((1, 2, 3, 4), (None, "plain", "refined", "refined"))
    assert credit(shown, []) == Votes(0, 0)
    assert credit(shown, [3, "3", "4", 2, 99, "old"]) == Votes(plain=1, refined=2)
    assert credit(shown, iter(["1"])) == Votes(0, 0)


def searched(users: int, liking: float, seed: int) -> Votes:
    """Users with three searches each, who look from the top and click what they like: refined more, by ``liking``."""
    rng, leads = np.random.default_rng(seed), []
    for user in range(users):
        lead = 0
        for search in range(3):
            plain = [f"p{user}.{search}.{n}" for n in range(5)]
            refined = [plain[0], *(f"r{user}.{search}.{n}" for n in range(4))]
            shown = interleave(plain, refined, 6, seed=f"user {user}")
            looks = np.cumprod(rng.random(len(shown.ids)) < 0.8)
            likes = rng.random(len(shown.ids)) < [0.1 + liking * id_.startswith("r") for id_ in shown.ids]
            votes = credit(shown, [id_ for id_, hit in zip(shown.ids, likes & (looks > 0), strict=True) if hit])
            lead += votes.refined - votes.plain
        leads.append(lead)
    return Votes(sum(lead < 0 for lead in leads), sum(lead > 0 for lead in leads))


def test_what_people_like_is_preferred_and_clicks_at_random_prefer_nobody() -> None:
    assert searched(200, 0.3, 0).preferred == "refined"
    assert searched(400, -0.095, 0).preferred == "plain"
    assert sum(searched(60, 0.0, seed).preferred is not None for seed in range(20)) <= 3  # at 5 %, one of twenty


def test_the_page_shows_what_it_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    (shows,) = re.findall(r"```python\n(from reco_plugin.measure.interleave.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(shows, names)
    assert names["shown"] in [
        Interleaved(("fox-1", "fox-2", "fox-3", "cat-1"), (None, "plain", "refined", None)),
        Interleaved(("fox-1", "fox-3", "fox-2", "cat-1"), (None, "refined", "plain", None)),
    ]
    assert names["credit"](names["shown"], ["fox-3"]) == Votes(plain=0, refined=1)
