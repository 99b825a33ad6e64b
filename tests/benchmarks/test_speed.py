"""The harness of the speed benchmarks: whose turn it is, what it makes of the times, and where its blocks go."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.page import PAGE, filled, write_blocks
from benchmarks.speed import __main__ as speed
from benchmarks.speed.turns import take_turns


def test_actions_take_turns_call_by_call_and_every_second_round_backwards() -> None:
    called: list[str] = []
    turns = take_turns({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2, calls=2)
    assert "".join(called) == "ab" + "abab" + "baba"
    assert len(turns.seconds["a"]) == len(turns.seconds["b"]) == 2


@pytest.mark.torch
def test_every_block_can_be_measured_and_has_its_place_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name, module in speed.BLOCKS.items():
        assert callable(getattr(import_module(f"benchmarks.speed.{module}"), name))
        filled(page, {name: "measured"})


def test_a_block_goes_into_its_place_and_the_words_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Speed\n\n<!-- measured: startup -->\n<!-- end -->\nWords.\n")
    write_blocks({"startup": "table"}, page)
    write_blocks({"startup": "another"}, page)
    assert page.read_text() == "# Speed\n\n<!-- measured: startup -->\n\nanother\n\n<!-- end -->\nWords.\n"
    with pytest.raises(SystemExit, match="other"):
        write_blocks({"other": "table"}, page)


def test_a_block_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["startups"])
    assert "startups" in capsys.readouterr().err
