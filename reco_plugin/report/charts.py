"""Charts of findings as SVG: lines with shaded bounds over numbers, points with bounds beside names; and the colours.

A matplotlib figure with selectable text and reproducible bytes, for a page or as a file of its own. Charts are drawn in
the light colours. In the page, each is replaced by its CSS variable, so that charts follow the reader's scheme; hence
no two may be equal.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError, need
from ..evaluate.findings import Cell, CellKind, Chart, Column, Line, Table
from ..measure.statistics import Interval
from .runs import format_cell, tick, with_unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 430.0
"""In CSS pixels: two charts side by side on a desktop, one on a phone, with the same text size."""
_TITLE_CHARS, _TITLE_ROW = 48, 19.0  # of a bold letter that is wide, and of a line
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


class Shade(NamedTuple):
    """One colour in both schemes."""

    light: str
    dark: str


COLOURS: dict[str, Shade] = {
    "ink": Shade("#1d232b", "#e7ebf0"),
    "soft": Shade("#5b6672", "#9eaab8"),
    "line": Shade("#dfe4ea", "#303944"),
    "paper": Shade("#ffffff", "#1a2028"),
    "ground": Shade("#f5f6f8", "#11151a"),
    "tint": Shade("#eef3fa", "#212c3a"),
    "good": Shade("#10795a", "#4fc79e"),
    "bad": Shade("#b5362b", "#f0857b"),
    "unknown": Shade("#7d8794", "#8794a3"),
    "frozen": Shade("#9aa5b1", "#77838f"),
    "pale": Shade("#8fb8de", "#3f6c9c"),
    "series-1": Shade("#2f6db5", "#6cabf2"),
    "series-2": Shade("#cf6a17", "#f2a25c"),
    "series-3": Shade("#2a8c74", "#5ccfb3"),
    "series-4": Shade("#a3468f", "#de93cc"),
    "series-5": Shade("#7a6a4f", "#c9b68f"),
    "series-6": Shade("#1f8fa8", "#62cbe0"),
    "series-7": Shade("#c2453a", "#ee8a80"),
    "series-8": Shade("#4a5568", "#aab7c9"),
}
SERIES = tuple(shade.light for name, shade in COLOURS.items() if name.startswith("series"))


def light(name: str) -> str:
    """The light shade of a colour, in which charts are drawn."""
    return COLOURS[name].light


def as_variables(svg: str) -> str:
    """Replace the light colours by the variables of :func:`stylesheet`."""
    for name, shade in COLOURS.items():
        svg = svg.replace(shade.light, f"var(--{name})")
    return svg


def stylesheet() -> str:
    """The CSS variables: light, and dark where the reader's system is dark, except in print."""
    day, night = (
        "".join(f"--{name}:{shade[scheme]};" for name, shade in COLOURS.items()) for scheme in range(len(Shade._fields))
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{night}}}}}"
    return f":root{{color-scheme:light;{day}}}\n{dark}\n"


class Canvas:
    """A figure of ``WIDTH`` and its axes; draw on them, then take the SVG."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes

    def svg(self) -> str:
        """The drawing in light colours on an opaque background; :func:`standalone` makes a file of its own."""
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the text is drawn by the viewer's fonts
            self.figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return _tidy(buffer.getvalue())


@contextmanager
def canvas(height: float) -> Iterator[Canvas]:
    """A new canvas in the report's style, its height in CSS pixels; draw and take the SVG inside the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": "reco"}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield Canvas(figure, figure.subplots())


def need_matplotlib() -> None:
    """Check that charts can be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    need("matplotlib", "drawing charts", "report")


_TAG, _ID = re.compile(r"<[^>]*>"), re.compile(r'( id="|href="#|url\(#)')


def with_own_ids(svg: str, salt: str) -> str:
    """The same drawing with ids that depend on ``salt``: charts of one page need different ones."""
    own = rf"\g<1>i{hashlib.sha256(salt.encode()).hexdigest()[:8]}"
    return _TAG.sub(lambda tag: _ID.sub(own, tag[0]), svg)  # a name that is drawn may look like an id


def inline(svg: str, label: str) -> str:
    """The drawing as an element of a page, with the page's colour variables and ``label`` for screen readers."""
    return as_variables(svg[svg.index("<svg") :]).replace("<svg", f'<svg role="img" aria-label="{_escape(label)}"', 1)


def standalone(svg: str, title: str) -> str:
    """The drawing as a file of its own: with its title above it, and in dark colours where the reader's system is dark.

    Colours stay in place, and rules exchange them, since not every viewer knows variables.
    """
    lines = textwrap.wrap(title, _TITLE_CHARS)
    size = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="0 0 [\d.]+ [\d.]+"', svg)
    if size is None:
        raise ValueError("this drawing has no size in pixels: it is not of this module")
    width, height, above = size[1], float(size[2]), _TITLE_ROW * len(lines) + 10.0 if lines else 0.0
    dark = "".join(
        f'[style*="{what}: {shade.light}"]{{{what}:{shade.dark} !important}}'
        for shade in COLOURS.values()
        for what in ("fill", "stroke")
    )
    head = [f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>"]
    head.append(f'<rect y="-{above:g}" width="{width}" height="{above + 1:g}" style="fill: {light("paper")}"/>')
    head += [
        f'<text x="6" y="{_TITLE_ROW * (number + 1) - above:g}" '
        f'style="font: 700 14px {_FONT}; fill: {light("ink")}">{_escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    box = f'width="{width}" height="{height + above:g}" viewBox="0 -{above:g} {width} {height + above:g}"'
    svg = svg.replace(size[0], f'{box} role="img" aria-label="{_escape(title)}"', 1)
    end = svg.index(">", svg.index("<svg")) + 1
    return svg[:end] + "\n" + "\n".join(head) + svg[end:]


def _escape(words: str) -> str:
    return words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, width: int) -> str:
    """Shorten text to ``width`` characters, with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def _tidy(svg: str) -> str:
    """Drop the doctype, unused ids (a page would hold them twice) and trailing blanks."""
    svg = svg[svg.index("<svg") :]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]+", f"font-family: {_FONT}", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", svg)
    svg = re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt" viewBox="0 0 ([\d.]+) ([\d.]+)"',
        r'width="\1" height="\2" viewBox="0 0 \1 \2"',
        svg,
    )
    return re.sub(r"\s*\n\s*", "\n", svg).strip() + "\n"


_STYLE: Any = {  # matplotlib types the keys one by one
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12.0,
    "font.family": "DejaVu Sans",  # comes with matplotlib; used only to measure text
    "text.color": light("ink"),
    "axes.edgecolor": light("line"),
    "axes.facecolor": "none",
    "axes.labelcolor": light("soft"),
    "axes.labelsize": 12.0,
    "axes.titlesize": 12.0,
    "axes.titlecolor": light("soft"),
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": light("line"),
    "grid.linewidth": 0.8,
    "xtick.color": light("line"),
    "ytick.color": light("line"),
    "xtick.labelcolor": light("soft"),
    "ytick.labelcolor": light("soft"),
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": light("paper"),
    "savefig.facecolor": light("paper"),
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.08,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
    "legend.handlelength": 2.2,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
}


_PLOT, _HEAD, _NAME_ROW, _DODGE = 220.0, 66.0, 22.0, 12.0  # heights in CSS pixels
_NAME_CHARS = 24
_CLOSE = 1 / 14  # of the axis: ticks nearer to each other would touch


def draw(chart: Chart, salt: str) -> str:
    """Draw the SVG of a chart, without its title, which page and document write as text; its ids depend on ``salt``."""
    _check(chart)
    need_matplotlib()
    return with_own_ids(_draw(chart), salt)


@lru_cache(256)
def _draw(chart: Chart) -> str:
    names = [value for value in chart.x if isinstance(value, str)]
    words = legend_words(chart)
    plot = max(3, len(names)) * max(_row_height(names), 8 + _DODGE * len(chart.lines)) if names else _PLOT
    with canvas(plot + _HEAD + legend_height(words)) as drawn:
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
