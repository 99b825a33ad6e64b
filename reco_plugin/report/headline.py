"""The main figures of a run, read from its section ``main``: what stands in the picture at the top.

In a table of that section, the rows of frozen CLIP have a text cell that begins with ``frozen``; the column of that
cell says what was refined, and other text columns (or the title, where there are several tables) say among which
labels. A column of per cent is a main figure where a column of points holds its gain: titled ``gain in`` and its title,
or with its key and ``_gain``. Where there is no such pair, the first of per cent is, with the first of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluate.findings import Cell, Column, Findings, Table
from ..evaluate.intervals import Interval

MAIN = "main"
_FROZEN, _BOTH = "frozen", "both"


@dataclass(frozen=True)
class Figure:
    """One main figure: labels and measure, what was refined, the share and its gain."""

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
        """Of the share's interval; where it has none, of the gain's, laid around the share."""
        if isinstance(self.value, Interval):
            return self.value.low, self.value.high
        if isinstance(self.gain, Interval):
            return self.mean + self.gain.low - self.gain.mean, self.mean + self.gain.high - self.gain.mean
        return None


def main_figures(findings: Findings) -> tuple[Figure, ...]:
    """All main figures, group by group, as the tables have them; none where no table fits the rule."""
    tables = [table for section in findings.sections if section.key == MAIN for table in section.tables]
    told = len([table for table in tables if _variant(table)]) > 1
    return tuple(figure for table in tables for figure in _figures(table, told))


def grouped(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Figures by group, in order."""
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    return groups


def chosen(figures: Sequence[Figure]) -> Figure | None:
    """What stands for refinement in a summary: both sides where both were refined, else the last variant."""
    refined = [figure for figure in figures if not figure.frozen]
    both = [figure for figure in refined if figure.refined.casefold().startswith(_BOTH)]
    return (both or refined)[-1] if refined else None


def summary_table(findings: Sequence[Findings], names: Sequence[str]) -> Table:
    """One row per run and group: frozen, refined, and the gain with its interval."""
    rows: list[dict[str, Cell]] = []
    for found, name in zip(findings, names, strict=True):
        figures = main_figures(found)
        for group, members in grouped(figures).items():
            best = chosen(members)
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


def _figures(table: Table, told: bool) -> list[Figure]:
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
            words = [table.title if told else "", *(str(row[key]) for key in labels if row.get(key) is not None)]
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
