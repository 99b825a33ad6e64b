"""Result of a fit: written last, as ``fit.json``, so that a folder with it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import DataError
from ..evaluate.findings import Frozen
from ..evaluate.intervals import Interval
from ..files import whole_file
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


class FitResult(Frozen):
    """The decision, and the figures behind it."""

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

    def write(self, folder: Path) -> None:
        """Write ``fit.json``."""
        with whole_file(folder / RESULT) as part:
            part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> FitResult:
        """Read it back.

        Raises:
            DataError: the run did not finish, or the file is damaged.
        """
        path = folder / RESULT
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{folder} holds no {RESULT}: the run was not finished, start it again") from error
        except ValidationError as error:
            raise DataError(f"{path} cannot be read: {error.errors()[0]['msg']}. Run the fit again") from error
