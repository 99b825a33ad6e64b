"""The main figures of a run, read from its section ``main``, and a chart of them for the top of the report.

In a table of that section, the rows of frozen CLIP have a text cell that begins with ``frozen``; the column of that
cell names the refined side, and other text columns (or the title, where there are several tables) name the labels. A
column of per cent is a main figure where a column of points holds its gain: titled ``gain in`` and its title, or with
its key and ``_gain``. Where there is no such pair, the first of per cent is, with the first of points.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..evaluate.findings import Cell, Column, Findings, Table
from ..measure.statistics import Interval
from .charts import Canvas, canvas, light, need_matplotlib, shorten, with_own_ids
from .runs import direction, format_cell, mean_of, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MAIN = "main"
_FROZEN, _BOTH = "frozen", "both"


@dataclass(frozen=True)
class Figure:
    """One main figure: labels and measure, the refined side, the share and its gain."""

    group: str
    refined: str
    value: float | Interval
    gain: Cell
    frozen: bool

    @property
    def mean(self) -> float:
        """The share."""
        return self.value.mean if isinstance(self.value, Interval) else self.value

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of the share's interval; where it has none, the gain's, centred on the share."""
        if isinstance(self.value, Interval):
            return self.value.low, self.value.high
        if isinstance(self.gain, Interval):
            return self.mean + self.gain.low - self.gain.mean, self.mean + self.gain.high - self.gain.mean
        return None


def main_figures(findings: Findings) -> tuple[Figure, ...]:
    """All main figures, group by group, in the order of the tables; none where no table has any."""
    tables = [table for section in findings.sections if section.key == MAIN for table in section.tables]
    several = len([table for table in tables if _variant(table)]) > 1
    return tuple(figure for table in tables for figure in _figures(table, several))


def group_figures(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Group figures, in order."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    return groups


def choose_refined(figures: Sequence[Figure]) -> Figure | None:
    """Choose the figure of refinement for a summary: both sides refined where measured, else the last variant."""
    refined = [figure for figure in figures if not figure.frozen]
    both = [figure for figure in refined if figure.refined.casefold().startswith(_BOTH)]
    return (both or refined)[-1] if refined else None


def summary_table(findings: Sequence[Findings], names: Sequence[str]) -> Table:
    """One row per run and group: frozen, refined, and the gain with its interval."""
    rows: list[dict[str, Cell]] = []
    for found, name in zip(findings, names, strict=True):
        figures = main_figures(found)
        for group, members in group_figures(figures).items():
            best = choose_refined(members)
            row: dict[str, Cell] = {"run": name, "group": group}
            row["frozen"] = next((figure.value for figure in members if figure.frozen), None)
            if best is not None:
                row |= {"side": best.refined, "refined": best.value, "gain": best.gain}
            rows.append(row)
        if not figures:
            rows.append({"run": name})
    columns = (
        Column(key="run", title="run"),
        Column(key="group", title="measure"),
        Column(key="side", title="what was refined"),
        Column(key="frozen", title="frozen", kind="percent"),
        Column(key="refined", title="refined", kind="percent"),
        Column(key="gain", title="gain", kind="points"),
    )
    used = tuple(column for column in columns if column.key == "run" or any(row.get(column.key) for row in rows))
    return Table(title="", columns=used, rows=tuple(rows))


def is_frozen(cell: Cell) -> bool:
    """Whether a text cell names frozen CLIP."""
    return isinstance(cell, str) and cell.casefold().startswith(_FROZEN)


def _variant(table: Table) -> Column | None:
    texts = [column for column in table.columns if column.kind == "text"]
    return next((column for column in texts if any(is_frozen(row.get(column.key)) for row in table.rows)), None)


def _measures(table: Table) -> list[tuple[Column, Column | None]]:
    """Columns of main figures, each with that of its gain."""
    shares = [column for column in table.columns if column.kind == "percent"]
    points = [column for column in table.columns if column.kind == "points"]
    pairs: list[tuple[Column, Column | None]] = [
        (share, gain)
        for share in shares
        for gain in points
        if gain.key == f"{share.key}_gain" or gain.title == f"gain in {share.title}"
    ]
    return pairs or [(share, points[0] if points else None) for share in shares[:1]]


def _figures(table: Table, several: bool) -> list[Figure]:
    variant = _variant(table)
    if variant is None:
        return []
    labels = [column.key for column in table.columns if column.kind == "text" and column is not variant]
    found = []
    for share, gain in _measures(table):
        for row in table.rows:
            value = row.get(share.key)
            if value is None or isinstance(value, str):
                continue
            words = [table.title if several else "", *(str(row[key]) for key in labels if row.get(key) is not None)]
            found.append(
                Figure(
                    group=" · ".join(word for word in (share.title, *words) if word),
                    refined=str(row.get(variant.key, "")),
                    value=value,
                    gain=row.get(gain.key) if gain else None,
                    frozen=is_frozen(row.get(variant.key)),
                )
            )
    return found


_BAR, _GROUP, _EDGE = 24.0, 38.0, 10.0  # heights in CSS pixels
_NAME_CHARS, _NAME_ROW, _GROUP_CHARS = 22, 15.0, 56
_MOST = 20  # bars
_ROOM = 1.8  # of the longest bar, so that its figures fit behind it


def draw_headline(figures: Sequence[Figure], salt: str) -> str:
    """Draw the SVG of the main figures; of very many, frozen and one refined variant of each group."""
    need_matplotlib()
    return with_own_ids(_draw(tuple(figures)), salt)


@lru_cache
def _draw(figures: tuple[Figure, ...]) -> str:
    groups = group_figures(choose_bars(figures))
    titled = any(groups)  # a single group without a name needs no room for it
    height = _EDGE + sum(_GROUP * titled + sum(map(_row_height, members)) for members in groups.values())
    with canvas(height) as drawn:
        axes, y, names = drawn.axes, 0.0, dict[float, str]()
        end = max((_right(figure) for members in groups.values() for figure in members), default=0.0) or 1.0
        for group, members in groups.items():
            if titled:
                _write_group(drawn, y + 0.64 * _GROUP, group)
                y += _GROUP
            stands = choose_refined(members)
            for figure in members:
                middle = y + _row_height(figure) / 2
                _draw_bar(
                    axes, middle, figure, "frozen" if figure.frozen else "series-1" if figure is stands else "pale"
                )
                _write_value(axes, _right(figure) + 0.02 * end, middle, figure)
                names[middle] = "\n".join(_name_lines(figure))
                y += _row_height(figure)
        axes.set_yticks(list(names), list(names.values()), color=light("ink"), fontsize=12)
        axes.set_ylim(y + 2, 0.2 * _GROUP if titled else -2)
        axes.set_xlim(0, _ROOM * end)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)
        return drawn.svg()


def _name_lines(figure: Figure) -> list[str]:
    """The name beside a bar, whole, on as many lines as it takes."""
    return textwrap.wrap(figure.refined, _NAME_CHARS) or [""]


def _row_height(figure: Figure) -> float:
    return max(_BAR, _NAME_ROW * len(_name_lines(figure)) + 8.0)


def choose_bars(figures: Sequence[Figure]) -> list[Figure]:
    """Choose the figures to draw: all of a few; of many, frozen and one refined variant of each group."""
    if len(figures) <= _MOST:
        return list(figures)
    return [
        figure
        for members in group_figures(figures).values()
        for figure in members
        if figure.frozen or figure is choose_refined(members)
    ]


def _right(figure: Figure) -> float:
    """The right end of bar and interval."""
    return max(figure.mean, *(figure.bounds or (0.0,)))


def _draw_bar(axes: Axes, y: float, figure: Figure, colour: str) -> None:
    axes.barh(y, figure.mean, height=0.72 * _BAR, color=light(colour))
    if figure.bounds:
        axes.plot(figure.bounds, (y, y), color=light("ink"), linewidth=1.2, marker="|", markersize=7)


def _write_group(drawn: Canvas, y: float, group: str) -> None:
    """Write from the left edge of the chart on, because names are longer than the bars."""
    from matplotlib.transforms import blended_transform_factory

    place = blended_transform_factory(drawn.figure.transFigure, drawn.axes.transData)
    words = shorten(group, _GROUP_CHARS)
    drawn.axes.text(0.015, y, words, transform=place, weight="bold", va="center").set_in_layout(False)


def _write_value(axes: Axes, x: float, y: float, figure: Figure) -> None:
    text = axes.text(x, y, with_unit(figure.mean, "percent"), va="center", weight="bold")
    if (gain := mean_of(figure.gain)) is not None:
        colour = {"up": "good", "down": "bad"}.get(direction(figure.gain, "points") or "", "soft")
        place: Any = {"xy": (1, 0.5), "xycoords": text, "xytext": (10, 0), "textcoords": "offset points"}
        axes.annotate(format_cell(gain, "points"), va="center", color=light(colour), weight="bold", **place)
