"""The runs of a report, findings with their folder, under distinct names; and figures as text.

Per cent and points have one decimal, bytes and times readable units, missing ones an en dash.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import DataError
from ..evaluate.findings import Case, Cell, CellKind, Column, Findings, Section, Table
from ..measure.statistics import Interval

NOTHING = "–"
Direction: TypeAlias = Literal["up", "down", "unsure"]
_UNITS: dict[str, str] = {"percent": "%", "points": "points"}
_EXACT_BELOW, _MINUTE_MS = 1000.0, 60_000.0


def format_cell(cell: Cell, kind: CellKind) -> str:
    """Format a cell, without its unit where the header has it (per cent, points).

    >>> format_cell(0.4949, "percent"), format_cell(-0.014, "points"), format_cell(None, "count")
    ('49.5', '−1.4', '–')
    >>> from reco_plugin.measure.statistics import Interval
    >>> format_cell(Interval(0.02, 0.009, 0.031), "points")
    '+2.0 [+0.9, +3.1]'
    >>> format_cell(1536, "bytes"), format_cell(0.25, "milliseconds"), format_cell(8756, "count")
    ('1.5 KiB', '250 µs', '8,756')
    """
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Interval):
        mean, low, high = (format_cell(value, kind) for value in cell)
        return f"{mean} [{low}, {high}]"
    return _WRITERS[kind](float(cell)).replace("-", "−")


def with_unit(cell: Cell, kind: CellKind) -> str:
    """Format a cell with its unit, as on a chart: ``49.5 %``."""
    text, unit = format_cell(cell, kind), _UNITS.get(kind)
    return f"{text} {unit}" if unit and isinstance(cell, int | float | Interval) else text


def tick(value: float, kind: CellKind) -> str:
    """Format a value at an axis, as short as possible: ``40 %``."""
    if kind in _UNITS:
        sign = "+" if kind == "points" and value > 0 else ""
        return f"{sign}{round(100 * value, 6):g}{' %' if kind == 'percent' else ''}".replace("-", "−")
    return format_cell(value, kind)


def header(column: Column) -> str:
    """The title of a column, with the unit of its cells unless the title has it.

    >>> header(Column(key="top1", title="top-1", kind="percent")), header(Column(key="gain", title="gain in points"))
    ('top-1, %', 'gain in points')
    """
    unit = _UNITS.get(column.kind)
    return column.title if unit is None or unit in column.title else f"{column.title}, {unit}".lstrip(", ")


def with_minus(text: str) -> str:
    """Replace hyphens before figures by minus signs.

    >>> with_minus("top-1: -0.6 [-1.7, +0.0] points")
    'top-1: −0.6 [−1.7, +0.0] points'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def mean_of(cell: Cell) -> float | None:
    """The number of a cell, the mean of an interval; None for text and missing cells."""
    if cell is None or isinstance(cell, str):
        return None
    return float(cell.mean if isinstance(cell, Interval) else cell)


def direction(cell: Cell, kind: CellKind) -> Direction | None:
    """Whether a difference is a gain, a loss, or neither because its interval holds 0; None for other cells."""
    if kind != "points" or (mean := mean_of(cell)) is None:
        return None
    low, high = (cell.low, cell.high) if isinstance(cell, Interval) else (mean, mean)
    if low > 0:
        return "up"
    return "down" if high < 0 else "unsure"


def best_cells(table: Table) -> frozenset[tuple[int, str]]:
    """Row number and key of the highest cells of the ``best`` columns; equal formatted values are equally best."""
    kinds = {column.key: column.kind for column in table.columns}
    found: set[tuple[int, str]] = set()
    for key in (key for key in table.best if key in kinds):
        means = {row: mean for row, cells in enumerate(table.rows) if (mean := mean_of(cells.get(key))) is not None}
        if means:
            top = format_cell(max(means.values()), kinds[key])
            found |= {(row, key) for row, mean in means.items() if format_cell(mean, kinds[key]) == top}
    return frozenset(found)


def _format_points(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _EXACT_BELOW or value == int(value) else f"{value:.3g}"


def _milliseconds(value: float) -> str:
    if value and abs(value) < 1:
        return f"{1000 * value:.3g} µs"
    if abs(value) >= _MINUTE_MS:
        return f"{value / _MINUTE_MS:.1f} min"
    return f"{value / 1000:.3g} s" if abs(value) >= 1000 else f"{value:.3g} ms"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}" if unit == "B" or abs(value) < 100 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


_WRITERS: dict[str, Callable[[float], str]] = {
    "text": lambda value: f"{value:.6g}",
    "count": lambda value: f"{value:,.0f}",
    "percent": lambda value: f"{100 * value:.1f}",
    "points": _format_points,
    "number": _number,
    "milliseconds": _milliseconds,
    "bytes": _bytes,
}


PICTURES = "pictures"
_TYPES = {".webp": "webp", ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


@dataclass(frozen=True)
class Run:
    """One run."""

    name: str  # distinct in the report
    key: str  # distinct, of letters, digits and hyphens: for anchors and file names
    folder: Path  # that holds the pictures
    findings: Findings

    def picture(self, name: str | None) -> Path | None:
        """The file of a picture; None where there is none, or the file is missing.

        Raises:
            DataError: the name is no plain file name.
        """
        if name is None:
            return None
        if Path(name).name != name or Path(name).suffix.lower() not in _TYPES:
            raise DataError(
                f"{self.folder}: a picture is called {name!r}; a plain name of a {', '.join(_TYPES)} is needed"
            )
        path = self.folder / PICTURES / name
        return path if path.is_file() else None

    def picture_data(self, name: str | None) -> str | None:
        """A picture as a ``data:`` URL; None where there is none."""
        path = self.picture(name)
        if path is None:
            return None
        return f"data:image/{_TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    def is_pictured(self, case: Case) -> bool:
        """Whether the query of a case or one of its neighbours has a picture."""
        names = [case.picture, *(shown.picture for shown in (*case.neighbours, *case.prompt_neighbours))]
        return any(self.picture(name) for name in names)


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read run folders; data sets of one name are named with their folders.

    Raises:
        DataError: a folder holds no findings, two of its sections share a key, or it is given twice.
    """
    if again := [folder for folder, times in Counter(folder.resolve() for folder in folders).items() if times > 1]:
        raise DataError(f"{again[0]} is given twice")
    read = [Findings.read(folder) for folder in folders]
    times = Counter(findings.name for findings in read)
    runs: list[Run] = []
    for number, (folder, findings) in enumerate(zip(folders, read, strict=True), 1):
        keys = Counter(section_key(section) for section in findings.sections)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise DataError(
                f"{folder}: two sections have the key {twice[0]!r}; keys name files, so each may stand once"
            )
        name = findings.name if times[findings.name] == 1 else f"{findings.name} ({folder})"
        runs.append(Run(name, f"run-{number}", folder, findings))
    return tuple(runs)


def section_key(section: Section) -> str:
    """The key of a section in file names and anchors.

    >>> section_key(Section(key="Do no harm/../x", title="", about=""))
    'do-no-harm-x'
    """
    return re.sub(r"[^a-z0-9]+", "-", section.key.casefold()).strip("-") or "section"
