"""The page of figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..markdown import table

_HEAD = Path(__file__).with_name("page.md")


def page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/measurements/reliability.md, of the rows of all classes that were run."""
    kills = {name: row for name, row in rows.items() if name.startswith("kill-")}
    return _HEAD.read_text(encoding="utf-8").format(
        all=_table(rows),
        kills=f"{sum(sum(row['tried'].values()) for row in kills.values()):,}",
        lost=f"{sum(len(row['faults']) for row in kills.values()):,}",
        commands="\n".join(row["command"] for row in rows.values()),
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
    )


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        ["class", "tried", "came to", "seen", "faults"],
        (
            [
                name,
                _counts(row["tried"])
                if len(row["tried"]) < 5
                else f"{sum(row['tried'].values()):,} of {len(row['tried'])} kinds",
                _counts(row["answers"]),
                "; ".join(f"{figure}: {value}" for figure, value in row["figures"].items()),
                f"{len(row['faults'])}",
            ]
            for name, row in rows.items()
        ),
        left=4,
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {times:,}" for name, times in counts.items())
