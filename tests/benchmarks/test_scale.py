"""The arithmetic of docs/measurements/scale.md against sums done by hand; docs/scale.md against the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from benchmarks.sizing import LAYOUTS, cluster, encode_table, encoders, index_cpu_s, write_table
from reco_plugin.cli.app import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
STEPS = (DOCS / "scale.md").read_text("utf-8")


def test_hours_are_pairs_over_rate() -> None:
    row = encode_table([3.6e6], {"mine": 100}).splitlines()[-1]
    assert row == "| mine | 100 | 10.0 h | 0.1 | 1.0 |"


def test_a_pair_is_an_image_on_two_cores_and_half_the_time_of_a_text_on_one() -> None:
    measured, *gpus, eight = encoders().values()
    assert measured == pytest.approx(1000 / (17.7 + 5.7 / 2))
    assert eight == 8 * gpus[-1]


def test_the_index_grows_a_little_faster_than_the_pairs() -> None:
    assert index_cpu_s(1e6) / index_cpu_s(1e5) == pytest.approx(10 * 6 / 5)


def test_each_node_builds_its_share_of_both_copies() -> None:
    rows = write_table([1e5], [3], 10).splitlines()
    assert rows[-3].endswith("| 1 min |") and rows[-4].endswith("| 3 |")
    layout = LAYOUTS["int8 copy in RAM, fp16 on SSD"]
    assert cluster(1e6, layout).nodes == 3 and cluster(1e9, layout).nodes > 40


def test_the_products_commands_on_the_page_are_commands() -> None:
    lines = re.sub(r"\\\n\s*", "", STEPS).splitlines()
    commands = [line.partition("reco ")[2] for line in lines if re.match(r"(RECO_\w+=\S+ )?reco ", line)]
    assert len(commands) >= 9
    for command in commands:
        context: typer.Context | None = None
        group, words = typer.main.get_command(app), shlex.split(command, comments=True)
        while hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        with group.make_context(group.name, words, parent=context) as made:
            assert made.params
