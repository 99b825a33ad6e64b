"""One list of two: what is fair in it, whatever the lists; and what its clicks say, with and without a preference."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_plugin.errors import DataError, InputError
from reco_plugin.interleave import TEAMS, ClickVerdict, Credit, Interleaved, credit, evaluate_clicks, interleave

LISTS = st.lists(st.integers(0, 12), max_size=12)
SEEDS = st.one_of(st.text(), st.binary(), st.integers())
ALPHA, BETA = [*"abcdefgh"], [*"aebxycdz"]


@given(LISTS, LISTS, st.integers(1, 30), SEEDS)
def test_of_any_lists(plain: list[int], refined: list[int], k: int, seed: Any) -> None:
    shown = interleave(plain, refined, k, seed=seed)
    assert len(shown) == len(shown.teams) == min(k, len({*plain, *refined}))
    assert len(set(shown.ids)) == len(shown.ids)
    assert set(shown.ids) <= {*plain, *refined}
    assert abs(shown.teams.count("plain") - shown.teams.count("refined")) <= 1
    for team, given_ids in zip(TEAMS, (plain, refined), strict=True):
        picks = [id_ for id_, of in zip(shown.ids, shown.teams, strict=True) if of == team]
        assert picks == sorted(picks, key=given_ids.index), "each list's order is kept"
    tops = {ids[0] for ids in (plain, refined) if ids}
    assert {*shown.ids[:1]} <= tops, "the first is somebody's first"
    assert interleave(plain, refined, k, seed=seed) == shown
    assert interleave(plain, refined, k + 5, seed=seed).ids[: len(shown)] == shown.ids, "a second page only adds"


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


def test_a_preferred_list_is_as_often_first() -> None:
    firsts = Counter(interleave(["p", "x"], ["r", "y"], 2, seed=seed).ids[0] for seed in range(1000))
    assert set(firsts) == {"p", "r"}
    assert abs(firsts["p"] - 500) < 80


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


def test_a_list_that_repeats_itself_counts_each_result_once() -> None:
    for seed in range(20):
        assert interleave(["a", "b", "b", "c", "a"], ["d", "d", "e"], seed=seed) == interleave(
            ["a", "b", "c"], ["d", "e"], seed=seed
        )


def test_an_id_is_one_however_a_client_types_it() -> None:
    shown = interleave([7, 8, 9], ["8", "7", "4"], seed=np.int64(3), k=np.int64(9))
    assert shown == interleave([7, 8, 9], [8, 7, "4"], seed=3, k=9)
    assert sorted(map(str, shown.ids)) == ["4", "7", "8", "9"]
    assert interleave([7], ["7"], seed=1) == Interleaved((7,), (None,))


def test_coins_are_of_the_unit_and_of_the_query_and_last_for_long_lists() -> None:
    begun = [interleave([f"p{n}"], [f"r{n}"], 2, seed="one user").teams[0] for n in range(200)]
    assert 60 < begun.count("plain") < 140
    long = interleave([f"p{n}" for n in range(900)], [f"r{n}" for n in range(900)], 1800, seed="u")
    assert Counter(long.teams) == {"plain": 900, "refined": 900}
    halves = [long.teams[:900:2].count("plain"), long.teams[900::2].count("plain")]
    assert all(abs(half - 225) < 75 for half in halves)


@pytest.mark.parametrize("hash_seed", ["0", "7"])
def test_another_process_shows_the_same(hash_seed: str) -> None:
    code = (
        "from reco_plugin.interleave import interleave\n"
        "lists = ['abcdefgh', *'abcdefgh'], [*'hgfedcba']\n"
        "print([interleave(*lists, 8, seed=seed).teams for seed in ('u', b'v', 7)])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )
    lists = (["abcdefgh", *"abcdefgh"], [*"hgfedcba"])
    assert ran.stdout.strip() == str([interleave(*lists, 8, seed=s).teams for s in ("u", b"v", 7)])


def test_the_coins_of_a_seed_are_fixed() -> None:
    shown = [interleave([*"abc"], [*"xyz"], 6, seed=seed).ids for seed in ("session-1", "session-2", 3)]
    assert ["".join(ids) for ids in shown] == ["axybcz", "xaybcz", "xaybcz"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"k": True}, "k must be"),
        ({"k": 2.0}, "k must be"),
        ({"plain": "abc"}, "plain must be a list of ids, best first, got 'abc'"),
        ({"refined": None}, "refined must be a list of ids"),
        ({"refined": {"a", "b"}}, "refined must be a list of ids, best first"),
        ({"plain": [{"id": 1}]}, "plain must be a list of ids"),
        ({"seed": None}, "seed must be"),
        ({"seed": 0.5}, "seed must be"),
    ],
)
def test_what_cannot_be_interleaved(wrong: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {"plain": ["a"], "refined": ["b"], "k": 3, "seed": "u"} | wrong
    with pytest.raises(InputError, match=message):
        interleave(given_.pop("plain"), given_.pop("refined"), **given_)


def test_clicks_are_credited_once_and_those_on_nothing_shown_are_counted_apart() -> None:
    shown = Interleaved((1, 2, 3, 4), (None, "plain", "refined", "refined"))
    assert credit(shown, []) == Credit(0, 0)
    assert credit(shown, [3, "3", "4", 2, 99, "old"]) == Credit(plain=1, refined=2, neither=0, unknown=2)
    assert credit(shown, iter(["1"])) == Credit(0, 0, neither=1)
    assert [credit(shown, ids).preferred for ids in ([2], [3], [2, 3], [1])] == ["plain", "refined", None, None]
    with pytest.raises(InputError, match="put it in a list"):
        credit(shown, "12")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
            table.writeheader()
            table.writerows(rows)
    return path


def searched(users: int, liking: float, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of users with three searches each, who look from the top and click what they like.

    Results of the refined list are liked with another chance than those of the plain one, by ``liking``.
    """
    rng, rows = np.random.default_rng(seed), []
    for user in range(users):
        for search in range(3):
            plain = [f"p{user}.{search}.{n}" for n in range(5)]
            refined = [plain[0], *(f"r{user}.{search}.{n}" for n in range(4))]
            shown = interleave(plain, refined, 6, seed=f"user {user}")
            chances = [0.1 + liking * str(id_).startswith("r") for id_ in shown.ids]
            looks = np.cumprod(rng.random(len(shown)) < 0.8)
            clicked = [
                id_ for id_, chance, look in zip(shown.ids, chances, looks, strict=True) if look * chance > rng.random()
            ]
            rows += shown.rows(f"{user}.{search}", f"user {user}", clicked)
    return rows


@pytest.mark.slow
def test_nobody_is_preferred_by_clicks_at_random(tmp_path: Path) -> None:
    found = [evaluate_clicks(write(tmp_path / "clicks.csv", searched(150, 0.0, seed))) for seed in range(20)]
    assert sum(one.preferred is not None for one in found) <= 4  # at 5 %, one of twenty
    assert abs(np.mean([one.refined for one in found]) - 0.5) < 0.03


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize(("liking", "team"), [(0.3, "refined"), (-0.095, "plain")])
def test_what_people_like_is_preferred(tmp_path: Path, suffix: str, liking: float, team: str) -> None:
    rows = searched(400, liking)
    if suffix == ".tsv":
        path = write(tmp_path / "a.csv", rows)
        path = path.rename(tmp_path / "clicks.tsv")
        path.write_text(path.read_text().replace(",", "\t"))
    else:
        path = write(tmp_path / f"clicks{suffix}", rows)
    verdict = evaluate_clicks(path)
    assert (verdict.design, verdict.preferred, verdict.clicks_needed) == ("teams", team, 0)
    assert verdict.low <= verdict.refined - verdict.plain <= verdict.high
    assert verdict.low > 0 if team == "refined" else verdict.high < 0
    assert verdict.impressions == 1200
    assert str(verdict).startswith(f"{team} is preferred: refined ")
    assert verdict.notes == ()


def test_the_log_may_have_rows_of_clicks_that_follow(tmp_path: Path) -> None:
    rows = searched(60, 0.3)
    whole = evaluate_clicks(write(tmp_path / "whole.jsonl", rows))
    begun = [row | {"clicked": 0} for row in rows]
    later = [{key: row[key] for key in ("impression", "id", "clicked")} for row in rows if row["clicked"]]
    assert later
    assert evaluate_clicks(write(tmp_path / "parts.jsonl", begun + later + later)) == whole
    only = evaluate_clicks(write(tmp_path / "only.csv", [{**row, "clicked": ""} for row in rows if row["clicked"]]))
    assert (only.clicks, only.refined, only.p) == (whole.clicks, whole.refined, whole.p)
    assert only.impressions < whole.impressions


def test_a_unit_has_one_vote_however_much_it_clicks(tmp_path: Path) -> None:
    rows = [{"impression": f"i{n}", "unit": "robot", "team": "refined"} for n in range(500)]
    rows += [{"impression": f"j{n}", "unit": f"u{n}", "team": "plain"} for n in range(9)]
    verdict = evaluate_clicks(write(tmp_path / "clicks.jsonl", rows))
    assert (verdict.units, verdict.preferred) == (10, "plain")
    without = [{key: row[key] for key in ("impression", "team")} for row in rows]
    found = evaluate_clicks(write(tmp_path / "without.jsonl", without))
    assert (found.units, found.preferred) == (509, "refined")
    assert found.notes == ("no unit: each impression has a vote, though users repeat",)


@pytest.mark.parametrize(
    ("refined", "plain", "p"),
    [(5, 5, 1.0), (9, 1, 0.021484375), (60, 40, 0.056887933640980784), (0, 0, 1.0), (600, 500, 0.0028195)],
)
def test_the_sign_test_is_the_binomial(tmp_path: Path, refined: int, plain: int, p: float) -> None:
    teams = ["refined"] * refined + ["plain"] * plain + [""]
    verdict = evaluate_clicks(
        write(tmp_path / "c.csv", [{"impression": n, "team": team} for n, team in enumerate(teams)])
        if refined
        else write(tmp_path / "c.jsonl", [{"impression": 1, "team": "plain", "clicked": 0}])
    )
    assert verdict.p == pytest.approx(p, rel=1e-3)
    exact = sum(math.comb(refined + plain, n) for n in range(min(refined, plain) + 1)) * 2 / 2 ** (refined + plain)
    assert verdict.p == pytest.approx(min(1.0, exact), rel=1e-9)


@pytest.mark.slow
def test_many_votes_are_tested_as_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reco_plugin.interleave._EXACT", 10_000)  # reading a row of each vote takes longest
    rows = [{"impression": n, "team": "plain" if n % 2 or n > 9_980 else "refined"} for n in range(10_100)]
    verdict = evaluate_clicks(write(tmp_path / "c.csv", rows))
    z = (abs(10_100 * (verdict.plain - verdict.refined)) - 1) / math.sqrt(10_100)
    assert verdict.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-6)


@pytest.mark.slow
def test_as_many_clicks_as_are_said_to_be_needed_tell_it_in_four_of_five_tries(tmp_path: Path) -> None:
    def votes(refined: int, plain: int) -> ClickVerdict:
        teams = ["refined"] * refined + ["plain"] * plain
        return evaluate_clicks(write(tmp_path / "c.csv", [{"impression": n, "team": t} for n, t in enumerate(teams)]))

    first = votes(33, 27)
    assert first.preferred is None
    assert first.clicks_needed is not None and 600 < first.clicks_needed < 900
    assert "nothing can be said yet" in str(first)
    assert f"about {first.clicks_needed:,} more clicks" in str(first)
    wins = np.random.default_rng(0).binomial(60 + first.clicks_needed, 0.55, 120)
    told = [votes(won, 60 + first.clicks_needed - won).preferred == "refined" for won in wins.tolist()]
    assert 0.7 < np.mean(told) < 0.9
    assert votes(5, 5).clicks_needed is None
    assert "nothing can be said: " in str(votes(5, 5))


def in_arms(units: int, plain: float, refined: float, seed: int = 0) -> list[dict[str, Any]]:
    """Units of both arms, with one to nine searches each and a habit of their own to click."""
    rng, rows = np.random.default_rng(seed), []
    for unit in range(units):
        arm = ("plain", "refined")[unit % 2]
        habit = np.clip({"plain": plain, "refined": refined}[arm] + rng.normal(0, 0.15), 0, 1)
        for search in range(rng.integers(1, 10)):
            row = {"impression": f"{unit}.{search}", "unit": f"u{unit}", "arm": arm}
            rows.append(row | {"clicked": int(rng.random() < habit), "id": "x"})
    return rows


def test_arms_are_compared_by_the_share_of_lists_that_were_clicked(tmp_path: Path) -> None:
    verdict = evaluate_clicks(write(tmp_path / "arms.csv", in_arms(1500, 0.3, 0.4)))
    assert (verdict.design, verdict.preferred, verdict.clicks_needed) == ("arms", "refined", 0)
    assert abs(verdict.plain - 0.3) < 0.04 and abs(verdict.refined - 0.4) < 0.04
    assert verdict.low < 0.1 < verdict.high and verdict.low > 0
    small = evaluate_clicks(write(tmp_path / "small.csv", in_arms(60, 0.3, 0.34)))
    assert small.preferred is None
    assert small.clicks_needed is None or small.clicks_needed > 0


@pytest.mark.slow
def test_the_interval_of_arms_covers_the_truth_though_units_repeat(tmp_path: Path) -> None:
    found = [evaluate_clicks(write(tmp_path / "arms.csv", in_arms(120, 0.3, 0.3, seed))) for seed in range(60)]
    covered = sum(one.low <= 0 <= one.high for one in found)
    assert covered >= 52


def test_what_is_to_be_known_of_arms_is_noted(tmp_path: Path) -> None:
    rows = in_arms(100, 0.3, 0.3)
    moved = [row | {"impression": "again " + row["impression"], "arm": "refined"} for row in rows[:5]]
    notes = evaluate_clicks(write(tmp_path / "both.csv", rows + moved)).notes
    assert notes == ("units in both arms: 1; compare only days of one refined_share",)
    few = evaluate_clicks(write(tmp_path / "few.csv", [row for row in rows if row["arm"] == "plain"]))
    assert few.notes == ("units in the refined arm: 0, too few to tell their spread (10)",)
    assert (few.preferred, few.clicks_needed, few.low, few.high) == (None, None, -1.0, 1.0)
    unnamed = [{key: row[key] for key in ("impression", "arm", "clicked")} for row in rows]
    assert "no unit" in evaluate_clicks(write(tmp_path / "unnamed.csv", unnamed)).notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"impression": "1", "clicked": 1}], r"has no team and no arm"),
        (
            [{"team": "plain", "clicked": 1}],
            r"line 2, column 'impression' is missing; this row has \['clicked', 'team'\]",
        ),
        ([{"impression": "1", "team": "blue"}], r"line 2, column 'team': must be plain, refined or empty, got 'blue'"),
        ([{"impression": "1", "team": "plain", "clicked": "maybe"}], r"column 'clicked': must be 0 or 1, got 'maybe'"),
        ([{"impression": "1", "team": "plain", "arm": "plain"}], r"has both team and arm"),
        ([{"impression": "1", "arm": "plain"}], r"has arms and no column clicked"),
        (
            [{"impression": "1", "id": "a", "team": "plain"}, {"impression": "1", "id": "a", "team": "refined"}],
            r"line 3, column 'team' is 'refined', and was 'plain' before, in the same impression",
        ),
        (
            [{"impression": "1", "arm": "plain", "clicked": 0}, {"impression": "1", "arm": "refined", "clicked": 0}],
            r"column 'arm' is 'refined', and was 'plain'",
        ),
        (
            [{"impression": "1", "team": "plain", "unit": "a"}, {"impression": "1", "team": "plain", "unit": "b"}],
            r"column 'unit' is 'b', and was 'a'",
        ),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused_by_line(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_clicks(write(tmp_path / "clicks.csv", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "cannot be read"),
        ("clicks.txt", b"impression,team\n", "is none of .jsonl, .ndjson, .csv, .tsv"),
        ("clicks.csv", b"", "is empty"),
        ("clicks.csv", b"impression,team\n1,plain\n2,\xff\n", "UTF-8"),
        ("clicks.jsonl", b'{"impression": 1, "team": "plain"}\n{"impression": 2, "tea', "line 2"),
        ("clicks.csv", b"impression,team\n", "has no team and no arm"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        evaluate_clicks(tmp_path / name)


def test_the_page_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "switching.md").read_text(encoding="utf-8")
    shows, judges = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(shows, names)
    shown = names["shown"]
    assert shown in [
        Interleaved(("fox-1", "fox-2", "fox-3", "cat-1"), (None, "plain", "refined", None)),
        Interleaved(("fox-1", "fox-3", "fox-2", "cat-1"), (None, "refined", "plain", None)),
    ]
    assert names["credit"](shown, ["fox-3"]) == Credit(plain=0, refined=1)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clicks.csv", names["rows"] + searched(150, 0.15))
    exec(judges, names)
    (printed,) = re.findall(r"```\n(refined is preferred.*)\n```", page)
    assert str(names["verdict"]) == printed
