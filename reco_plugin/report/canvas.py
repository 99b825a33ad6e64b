"""A matplotlib figure as SVG: selectable text, reproducible bytes, for a page or as a file of its own; and its colours.

Charts are drawn in the light colours. In the page, each is replaced by its CSS variable, so that charts follow the
reader's scheme; hence no two may be equal.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
def canvas(height: float, salt: str) -> Iterator[Canvas]:
    """A new canvas in the report's style, its height in CSS pixels; draw and take the SVG inside the block.

    The ids in the SVG depend on ``salt``: charts of one page need different ones.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    need("matplotlib", "drawing charts", "report")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield Canvas(figure, figure.subplots())


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
