"""From outcomes to figures, and the page that states them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from ..machine import machine
from .traffic import Outcome, Traffic, Verdict

MIB = 2**20


@dataclass(frozen=True)
class Latency:
    """Of one kind of request; times in seconds."""

    kind: str
    requests: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True)
class Figures:
    """One run.

    Attributes:
        seconds: that the run took.
        verdicts: how many requests ended how.
        latencies: per kind, of requests that were answered, all together first.
        resident: mean bytes of the process in each quarter of the run.
        pairs_added: to the memory meanwhile.
        pairs_removed: likewise.
        write_failures: writes that were not done.
    """

    seconds: float
    verdicts: dict[str, int]
    latencies: tuple[Latency, ...]
    resident: tuple[float, float, float, float]
    pairs_added: int
    pairs_removed: int
    write_failures: int

    @property
    def per_second(self) -> float:
        """Requests that were answered."""
        return self.latencies[0].requests / self.seconds


def figures(seen: Traffic, seconds: float, resident: Sequence[tuple[float, int]]) -> Figures:
    """Sum up a run."""
    answered = [one for one in seen.outcomes if one.verdict in ("right", "degraded", "wrong")]
    kinds = sorted({one.kind for one in answered})
    groups = [("all", answered), *((kind, [one for one in answered if one.kind == kind]) for kind in kinds)]
    return Figures(
        seconds,
        dict(Counter(one.verdict for one in seen.outcomes)),
        tuple(_latency(kind, group) for kind, group in groups),
        _quarters(resident),
        seen.pairs_added,
        seen.pairs_removed,
        len(seen.write_failures),
    )


def _latency(kind: str, outcomes: Sequence[Outcome]) -> Latency:
    p50, p99 = np.percentile([one.seconds for one in outcomes], [50, 99]) if outcomes else (np.nan, np.nan)
    return Latency(kind, len(outcomes), float(p50), float(p99))


def _quarters(resident: Sequence[tuple[float, int]]) -> tuple[float, float, float, float]:
    """Mean of the samples of each quarter.

    >>> _quarters([(0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11), (6, 13), (7, 15)])
    (2.0, 6.0, 10.0, 14.0)
    """
    parts = np.array_split(np.array([float(size) for _, size in resident] or [np.nan]), 4)
    first, second, third, fourth = (float(part.mean()) if len(part) else float("nan") for part in parts)
    return first, second, third, fourth


def page(found: Figures, *, command: str, callers: int, pairs: int) -> str:
    """The run as Markdown."""
    rows = [
        f"| {one.kind} | {one.requests:,} | {one.requests / found.seconds:.1f} "
        f"| {1000 * one.p50_s:.0f} | {1000 * one.p99_s:.0f} |"
        for one in found.latencies
    ]
    return (
        Path(__file__)
        .with_name("page.md")
        .read_text(encoding="utf-8")
        .format(
            command=command,
            callers=callers,
            seconds=found.seconds,
            pairs=pairs,
            latencies="\n".join(rows),
            added=found.pairs_added,
            removed=found.pairs_removed,
            write_failures=found.write_failures,
            resident=", ".join(f"{size / MIB:.0f}" for size in found.resident),
            machine=machine(load=False),
            load=os.getloadavg()[0],
            **{verdict: found.verdicts.get(verdict, 0) for verdict in get_args(Verdict)},
        )
    )
