"""Draw the headline: main figures before and after, as bars with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .canvas import Canvas, canvas, shortened
from .cells import direction, mean_of, with_unit, written
from .headline import Figure, chosen, grouped
from .palette import light

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR, _GROUP, _EDGE = 24.0, 38.0, 10.0  # heights in CSS pixels
_NAME_CHARS, _GROUP_CHARS = 22, 56
_MOST = 20  # bars
_ROOM = 1.5  # of the longest bar, so that its figures fit behind it


def draw_headline(figures: Sequence[Figure], salt: str) -> str:
    """The SVG of the main figures; with very many, frozen and one refined variant of each group.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    groups = grouped(pictured(figures))
    titled = any(groups)  # a single nameless group needs no room for its name
    height = _EDGE + sum(_BAR * len(members) + _GROUP * titled for members in groups.values())
    with canvas(height, salt) as drawn:
        axes, y, names = drawn.axes, 0.0, dict[float, str]()
        end = max((_right(figure) for members in groups.values() for figure in members), default=0.0) or 1.0
        for group, members in groups.items():
            if titled:
                _write_group(drawn, y + 0.64 * _GROUP, group)
                y += _GROUP
            stands = chosen(members)
            for figure in members:
                middle = y + _BAR / 2
                _draw_bar(
                    axes, middle, figure, "frozen" if figure.frozen else "series-1" if figure is stands else "pale"
                )
                _write_value(axes, _right(figure) + 0.02 * end, middle, figure)
                names[middle] = shortened(figure.refined, _NAME_CHARS)
                y += _BAR
        axes.set_yticks(list(names), list(names.values()), color=light("ink"), fontsize=12)
        axes.set_ylim(y + 2, 0.2 * _GROUP if titled else -2)
        axes.set_xlim(0, _ROOM * end)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)
        return drawn.svg()


def pictured(figures: Sequence[Figure]) -> list[Figure]:
    """All of a few figures; of many, frozen and the one that stands for refinement, group by group."""
    if len(figures) <= _MOST:
        return list(figures)
    return [
        figure
        for members in grouped(figures).values()
        for figure in members
        if figure.frozen or figure is chosen(members)
    ]


def _right(figure: Figure) -> float:
    """Where bar and interval end."""
    return max(figure.mean, *(figure.bounds or (0.0,)))


def _draw_bar(axes: Axes, y: float, figure: Figure, colour: str) -> None:
    axes.barh(y, figure.mean, height=0.72 * _BAR, color=light(colour))
    if figure.bounds:
        axes.plot(figure.bounds, (y, y), color=light("ink"), linewidth=1.2, marker="|", markersize=7)


def _write_group(drawn: Canvas, y: float, group: str) -> None:
    """From the left edge of the picture on, because the words are longer than the bars."""
    from matplotlib.transforms import blended_transform_factory

    place = blended_transform_factory(drawn.figure.transFigure, drawn.axes.transData)
    words = shortened(group, _GROUP_CHARS)
    drawn.axes.text(0.015, y, words, transform=place, weight="bold", va="center").set_in_layout(False)


def _write_value(axes: Axes, x: float, y: float, figure: Figure) -> None:
    text = axes.text(x, y, with_unit(figure.mean, "percent"), va="center", weight="bold")
    if (gain := mean_of(figure.gain)) is not None:
        colour = {"up": "good", "down": "bad"}.get(direction(figure.gain, "points") or "", "soft")
        place: Any = {"xy": (1, 0.5), "xycoords": text, "xytext": (10, 0), "textcoords": "offset points"}
        axes.annotate(written(gain, "points"), va="center", color=light(colour), weight="bold", **place)
