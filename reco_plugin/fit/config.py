"""Configuration of a fit, all that is needed to reproduce it; and its result: a folder with one is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from ..defaults import BATCH, MAX_LOSS, SAME_IMAGE, STEPS
from ..errors import ConfigError
from ..evaluate.findings import Frozen, RunFile
from ..measure.statistics import Interval
from ..run_config import RunConfig, option

FusersToTry: TypeAlias = Literal["auto", "all", "reco", "paper"]
FitSide: TypeAlias = Literal["text", "image", "names"]
"""The sides of a fit: text queries, image queries, and class names, which compete as candidates."""
SIDES: tuple[FitSide, ...] = get_args(FitSide)
TaskName: TypeAlias = Literal["text->image", "image->text", "image->name", "text->text", "image->image"]
Goal: TypeAlias = Literal["search", "classify"]
"""search: gains of text and image queries count first. classify: gains of class names."""
KINDS: dict[str, tuple[str, ...]] = {
    "auto": ("reco",),
    "all": ("reco", "paper"),
}
"""Choices that stand for several candidates; the paper's layer takes minutes, so it is trained only on request."""
_K_GRID = (5, 10, 20)
_OF_ITS_CONFIGURATION = ("candidates", "model", "fit.json")
"""What a run writes after the vectors, which are of the encoder and the rows alone."""


class FitConfig(RunConfig):
    """One fit to a source of pairs."""

    spelled: ClassVar[str] = "reco fit"

    model: str  # folder with the encoder
    group: str | None = option(
        None, "Payload column: pairs with the same value show the same thing.", unset="the caption"
    )
    fuser: FusersToTry = option("auto", "Candidates to try. auto: all but paper, which takes minutes.")
    goal: Goal = option(
        "search", "What matters more: text and image queries, or the names that images are classified among."
    )
    k: int | None = option(None, "Neighbours per query.", ge=1, unset="tries 5, 10 and 20")
    validation: float = Field(0.15, gt=0, lt=1, description="Share of the groups that the policy is chosen on.")
    test: float = Field(0.15, gt=0, lt=1, description="Share of the groups that is measured once, at the end.")
    max_loss: float = option(MAX_LOSS, "Recall at 1 that a side may lose where the memory holds no answer.", ge=0, le=1)
    near_duplicate: float = option(SAME_IMAGE, "Image cosine from which a pair is hidden from a query.", ge=0, le=1)
    max_error_rate: float = option(0.05, "Share of rows that may be rejected before the run stops.", ge=0, le=1)
    max_pairs: int = option(200_000, "Of a larger catalogue, a sample of whole groups is used; 0: all of it.", ge=0)
    seed: int = option(0, "Seed of the split, the paper's training and the intervals.", ge=0)
    steps: int = option(STEPS, "paper: training steps.", ge=0)
    batch: int = option(BATCH, "paper: pairs per step.", ge=2)
    device: str = option("cpu", "paper: torch device.")

    @model_validator(mode="after")
    def _leaves_something(self) -> FitConfig:
        if self.validation + self.test > 0.8:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave less than a fifth to fit on: give less"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the candidates."""
        return KINDS.get(self.fuser, (self.fuser,))

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of neighbours to try."""
        return _K_GRID if self.k is None else (self.k,)

    def check(self, folder: Path) -> None:
        """Check that a run's folder is empty, holds the same configuration, or nothing but vectors yet.

        Raises:
            ConfigError: the folder is a file, or holds something else or a run of another configuration.
        """
        if not folder.is_dir() or any((folder / name).exists() for name in _OF_ITS_CONFIGURATION):
            super().check(folder)
        others = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []
        if others and not (folder / self.file).is_file():
            raise ConfigError(f"{folder} exists and is no run of `reco fit`: choose another --out")

    def claim(self, folder: Path) -> None:
        """Write ``config.json`` into a run's folder.

        Raises:
            ConfigError: see :meth:`check`.
            DataError: it cannot be written to.
        """
        self.check(folder)
        self.write(folder)


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
