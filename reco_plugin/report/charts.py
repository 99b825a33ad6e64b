"""Draw charts of findings: lines with shaded bounds over numbers, points with bounds beside names."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError
from ..evaluate.findings import Cell, CellKind, Chart, Column, Line, Table
from ..evaluate.intervals import Interval
from .canvas import SERIES, WIDTH, Canvas, canvas, light, shorten
from .cells import format_cell, tick, with_unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis

_PLOT, _HEAD, _NAME_ROW, _DODGE = 220.0, 66.0, 22.0, 12.0  # heights in CSS pixels
_NAME_CHARS = 24
_CLOSE = 1 / 14  # of the axis: ticks nearer to each other would touch


def draw(chart: Chart, salt: str) -> str:
    """Draw the SVG of a chart, without its title, which page and document write as text.

    Raises:
        MissingExtra: matplotlib is not installed.
        DataError: a line has fewer or more values than x.
    """
    _check(chart)
    names = [value for value in chart.x if isinstance(value, str)]
    words = legend_words(chart)
    plot = max(3, len(names)) * max(_row_height(names), 8 + _DODGE * len(chart.lines)) if names else _PLOT
    with canvas(plot + _HEAD + legend_height(words), salt) as drawn:
        handles = _beside_names(drawn, chart, names) if names else _over_numbers(drawn, chart)
        if words:
            draw_legend(drawn, handles, words)
        return drawn.svg()


def chart_table(chart: Chart) -> Table:
    """The values of a chart as a table, for accessibility."""
    named = any(isinstance(value, str) for value in chart.x)
    columns = [Column(key="x", title=chart.x_title, kind="text" if named else "number")]
    columns += [Column(key=f"y{n}", title=line.name, kind=chart.y_kind) for n, line in enumerate(chart.lines)]
    rows: list[dict[str, Cell]] = []
    x: tuple[float | str, ...] = chart.x
    for place, value in enumerate(x):
        row: dict[str, Cell] = {"x": value}
        for number, line in enumerate(chart.lines):
            y, bounds = line.y[place], _bounds(line, place)
            row[f"y{number}"] = Interval(y, *bounds) if y is not None and bounds else y
        rows.append(row)
    return Table(title="", columns=tuple(columns), rows=tuple(rows))


def _check(chart: Chart) -> None:
    for line in chart.lines:
        if wrong := [len(y) for y in (line.y, line.low, line.high) if y is not None and len(y) != len(chart.x)]:
            raise DataError(f"chart {chart.title!r}: line {line.name!r} has {wrong[0]} values for {len(chart.x)} x")


def _over_numbers(drawn: Canvas, chart: Chart) -> list[Artist]:
    axes, x = drawn.axes, [float(value) for value in chart.x]
    handles: list[Artist] = []
    if chart.x_log:
        positive = [value for value in x if value > 0]
        axes.set_xscale("log") if len(positive) == len(x) else axes.set_xscale("symlog", linthresh=min(positive or [1]))
    for line, look in zip(chart.lines, looks(len(chart.lines)), strict=True):
        if line.low is not None and line.high is not None:
            axes.fill_between(x, _gaps(line.low), _gaps(line.high), color=look.colour, alpha=0.14, linewidth=0)
        handles += axes.plot(x, _gaps(line.y), color=look.colour, marker=look.marker, linestyle=look.dash)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(chart.x_title, loc="right")
    axes.set_title(chart.y_title)
    _place_ticks(axes.xaxis, x, log=chart.x_log)
    _write_ticks(axes.yaxis, chart.y_kind)
    if chart.baseline is not None:
        handles.append(axes.axhline(chart.baseline, **_THIN))
    axes.margins(y=0.12)
    return handles


def _beside_names(drawn: Canvas, chart: Chart, names: Sequence[str]) -> list[Artist]:
    axes, handles = drawn.axes, list[Any]()
    step = 0.6 / max(1, len(chart.lines))
    for number, (line, look) in enumerate(zip(chart.lines, looks(len(chart.lines)), strict=True)):
        shift = (number - (len(chart.lines) - 1) / 2) * step
        rows = [place + shift for place in range(len(names))]
        for place, row in enumerate(rows):
            if (bounds := _bounds(line, place)) is not None:
                axes.plot(bounds, (row, row), color=look.colour, alpha=0.45, linewidth=3, solid_capstyle="round")
        handles += axes.plot(_gaps(line.y), rows, color=look.colour, marker=look.marker, linestyle="none", markersize=7)
    axes.set_yticks(range(len(names)), [_wrap_name(name) for name in names], color=light("ink"))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(chart.y_title, loc="right")
    axes.set_title(chart.x_title)
    _write_ticks(axes.xaxis, chart.y_kind)
    if chart.baseline is not None:
        handles.append(axes.axvline(chart.baseline, **_THIN))
    axes.margins(x=0.06)
    return handles


def _place_ticks(axis: Axis, x: Sequence[float], *, log: bool) -> None:
    """Put ticks at the measured x where these are far enough apart, else where matplotlib puts them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    places = [math.log(value) if value > 0 else 0.0 for value in x] if log else list(x)
    width = max(places, default=0.0) - min(places, default=0.0)
    kept = [value for value, place in sorted(zip(x, places, strict=True))]
    spread = sorted(places)
    if not width or min(b - a for a, b in pairwise(spread)) / width >= _CLOSE:
        axis.set_ticks(kept)
    elif not log:
        axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_cell(value, "number")))
    axis.set_minor_locator(NullLocator())


def _write_ticks(axis: Axis, kind: CellKind) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, kind)))


def _bounds(line: Line, place: int) -> tuple[float, float] | None:
    low = line.low[place] if line.low is not None else None
    high = line.high[place] if line.high is not None else None
    return None if low is None or high is None else (low, high)


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _wrap_name(name: str) -> str:
    """Wrap a name to at most two lines."""
    return "\n".join(textwrap.wrap(name, _NAME_CHARS, max_lines=2, placeholder="…")) or name


def _row_height(names: Sequence[str]) -> float:
    return _NAME_ROW * (1.5 if any("\n" in _wrap_name(name) for name in names) else 1.0)


_THIN: dict[str, Any] = {"color": light("soft"), "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1.5}
_CHARS, _ROW = 54, 18.0
_BASELINE = "baseline"


class Look(NamedTuple):
    """Colour, marker and dash of a line."""

    colour: str
    marker: str
    dash: str


_LOOKS = [  # lines differ in colour, marker and dash, to be legible without colour
    Look(SERIES[number % len(SERIES)], "osD^vPX*"[(number + number // 8) % 8], ("-", "--", "-.", ":")[number % 4])
    for number in range(32)
]


def looks(count: int) -> list[Look]:
    """Looks for ``count`` lines; after 32 they repeat."""
    return [_LOOKS[number % len(_LOOKS)] for number in range(count)]


def legend_words(chart: Chart) -> list[str]:
    """Names of lines and baseline; none for a single line."""
    if len(chart.lines) < 2 and chart.baseline is None:
        return []
    words = [shorten(line.name, _CHARS) for line in chart.lines]
    return words if chart.baseline is None else [*words, f"{_BASELINE} {with_unit(chart.baseline, chart.y_kind)}"]


def legend_height(words: Sequence[str]) -> float:
    """Height of the legend, in CSS pixels."""
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
