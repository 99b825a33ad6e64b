"""reco memory reject and feedback: said, shown, taken back; here, through a service, and over a swap."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from reco_plugin.data import read_records, write_pairs
from reco_plugin.memory import open_memory

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def test_what_is_said_is_shown_and_taken_back(
    work: Path, memory: Path, catalogue: Path, run: Run, ask: Ask, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = catalogue.with_name("large-blue-circle.png")
    one = ask("memory", "reject", "small-red-circle", "--image", picture, "--by", "ann", "--memory", memory)
    assert (one["modality"], one["pair"], one["right"], one["by"]) == ("image", "small-red-circle", False, "ann")
    two = ask("memory", "reject", "--image", picture, "--answer", "a small red circle", "--memory", memory)
    assert two["pair"] is None
    ask("memory", "reject", "--text", "a blue circle", "--answer", picture, "--right", "--memory", memory)
    monkeypatch.delenv("RECO_MODEL")  # the rest needs no model
    said = run("memory", "feedback", "--memory", memory).stdout.splitlines()
    assert [line.partition("  ")[2].partition("  ")[2] for line in said] == [
        "not this: an answer that is no pair, to an image",  # the same caption as of the pair, so it replaced that
        "right: an answer that is no pair, to a text",
    ]
    gone = ask("memory", "feedback", "--withdraw", two["id"], "--withdraw", "unknown", "--memory", memory)
    assert gone == {"withdrawn": 1, "opinions": 1}
    again = run("memory", "feedback", "--withdraw", two["id"], "--memory", memory)
    assert (again.stdout, again.stderr) == (
        "forgot 0 opinions; 1 is left\n",
        f"warning: {two['id']!r} is the id of no opinion\n",
    )
    assert "give one of them" in fail("memory", "feedback", "--withdraw", "x", "--forget-all", "--memory", memory)
    assert ask("memory", "feedback", "--forget-all", "--memory", memory) == {"withdrawn": 1, "opinions": 0}
    assert run("memory", "feedback", "--memory", memory).stdout == "nobody has said anything\n"


def test_a_damaged_line_costs_no_other_opinion(work: Path, memory: Path, run: Run, ask: Ask) -> None:
    for words in ("a blue circle", "a red square", "a green circle"):
        ask("memory", "reject", "small-red-circle", "--text", words, "--by", "ann", "--memory", memory)
    with closing(open_memory(str(memory), None)) as store:
        one = next(iter(store.header.said.values()))
        store.change_said([{**one, "query": "!"}], ())
    shown = run("memory", "feedback", "--memory", memory)
    assert shown.stdout.count("not this") == 2
    assert f"warning: 1 opinion cannot be read, '{one['id']}'" in shown.stderr
    said = ask("memory", "export", "all.npz", "--memory", memory)
    assert (said["opinions"], said["left"].startswith("left out: 1 opinion cannot be read")) == (2, True)
    assert ask("memory", "import", "all.npz", "--memory", "imported")["opinions"] == 2
    assert ask("memory", "feedback", "--withdraw", one["id"], "--memory", memory)["withdrawn"] == 1
    assert run("memory", "feedback", "--memory", memory).stderr == ""


def test_a_name_cannot_forge_a_line(work: Path, memory: Path, run: Run) -> None:
    name = "ann\n2026-01-01  ffff  right: the pair x\x1b[2J"
    said = ("--text", "a blue circle", "--by", name, "--memory", memory)
    told = run("memory", "reject", "small-red-circle", *said).stdout
    assert r"by ann\n2026-01-01  ffff  right: the pair x\x1b[2J" in told
    assert run("memory", "feedback", "--memory", memory).stdout.count("\n") == 1


def test_what_is_meant_must_be_said(work: Path, memory: Path, fail: Fail) -> None:
    assert "give --text or --image" in fail("memory", "reject", "small-red-circle", "--memory", memory)
    assert "say which answer is meant" in fail("memory", "reject", "--text", "red", "--memory", memory)
    assert "holds no pair 'gone'" in fail("memory", "reject", "gone", "--text", "red", "--memory", memory)


def test_a_version_that_is_swapped_in_keeps_it(work: Path, catalogue: Path, ask: Ask) -> None:
    place = work / "shop"
    ask("memory", "build", catalogue, "--memory", place, "--swap")
    ask("memory", "reject", "small-red-circle", "--text", "a blue circle", "--memory", place)
    ask("memory", "build", catalogue, "--memory", place, "--swap")
    assert [one["pair"] for one in ask("memory", "feedback", "--memory", place)] == ["small-red-circle"]
    ask("memory", "reject", "large-red-circle", "--text", "a blue circle", "--memory", place)
    both = ask("memory", "feedback", "--memory", place)
    assert len(both) == 2
    ask("memory", "rollback", "--memory", place)
    assert ask("memory", "feedback", "--memory", place) == both


def test_an_export_keeps_it_and_of_two_the_later_word_counts(work: Path, memory: Path, ask: Ask, run: Run) -> None:
    file, query = "pairs.parquet", ("--text", "a blue circle")
    assert ask("memory", "info", "--memory", memory)["opinions"] == 0
    ask("memory", "reject", "small-red-circle", *query, "--by", "Änne", "--memory", memory)
    assert ask("memory", "info", "--memory", memory)["opinions"] == 1
    assert "feedback 1 opinion of people" in run("memory", "info", "--memory", memory).stdout
    assert ask("memory", "export", file, "--memory", memory)["opinions"] == 1
    assert ask("memory", "import", file, "--memory", "copy")["opinions"] == 1
    said = ask("memory", "feedback", "--memory", "copy")
    assert said == ask("memory", "feedback", "--memory", memory)
    assert said[0]["by"] == "Änne"
    assert ask("memory", "import", file, "--memory", "copy")["opinions"] == 1  # twice changes nothing
    later = {"id": "later", "modality": "text", "pair": None, "right": True, "by": "", "at": "9999"}
    with closing(open_memory("copy", None)) as store:
        store.change_said([store.header.said[said[0]["id"]] | later], [said[0]["id"]])
    assert ask("memory", "import", file, "--memory", "copy")["opinions"] == 1
    assert ask("memory", "feedback", "--memory", "copy") == [later]
    write_pairs(file, read_records(file), [{"id": "y", "format": 99}])
    told = run("memory", "import", file, "--memory", "copy")
    assert "imported 24 pairs" in told.stdout
    assert "not imported: 1 opinion cannot be read, 'y': its feedback has format 99" in told.stdout
    assert ask("memory", "feedback", "--memory", "copy") == [later]
    assert ask("memory", "add", file, "--memory", "third")["added"] == 24  # a file of pairs as any other


def test_a_copy_brings_also_what_is_said_after_the_first(work: Path, memory: Path, ask: Ask, run: Run) -> None:
    move = ("memory", "copy", memory, "b")
    ask("memory", "reject", "small-red-circle", "--text", "a blue circle", "--memory", memory)
    assert ask(*move)["opinions"] == 1
    ask("memory", "reject", "small-blue-circle", "--text", "a red circle", "--memory", memory)
    ask("memory", "reject", "small-green-circle", "--text", "a red square", "--memory", "b")
    assert ask(*move)["opinions"] == 3
    texts = ("small-red-circle", "small-blue-circle", "small-green-circle")
    assert sorted(one["pair"] for one in ask("memory", "feedback", "--memory", "b")) == sorted(texts)
    shown = run(*move).stdout
    assert "copied 24 pairs" in shown and ", and 3 opinions of people" in shown
