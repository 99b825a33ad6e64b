"""How the lines of a chart are told apart, and the legend below it that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..evaluate.findings import Chart
from .canvas import WIDTH, Canvas, shortened
from .cells import with_unit
from .palette import SERIES

if TYPE_CHECKING:
    from matplotlib.artist import Artist

_CHARS, _ROW = 54, 18.0
_BASELINE = "baseline"


class Look(NamedTuple):
    """Colour, marker and dash of a line."""

    colour: str
    marker: str
    dash: str


_LOOKS = [  # a line differs from the others in colour, marker and dash: colour is never the only sign
    Look(SERIES[number % len(SERIES)], "osD^vPX*"[(number + number // 8) % 8], ("-", "--", "-.", ":")[number % 4])
    for number in range(32)
]


def looks(count: int) -> list[Look]:
    """Looks for so many lines; after 32 they begin again."""
    return [_LOOKS[number % len(_LOOKS)] for number in range(count)]


def legend_words(chart: Chart) -> list[str]:
    """Names of lines and baseline; none where one line stands alone."""
    if len(chart.lines) < 2 and chart.baseline is None:
        return []
    words = [shortened(line.name, _CHARS) for line in chart.lines]
    return words if chart.baseline is None else [*words, f"{_BASELINE} {with_unit(chart.baseline, chart.y_kind)}"]


def legend_height(words: Sequence[str]) -> float:
    """Room for the legend, in CSS pixels."""
    return _ROW * math.ceil(len(words) / _columns(words))


def draw_legend(drawn: Canvas, handles: Sequence[Artist], words: Sequence[str]) -> None:
    """Draw the legend below the axes."""
    numbers = [str(number) for number in range(len(words))]
    legend = drawn.figure.legend(handles, numbers, loc="outside lower left", ncols=_columns(words))
    for text, word in zip(legend.get_texts(), words, strict=True):
        text.set_text(word)  # here, because a label that begins with _ is left out


def _columns(words: Sequence[str]) -> int:
    longest = max(map(len, words), default=1)
    return max(1, min(len(words), int(WIDTH // (44 + 6.6 * longest))))
