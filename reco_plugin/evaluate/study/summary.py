"""A study's main figures in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..findings import Cell, Section, Table
from ..intervals import Interval
from ..table import gain, percent
from .config import StudyConfig


def summary(sections: Sequence[Section], config: StudyConfig) -> tuple[str, ...]:
    """Sentences with the main figures, of the sections that there are."""
    by_key = {section.key: section for section in sections}
    lines: list[str] = []
    if "main" in by_key:
        lines += _main(by_key["main"])
    if "baselines" in by_key:
        lines += _baselines(by_key["baselines"])
    if "harm" in by_key:
        lines += _harm(by_key["harm"])
    if config.quick:
        lines.append("A quick run: fewer points on the curves and fewer bootstrap draws.")
    return tuple(lines)


def _main(section: Section) -> Iterator[str]:
    table = section.tables[0]
    frozen, *others = table.rows
    best = max(others, key=lambda row: _number(row["top1"]))
    yield (
        f"Top-1 over {table.title}: {percent(_number(frozen['top1']))} % with frozen CLIP, "
        f"{percent(_number(best['top1']))} % with {best['name']}: {_points(best['gain'])} points."
    )
    yield from section.notes


def _baselines(section: Section) -> Iterator[str]:
    chosen = str(section.tables[0].rows[0]["name"])
    for table in section.tables[1:]:
        row = _row(table, name=chosen)
        yield (
            f"Ours against the best baseline on development classes ({chosen}), {table.title}: "
            f"{_points(row['ahead'])} points."
        )


def _harm(section: Section) -> Iterator[str]:
    ours = [row for row in section.tables[0].rows if row["name"] == "ours" and isinstance(row.get("gain"), Interval)]
    worst = min(ours, key=lambda row: _number(row["gain"]))
    yield f"The worst memory for ours, “{worst['memory']}”, changes its top-1 by {_points(worst['gain'])} points."
    noisy = [row for row in section.tables[1].rows if row["name"] == "ours" and 0.4 < _number(row["wrong"]) < 0.6]
    for row in noisy[:1]:
        share = percent(_number(row["wrong"]))
        yield f"With {share} % wrong captions, ours changes top-1 by {_points(row['gain'])} points."


def _row(table: Table, **cells: Cell) -> dict[str, Cell]:
    return next(row for row in table.rows if all(row.get(key) == cell for key, cell in cells.items()))


def _number(cell: Cell) -> float:
    if isinstance(cell, Interval):
        return cell.mean
    return float(cell) if isinstance(cell, int | float) else 0.0


def _points(cell: Cell) -> str:
    return gain(cell) if isinstance(cell, Interval) else ""
