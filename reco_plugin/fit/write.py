"""What a run leaves: the model, the report, and the numbers in ``fit.json``."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import Artifact, Policy
from ..errors import MissingExtra
from .candidates import Way
from .catalogue import Catalogue
from .choose import Judged
from .config import FitConfig
from .findings import findings_of
from .result import CandidateResult, FitResult, SideResult
from .split import PARTS, HeldOut

if TYPE_CHECKING:
    from ..train.loop import Fusions


def write_model(base: Artifact, way: Way, policy: Policy, config: FitConfig, out: Path) -> dict[str, str]:
    """Write the model folder; returns the sha256 of each graph by its name."""
    from ..train.refit import refit

    fusions: Fusions | None = way.fusions
    assert fusions is not None  # noqa: S101 - only baselines have none, and they are not chosen
    trained_on = f"reco fit {config.source}"
    refit(base, fusions, out, policy=policy, trained_on=trained_on, image_config=way.image_config)
    return {name: graph.sha256 for name, graph in Artifact.load(out).manifest.graphs.items()}


def write_report_of(result: FitResult, out: Path) -> None:
    """The report; without its packages the findings alone, which `reco report` draws later."""
    from ..report import read_runs, write_report

    findings_of(result, out).write(out)
    try:
        write_report(read_runs([out]), out, title=f"Fit to {result.config.source}")
    except MissingExtra as error:
        warnings.warn(f"no report was drawn: {error}; then: reco report {out}", stacklevel=4)


def counts_of(catalogue: Catalogue, parts: HeldOut, asked: int) -> dict[str, int]:
    """How many pairs, groups and queries; ``asked`` are those of the test part."""
    counts = {"pairs": len(catalogue), "groups": len(set(catalogue.groups)), "rejected": catalogue.rejected}
    for part in PARTS:
        rows = parts.rows(part)
        counts |= {f"{part} pairs": len(rows), f"{part} groups": len({catalogue.groups[row] for row in rows})}
    return counts | {
        "validation pairs that ask": len(parts.queries("validation")),
        "test pairs that ask": asked,
        "groups of one pair": sum(count == 1 for count in Counter(catalogue.groups).values()),
    }


def candidate_of(one: Judged) -> CandidateResult:
    """What validation says of a candidate."""
    sides = tuple(SideResult(side=v.side, gain=v.gain, loss=v.loss, helps=v.helps) for v in one.verdicts)
    return CandidateResult(name=one.way.name, k=one.way.k, gate=one.way.gate, sides=sides)
