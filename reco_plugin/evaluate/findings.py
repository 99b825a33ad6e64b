"""Findings as data: sections of tables, read and written as JSON.

``reco fit`` writes ``findings.json`` into its folder; ``reco_plugin.report`` draws pages of it and computes nothing.
Shares and their differences are from 0 to 1 everywhere; only the report turns them into per cent and points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DataError
from ..files import whole_file
from ..measure.statistics import Interval
from ..values import in_words

CellKind: TypeAlias = Literal["text", "count", "percent", "points", "number", "milliseconds", "bytes"]
"""percent: a share. points: a difference of shares. number: anything else."""
Cell: TypeAlias = str | int | float | Interval | None
"""An interval is (mean, low, high)."""


class Frozen(BaseModel):
    """Values that are read and written as JSON and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(Frozen):
    """One column: the key of its cells in every row, its title, and the format of its cells."""

    key: str
    title: str
    kind: CellKind = "text"


class Table(Frozen):
    """Rows under columns; a row lacks the keys that do not apply to it."""

    title: str  # may be empty
    columns: tuple[Column, ...]  # from left to right
    rows: tuple[dict[str, Cell], ...]  # column key -> cell
    best: tuple[str, ...] = ()  # keys of columns in which the highest cell is emphasised


class Section(Frozen):
    """One question and its answer, in tables."""

    key: str  # stable identifier: main, retrieval, ablations, baselines, harm, gate, cost, …
    title: str  # the question
    about: str  # one paragraph: method, and how to read the results
    tables: tuple[Table, ...] = ()


class RankedCandidate(Frozen):
    """One candidate of a ranking."""

    name: str
    similarity: float
    true: bool


class RunFile(Frozen):
    """Values in one file of a run's folder."""

    file: ClassVar[str]
    absent: ClassVar[str]  # what to do where there is no such file
    again: ClassVar[str]  # what to do where it is damaged

    def write(self, folder: Path) -> Path:
        """Write the file atomically; returns its path."""
        path = folder / self.file
        with whole_file(path) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: no such file there, or a damaged one.
        """
        path = folder / cls.file
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder} holds no {cls.file}: {cls.absent}") from error
        except ValidationError as error:
            raise DataError(f"{path} cannot be read: {_field(error)}. {cls.again}") from error


def _field(error: ValidationError) -> str:
    """The first field that is wrong, and why."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"it is no JSON: {first['ctx']['error']}"
    return f"{'.'.join(map(str, first['loc'])) or 'it'} {in_words(first['msg'])}"


class Findings(RunFile):
    """All findings of a run."""

    file: ClassVar[str] = "findings.json"
    absent: ClassVar[str] = "give the folder of a `reco fit`; an interrupted one goes on when started again"
    again: ClassVar[str] = "Run it again"

    name: str  # of the data set
    command: str  # that reproduces it
    setup: dict[str, Any]  # counts, model, memory, versions
    summary: tuple[str, ...]  # sentences with the main figures
    sections: tuple[Section, ...]  # in reading order
