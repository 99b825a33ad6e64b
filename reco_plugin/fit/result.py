"""Result of a fit: written last, as ``fit.json``, so that a folder with it is complete."""

from __future__ import annotations

from typing import Any, ClassVar

from ..evaluate.findings import Frozen, RunFile
from ..evaluate.intervals import Interval
from .config import FitConfig, FitSide, TaskName

RESULT = "fit.json"


class SideResult(Frozen):
    """One side of one candidate on validation; see :class:`reco_plugin.fit.choose.Verdict`."""

    side: FitSide
    gain: Interval
    loss: float
    helps: bool


class CandidateResult(Frozen):
    """One candidate on validation."""

    name: str
    k: int
    gate: str
    sides: tuple[SideResult, ...]


class TestLine(Frozen):
    """One method on one task of the test part."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    task: TaskName
    way: str  # ``frozen``, ``baseline`` or ``chosen``
    label: str  # readable
    queries: int
    recall: dict[int, float]  # k -> share of queries with a true result among the first k
    gain: Interval | None = None  # in recall at 1 over frozen
    ahead: Interval | None = None  # of the chosen candidate over the best baseline, in recall at 1
    loss: Interval | None = None  # change of recall at 1 where the memory holds no answer


class FitResult(RunFile):
    """The decision, and the figures behind it."""

    file: ClassVar[str] = RESULT
    absent: ClassVar[str] = "the run was not finished, start it again"
    again: ClassVar[str] = "Run the fit again"

    config: FitConfig
    source_digest: str  # of vectors, ids and payloads
    encoder: str  # fingerprint
    counts: dict[str, int]  # pairs, groups and queries of the parts
    candidates: tuple[CandidateResult, ...]  # on validation
    chosen: str | None  # label of the best candidate; None where none helps
    refine: tuple[FitSide, ...]  # sides that the model refines by default
    withdrawn: tuple[FitSide, ...]  # sides chosen on validation that the test part does not confirm
    test: tuple[TestLine, ...]  # measured once
    words: tuple[str, ...]  # the decision in sentences
    notes: tuple[str, ...]  # on the limits of the figures
    graphs: dict[str, str]  # name -> sha256 of the model's graphs
    versions: dict[str, str]  # of the packages that made the figures

    @property
    def helps(self) -> bool:
        """Whether anything is refined."""
        return bool(self.refine)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like values."""
        return self.model_dump(mode="json")
