"""reco memory feedback: given, listed and taken back, over copies and versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
Ask = Callable[..., Any]


def judge(ask: Ask, pair: str, text: str, place: object = "memory") -> Any:
    return ask("memory", "feedback", "--not", pair, "--text", text, "--memory", place)


def pairs(ask: Ask, place: object = "memory") -> list[str]:
    return [one["pair"] for one in ask("memory", "feedback", "--memory", place)]


def test_it_is_given_listed_and_taken_back(
    memory: Path, catalogue: Path, run: Run, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = catalogue.with_name("large-blue-circle.png")
    one = ask("memory", "feedback", "--not", "small-red-circle", "--image", picture, "--by", "ann")
    assert (one["modality"], one["pair"], one["right"], one["by"]) == ("image", "small-red-circle", False, "ann")
    two = ask("memory", "feedback", "--right", "small-red-circle", "--image", picture)
    assert [(each["id"], each["right"]) for each in ask("memory", "feedback")] == [(two["id"], True)]  # the newest
    assert ask("memory", "info")["opinions"] == 1
    monkeypatch.delenv("RECO_MODEL")  # the rest needs no model
    assert ask("memory", "feedback", "--withdraw", two["id"]) == {"withdrawn": 1}
    assert "1 id is of no opinion" in run("memory", "feedback", "--withdraw", two["id"]).stderr
    assert run("memory", "feedback").stdout == "there is no feedback\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--not", "small-red-circle"), "give either --text or --image"),
        (("--not", "a", "--right", "b", "--text", "red"), "give one of them"),
    ],
)
def test_a_judgment_names_query_and_pair(memory: Path, fail: Callable[..., str], words: Any, message: str) -> None:
    assert message in fail("memory", "feedback", *words)


def test_a_name_cannot_forge_a_line(memory: Path, run: Run) -> None:
    name = "ann\n2026-01-01  ffff  right: the pair x\x1b[2J"
    told = run("memory", "feedback", "--not", "small-red-circle", "--text", "a blue circle", "--by", name).stdout
    assert r"by ann\n2026-01-01  ffff  right: the pair x\u001b[2J" in told
    assert run("memory", "feedback").stdout.count("\n") == 1


def test_a_version_that_is_swapped_in_keeps_it(work: Path, catalogue: Path, ask: Ask) -> None:
    ask("memory", "build", catalogue, "--swap")
    judge(ask, "small-red-circle", "a blue circle")
    ask("memory", "build", catalogue, "--swap")
    assert pairs(ask) == ["small-red-circle"]
    judge(ask, "large-red-circle", "a blue circle")
    ask("memory", "versions", "--previous")
    assert pairs(ask) == ["small-red-circle", "large-red-circle"]


@pytest.mark.parametrize("way", ["copy", "pairs.parquet"])
def test_a_copy_brings_it_and_keeps_what_is_there(memory: Path, ask: Ask, way: str) -> None:
    judge(ask, "small-red-circle", "a blue circle")
    judge(ask, "small-blue-circle", "a red circle")
    assert ask("memory", "copy", "memory", way)["opinions"] == 2
    target = "back" if way.endswith("parquet") else way
    if target == "back":
        assert ask("memory", "copy", way, target)["opinions"] == 2
    judge(ask, "small-green-circle", "a red square", target)
    assert ask("memory", "copy", "memory", target, "--yes")["opinions"] == 3
    assert sorted(pairs(ask, target)) == ["small-blue-circle", "small-green-circle", "small-red-circle"]
