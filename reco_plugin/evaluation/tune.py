"""``reco eval --tune``: choose k, coverage and sides on one part of the labels; test each direction on another part.

The policy that was tested is written. Tuning needs labels: a wrong caption would both teach and count as right, and a
policy that follows it would pass its test.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders.model_folder import FORMAT, Artifact, FusionInfo, Policy, whole_model, write_manifest
from ..fusion.refiner import Refiner
from ..options import RefineDefaults
from ..types import Modality, Role
from .evaluate import MEASURED, Direction, QuerySplit
from .ranking import SIDES, Side, Task, hits_at, rank_sides, refine_task
from .record import Line, Record, Verdict
from .statistics import Figures, Interval, bootstrap, compare_pairs, points

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


@dataclass(frozen=True)
class _TuneOutcome:
    """One direction on one part of the queries, (n,).

    Attributes:
        known: side -> whether the first result is right; ``frozen`` is plain.
        unknown: the same if the memory does not know the query's label.
        labels: n.
    """

    known: Mapping[str, Figures]
    unknown: Mapping[str, Figures]
    labels: Sequence[str]

    def gain(self, side: Side) -> Figures:
        """Change by refining a side, (n,)."""
        return self.known[side] - self.known["frozen"]

    def best(self, max_loss: float) -> tuple[float, Side | None]:
        """The largest mean gain of a side that loses no more than allowed, and the side; None: plain is best."""
        allowed = [
            (float(self.gain(side).mean()), side)
            for side in SIDES
            if side in self.known and (self.unknown["frozen"] - self.unknown[side]).mean() <= max_loss
        ]
        gain, chosen = max(allowed, key=lambda one: one[0], default=(0.0, None))
        return (gain, chosen) if gain > 0 else (0.0, None)

    def test(self, name: str, side: Side, max_loss: float, seed: int) -> DirectionTest:
        """Test a side, once."""
        from scipy.stats import binomtest

        groups = np.unique(np.asarray(self.labels), return_inverse=True)[1]
        gain, lost = self.gain(side), self.unknown[side] - self.unknown["frozen"]
        change = compare_pairs(gain, groups, seed=seed)
        of_label = np.bincount(groups, lost)
        losing = binomtest(int((of_label < 0).sum()), len(of_label))
        loss = Interval(float(losing.statistic), *map(float, losing.proportion_ci()))
        shares = float((gain > 0).mean()), float((gain < 0).mean())
        values = {"plain": float(self.known["frozen"].mean()), "refined": float(self.known[side].mean())}
        line = Line(name, len(gain), values, change, *shares, unknown=bootstrap(lost, groups, seed=seed))
        return DirectionTest(side, line, loss, change.is_gain and loss.high <= max_loss)


def tune(
    split: QuerySplit, *, max_loss: float = MAX_LOSS, seed: int = 0, refine: RefineDefaults | None = None
) -> TuneResult:
    """Choose on one part of the queries, and test each direction by itself on the other part.

    Args:
        split: of a labelled source, with its own memory.
        max_loss: share of labels, from 0 to 1.
        seed: of the intervals.
        refine: settings of the service, for the options that are not tried.
    """
    options: Any = {name: value for name, value in (refine or {}).items() if name in ("words", "presence")}
    tried, best_gain, sides, (k, coverage) = 0, -1.0, dict[Direction, Side](), (KS[0], COVERAGES[0])
    for policy in product(KS, COVERAGES):
        outcomes = _measure(split, ~split.test, *policy, options)
        choices = {direction: outcome.best(max_loss) for direction, outcome in outcomes.items()}
        tried += sum(len(MEASURED[direction]) for direction in choices)
        if (gain := sum(one for one, _ in choices.values())) > best_gain:
            best_gain, (k, coverage) = gain, policy
            sides = {direction: side for direction, (_, side) in choices.items() if side is not None}
    outcomes = _measure(split, split.test, k, coverage, options) if sides else {}
    tests = {
        direction: outcomes[direction].test(f"tested: {direction}, {side}", side, max_loss, seed)
        for direction, side in sides.items()
    }
    return TuneResult(k, coverage, tried, tests, max_loss)


def _measure(split: QuerySplit, part: Any, k: int, coverage: float, options: Any) -> dict[Direction, _TuneOutcome]:
    """Measure each direction on a part of the queries, by mask (Q,)."""
    assert split.memory is not None  # noqa: S101 - only held-out splits are tuned
    refiner = Refiner(split.memory.at(k), None, k=k, coverage=coverage, **options)
    known, unknown = split.tasks(part), split.tasks(part, known=False)

    def first(task: Task, sides: Sequence[Side]) -> dict[str, Figures]:
        ranks = rank_sides(task, refine_task(refiner, task, sides), sides)
        return {side: hits_at(one, 1) for side, one in ranks.items()}

    return {
        direction: _TuneOutcome(
            first(known[direction], MEASURED[direction]),
            first(unknown[direction], MEASURED[direction]),
            [known[direction].classes[label] for label in known[direction].queries.labels.tolist()],
        )
        for direction in DIRECTIONS
    }


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
