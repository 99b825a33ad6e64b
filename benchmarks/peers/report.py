"""What was seen, as figures, as a table, and as what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reco_plugin.types import Modality

from ..page import table
from .callers import Seen
from .servers import INFINITY, OURS

LEAST_COSINE = {"fp32": 0.999, "int8": 0.98}


@dataclass(frozen=True)
class Case:
    """What is asked at a time."""

    modality: Modality
    items: int  # of a request
    callers: int

    def __str__(self) -> str:
        return f"{self.modality} × {self.items}, {self.callers} callers"


@dataclass(frozen=True)
class Cell:
    """A service in a case: rate, latencies and processor time of its best round; the rest is of all rounds."""

    service: str
    case: Case
    rate: float  # items a second
    p50: float  # seconds
    p99: float
    cpu: float  # seconds of a request, of all processes of the service
    callers_cpu: float  # seconds of a request, of the callers
    ram: int  # bytes, most
    cosine: float
    mistaken: int
    failures: tuple[str, ...]

    @classmethod
    def of(cls, service: str, case: Case, rounds: Sequence[tuple[Seen, float]], ram: int) -> Cell:
        """Make a cell of rounds: what was seen, and the service's seconds of processor time."""
        failures = tuple(why for seen, _ in rounds for why in seen.failures)
        good = [each for each in rounds if each[0].requests]
        if not good:
            no = float("nan")
            return cls(service, case, 0.0, no, no, no, no, ram, no, 0, failures or ("no answer",))
        best, spent = max(good, key=lambda each: each[0].requests / each[0].seconds)
        return cls(
            service,
            case,
            best.requests * case.items / best.seconds,
            best.p50,
            best.p99,
            spent / best.requests,
            best.callers_cpu / best.requests,
            ram,
            min(seen.cosine for seen, _ in good),
            sum(seen.mistaken for seen, _ in good),
            failures,
        )

    def line(self) -> str:
        """For those who wait."""
        return f"{self.case}: {self.service}: {self.rate:.1f}/s, p99 {1000 * self.p99:.0f} ms, cosine {self.cosine:.5f}"

    def figures(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "service": self.service,
            "modality": self.case.modality,
            "items": self.case.items,
            "callers": self.case.callers,
            "items_per_second": round(self.rate, 2),
            "p50_ms": round(1000 * self.p50, 1),
            "p99_ms": round(1000 * self.p99, 1),
            "cpu_ms_a_request": round(1000 * self.cpu, 2),
            "callers_cpu_ms_a_request": round(1000 * self.callers_cpu, 2),
            "ram_mib": round(self.ram / 2**20),
            "least_cosine": round(self.cosine, 6),
            "mistaken": self.mistaken,
            "failures": len(self.failures),
        }


def told(cells: Sequence[Cell]) -> str:
    """A table: rates and processor time in terms of infinity's in the same case, and the least ratios of ours."""
    base = {cell.case: cell for cell in cells if cell.service == INFINITY and cell.rate}
    rows = [
        [
            f"{cell.case.callers}",
            cell.service,
            f"{cell.rate:,.1f}",
            _ratio(cell.rate, base[cell.case].rate if cell.case in base else 0),
            f"{1000 * cell.p50:,.0f}",
            f"{1000 * cell.p99:,.0f}",
            f"{1000 * cell.cpu:,.1f}",
            _ratio(cell.cpu, base[cell.case].cpu if cell.case in base else 0),
            f"{cell.ram / 2**20:,.0f}",
            f"{cell.cosine:.5f}",
        ]
        for cell in cells
    ]
    head = ["callers", "service", "items a second", "÷ infinity", "p50 ms", "p99 ms", "CPU ms a request", "÷ infinity"]
    head += ["RAM, MiB", "cosine"]
    text = table(head, rows, left=2)
    least = {name: least_ratio(cells, name) for name in OURS}
    if any(least.values()):
        said = ", ".join(f"{name.removeprefix('ours, ')} {value:.2f}" for name, value in least.items() if value)
        text += f"\n\nLeast of ours ÷ infinity: {said}."
    return text


def least_ratio(cells: Sequence[Cell], service: str) -> float | None:
    """Least rate of a service in terms of infinity's in the same case; None where no case has both."""
    base = {cell.case: cell.rate for cell in cells if cell.service == INFINITY and cell.rate}
    return min(
        (cell.rate / base[cell.case] for cell in cells if cell.service == service and cell.case in base), default=None
    )


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "–"


def check(cells: Sequence[Cell]) -> list[str]:
    """What is wrong: answers that are missing, too far from the right ones, or another item's."""
    found = []
    for cell in cells:
        least = LEAST_COSINE[OURS.get(cell.service, "fp32")]
        if cell.failures:
            found.append(f"{cell.case}: {cell.service}: {len(cell.failures)} failed, the first: {cell.failures[0]}")
        if cell.mistaken:
            found.append(f"{cell.case}: {cell.service}: {cell.mistaken} answers are nearer to another item's")
        if not (cell.cosine >= least or cell.failures):
            found.append(f"{cell.case}: {cell.service}: a cosine of {cell.cosine:.5f}, below {least}")
    return found
