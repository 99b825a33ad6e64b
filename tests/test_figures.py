"""A figure that README or method quote is a measured one, and blocks and charts are what their figures make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, paper, picture, realclip_gate, words

ROOT = Path(__file__).parents[1]
FIGURES: dict[str, Any] = {
    name: json.loads((page.FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("quickstart", "realclip", "paper", "words")
}
_OF_THE_PAPER = "57.2 68.1 10.9 52.8 63.0 10.2 62.1 67.9 5.8 63.5 64.6 1.1 40.6 42.2 1.6 7.3 9.0 1.7"
NOT_MEASURED = {"README.md": {"2.3"}, "docs/method.md": set(_OF_THE_PAPER.split())}
"""Numbers with a decimal point that no stored figures hold, by page."""


def numbers(value: Any) -> Iterator[float]:
    """All numbers in figures."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


@pytest.mark.parametrize("name", NOT_MEASURED)
def test_every_figure_with_a_decimal_is_a_measured_one(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    quoted = {**FIGURES, "words": FIGURES["words"]["means"]}  # its cells hold nearly every number
    measured = {f"{abs(number):.1f}" for number in numbers(quoted)}
    assert set(re.findall(r"(?<![\w.-])\d+\.\d(?![\w.])", text)) <= measured | NOT_MEASURED[name]


def test_the_blocks_are_what_their_figures_make() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, realclip_gate.blocks(FIGURES["realclip"])) == text, "python -m benchmarks.realclip_gate"
    assert page.filled(text, {"words": words.tables(FIGURES["words"])}) == text, "python -m benchmarks.words --page"
    text = paper.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, paper.blocks(FIGURES["paper"])) == text, "python -m benchmarks.paper --page"


@pytest.mark.torch
def test_the_block_of_the_mini_clip_is_what_its_figures_make() -> None:
    from benchmarks import quickstart_model

    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, quickstart_model.blocks(FIGURES["quickstart"])) == text, "quickstart_model --page"


@pytest.mark.parametrize("chart", picture.CHARTS)
def test_a_chart_is_what_its_figures_make(chart: str) -> None:
    figures, draw = picture.CHARTS[chart]
    made = draw(FIGURES[figures.removesuffix(".json")])
    assert made == (page.FIGURES / chart).read_text(encoding="utf-8"), "python -m benchmarks.picture"
    assert re.search("Mini CLIP|OpenAI CLIP", made), "which CLIP is it?"
