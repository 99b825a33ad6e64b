"""The harness of the speed benchmarks: whose turn it is, what it makes of the times, and where its blocks go."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import filled, write_blocks
from benchmarks.research import parser_of
from benchmarks.speed import __main__ as speed
from benchmarks.speed.inputs import batches
from benchmarks.speed.turns import Turns, take_turns

DOCS = Path(__file__).resolve().parents[2] / "docs" / "measurements"


def test_actions_take_turns_call_by_call_and_every_second_round_backwards() -> None:
    called: list[str] = []
    turns = take_turns({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2, calls=2)
    assert "".join(called) == "ab" + "abab" + "baba"
    assert len(turns.seconds["a"]) == len(turns.cpu["b"]) == 2


def test_the_best_round_counts_and_ratios_are_taken_within_a_round() -> None:
    turns = Turns({"base": [1.0, 4.0, 2.0], "other": [2.0, 4.0, 6.0]}, {"base": [1.0], "other": [0.5]})
    assert (turns.least("base"), turns.least("other"), turns.least_cpu("other")) == (1.0, 2.0, 0.5)
    assert turns.ratio("other", "base") == 2.0


@pytest.mark.parametrize("modality", ["image", "text"])
def test_no_batch_was_asked_for_before(modality) -> None:
    make, again = batches(modality, 2), batches(modality, 2)
    first, second = make(), make()
    assert len(first) == 2 and first != second and first == again()


@pytest.mark.slow  # imports torch
def test_every_block_can_be_measured_and_has_its_place_on_the_page() -> None:
    page = (DOCS / speed.PAGE).read_text("utf-8")
    for name, module in speed.BLOCKS.items():
        assert callable(getattr(import_module(f"benchmarks.speed.{module}"), name))
        filled(page, {name: "measured"})


def test_a_block_goes_into_its_place_and_the_words_stay(tmp_path: Path) -> None:
    page = tmp_path / speed.PAGE
    page.write_text(
        "# Speed\n\n<!-- measured: startup -->\n<!-- end -->\nWords.\n<!-- measured: machine -->\n<!-- end -->\n"
    )
    write_blocks(page, {"startup": "table", "machine": "here"})
    write_blocks(page, {"startup": "another"})
    assert page.read_text() == (
        "# Speed\n\n<!-- measured: startup -->\n\nanother\n\n<!-- end -->\nWords.\n"
        "<!-- measured: machine -->\n\nhere\n\n<!-- end -->\n"
    )
    with pytest.raises(SystemExit, match="no place for other"):
        write_blocks(page, {"other": "table"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["startups"], "no block is called startups: choose from engines"),
        (["startup", "--docs", "nowhere"], "nowhere has no speed.md"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(words)
    assert said in capsys.readouterr().err


class WouldMeasure(Exception):
    """The command line was taken."""


@pytest.mark.parametrize("name", ["imports", "torture.__main__", "triton_lengths"])
def test_a_page_that_is_not_there_is_told_before_anything_is_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = ArgumentParser.parse_args

    def parsed(*given: Any) -> None:
        parse(*given)
        raise WouldMeasure

    monkeypatch.setattr(ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", ["benchmark", "--page", str(tmp_path / "nothere.md")])
    with pytest.raises(SystemExit):
        import_module(f"benchmarks.{name}").main()
    assert f"there is no page {tmp_path}" in capsys.readouterr().err


def test_a_folder_without_the_page_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser_of("", "gate", docs_needed=True).parse_args(["--docs", str(tmp_path)])
    assert f"there is no page {tmp_path}" in capsys.readouterr().err
