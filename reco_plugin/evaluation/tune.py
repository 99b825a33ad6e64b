"""``reco eval --tune``: choose k, coverage and sides on one part of the labels; test each direction on another part.

The policy that was tested is written. Tuning needs labels: a wrong caption would both teach and count as right, and a
policy that follows it would pass its test.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..encoders.model_folder import FORMAT, Artifact, FusionInfo, Policy, whole_model, write_manifest
from ..options import RefineDefaults
from ..types import Modality, Role
from .evaluate import MEASURED, Direction, DirectionOutcome, QuerySplit, make_refiner, measure_directions
from .ranking import Side
from .record import Line, Record, Verdict
from .statistics import Interval, points

KS = (5, 10, 20)
COVERAGES = (0.5, 0.9)
DIRECTIONS: tuple[Direction, ...] = ("text->image", "image->text")
MAX_LOSS = 0.05
"""Upper bound of the share of labels that lose if the memory does not know them."""


@dataclass(frozen=True)
class DirectionTest:
    """The test of one direction of the chosen policy.

    Attributes:
        side: that is refined.
        line: its figures.
        loss: share of the labels that lose if the memory does not know them, with its exact interval.
        ships: whether the gain is significant, and the upper bound of the loss is allowed.
    """

    side: Side
    line: Line
    loss: Interval
    ships: bool


@dataclass(frozen=True)
class TuneResult:
    """The chosen k and coverage, the number of policies tried, and the test of each direction that gained."""

    k: int
    coverage: float
    tried: int
    tests: Mapping[Direction, DirectionTest]
    max_loss: float

    @property
    def shipped(self) -> dict[Direction, Side]:
        """Sides to refine in the directions that passed their test."""
        return {direction: one.side for direction, one in self.tests.items() if one.ships}

    def policy(self) -> Policy:
        """The policy of a model folder that refines what passed its test."""
        queries, candidates = set[Modality](), set[Modality]()
        for direction, side in self.shipped.items():
            query, _, candidate = direction.partition("->")
            queries |= {query} if side in (query, "both") else set()  # type: ignore[arg-type]  # both are modalities
            candidates |= {candidate} if side in (candidate, "both") else set()  # type: ignore[arg-type]
        roles: dict[Role, tuple[Modality, ...]] = {
            "query": tuple(sorted(queries)),
            "candidate": tuple(sorted(candidates)),
        }
        return Policy(k=self.k, gate=True, coverage=self.coverage, refine=roles)

    def add_to(self, record: Record, model: Path | None) -> Record:
        """Replace the verdicts of a record and add the tested lines; ``model`` is the folder that was written."""
        lines = [*record.lines, *(one.line for one in self.tests.values())]
        return replace(record, verdicts=self.verdicts(model), lines=lines)

    def verdicts(self, model: Path | None) -> list[Verdict]:
        """A decision for each direction."""
        if not self.tests:
            return [Verdict("leave", "labels", f"Plain is best of {self.tried} policies, and no model was written.")]
        settings = {**self.policy().model_dump(mode="json"), "model": str(model)} if model else {}
        return [self._verdict(direction, one, settings) for direction, one in self.tests.items()]

    def _verdict(self, direction: Direction, test: DirectionTest, settings: Mapping[str, Any]) -> Verdict:
        change, what = test.line.change, f"{test.side} ({direction})"
        figures = (
            f"{points(change.interval)} points of queries whose first result is right, on things that did not choose "
            f"it. Where the memory holds no answer, at most {100 * test.loss.high:.1f} of 100 things lose, and "
            f"{100 * self.max_loss:.1f} are allowed"
        )
        options = f"k {self.k}, coverage {self.coverage}"
        if test.ships:
            head = f"Refine {what} with the model {settings['model']} ({options}, the best of {self.tried})"
            return Verdict("refine", "labels", f"{head}: {figures}.", change, settings)
        few = change.effect == "too few" and change.interval.high >= 0
        if change.is_gain or few:
            why = f"only {change.changed} of its queries change" if few else "more may be lost than is allowed"
            more = "Give pictures of more things" + ("" if few else ", or a larger --max-loss")
            sentence = f"Not known for {what}, because {why} ({options}): {figures}. {more}."
            return Verdict("not known", "labels", sentence, change)
        sentence = f"Leave {what} plain; the best of {self.tried} ({options}): {figures}."
        return Verdict("leave", "labels", sentence, change)


def tune(
    split: QuerySplit, *, max_loss: float = MAX_LOSS, seed: int = 0, refine: RefineDefaults | None = None
) -> TuneResult:
    """Choose on one part of the queries, and test each direction by itself on the other part.

    ``max_loss`` is a share of labels. ``refine`` has the service's settings of the options that are not tried.
    """
    options: Any = {name: value for name, value in (refine or {}).items() if name in ("words", "presence")}

    def measure(part: npt.NDArray[np.bool_], k: int, coverage: float) -> dict[Direction, DirectionOutcome]:
        return measure_directions(split, make_refiner(split, k, coverage=coverage, **options), part, DIRECTIONS)

    tried, best_gain, sides, (k, coverage) = 0, -1.0, dict[Direction, Side](), (KS[0], COVERAGES[0])
    for policy in product(KS, COVERAGES):
        choices = {name: _best_side(outcome, max_loss) for name, outcome in measure(~split.test, *policy).items()}
        tried += sum(len(MEASURED[direction]) for direction in choices)
        if (gain := sum(one for one, _ in choices.values())) > best_gain:
            best_gain, (k, coverage) = gain, policy
            sides = {direction: side for direction, (_, side) in choices.items() if side is not None}
    outcomes = measure(split.test, k, coverage) if sides else {}
    tests = {direction: _test(outcomes[direction], side, max_loss, seed) for direction, side in sides.items()}
    return TuneResult(k, coverage, tried, tests, max_loss)


def _best_side(outcome: DirectionOutcome, max_loss: float) -> tuple[float, Side | None]:
    """The largest mean gain of a side that loses no more than allowed, and the side; None: plain is best."""
    unknown = outcome.unknown
    gains = {
        side: float(outcome.gain(side).mean())
        for side in MEASURED[outcome.direction]
        if (unknown["frozen"] - unknown[side]).mean() <= max_loss
    }
    best = max(gains, key=lambda side: gains[side], default=None)
    return (gains[best], best) if best is not None and gains[best] > 0 else (0.0, None)


def _test(outcome: DirectionOutcome, side: Side, max_loss: float, seed: int) -> DirectionTest:
    """Test a side, once."""
    from scipy.stats import binomtest

    line = outcome.line(f"tested: {outcome.direction}, {side}", side, seed=seed)
    of_label = np.bincount(outcome.plain.groups, outcome.unknown[side] - outcome.unknown["frozen"])
    losing = binomtest(int((of_label < 0).sum()), len(of_label))
    loss = Interval(float(losing.statistic), *map(float, losing.proportion_ci()))
    return DirectionTest(side, line, loss, line.change.is_gain and loss.high <= max_loss)


def tune_model(
    record: Record,
    split: QuerySplit,
    base: Artifact,
    out: Path,
    *,
    max_loss: float,
    seed: int,
    refine: RefineDefaults,
) -> Record:
    """Tune, write the policy to the folder ``model`` of ``out`` if a direction ships, and add both to the record.

    Raises:
        ArtifactError: the model cannot be written.
    """
    result = tune(split, max_loss=max_loss, seed=seed, refine=refine)
    if not result.shipped:
        return result.add_to(record, None)
    write_model(base, result.policy(), out / "model", f"reco eval {split.source.name}")
    return result.add_to(record, out / "model")


def write_model(base: Artifact, policy: Policy, out: Path, trained_on: str) -> None:
    """Write a copy of a model folder with another policy and the closed form.

    Raises:
        ArtifactError: ``out`` exists and is no model folder, or cannot be written; nothing is written.
    """
    manifest = base.manifest
    fusion = FusionInfo(fuser="reco", config=manifest.fusion.config, trained_on=trained_on)
    changed = manifest.model_copy(update={"format": FORMAT, "policy": policy, "fusion": fusion})
    with whole_model(out) as folder:
        if base.folder.is_dir():  # an embedding API has none
            shutil.copytree(base.folder, folder, dirs_exist_ok=True)
        write_manifest(folder, changed)
