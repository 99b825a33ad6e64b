"""``reco eval --tune``: choose k, coverage and sides on one part of the classes, and test each direction on another.

What is written is the policy that was tested. It needs labels: a wrong caption would both teach and count as right, and
a policy that follows it would pass its test. Torch is needed only where the paper's layer is tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..defaults import BATCH, STEPS
from ..encoders.model_folder import FORMAT, Artifact, FusionInfo, Policy, whole_model, write_manifest
from ..errors import importing
from ..fusion.base import Fuser
from ..fusion.refiner import Refiner
from ..options import RefineDefaults
from ..types import Modality, Role
from .evaluate import MEASURED, Askers, Direction
from .ranking import SIDES, Side, Task, measure_sides, refine_task
from .record import Line, Record, Verdict
from .statistics import Figures, Interval, bootstrap, compare_pairs, points

if TYPE_CHECKING:
    from ..export.train_layer import Fusions

KS = (5, 10, 20)
COVERAGES = (0.5, 0.9)
MAX_LOSS = 0.05
"""Share of things of which more results get worse than better where the memory lacks them, at the upper end."""


@dataclass(frozen=True)
class TunePolicy:
    """One policy to try.

    Attributes:
        k: neighbours.
        coverage: of the closed form; None: nobody said.
        sides: that are refined in each direction; those that are not named stay plain.
        fuser: of the paper's layer; None: the closed form.
    """

    k: int
    coverage: float | None
    sides: Mapping[Direction, Side]
    fuser: Fuser | None = None

    @property
    def how(self) -> str:
        """What refines, for people."""
        return "the paper's layer" if self.fuser is not None else f"coverage {self.coverage}"

    def __str__(self) -> str:
        sides = " and ".join(f"{side} ({direction})" for direction, side in self.sides.items())
        return f"k {self.k}, {self.how}, refined: {sides or 'nothing'}"

    def to_policy(self) -> Policy:
        """Defaults of a model."""
        queries, candidates = set[Modality](), set[Modality]()
        for direction, side in self.sides.items():
            asks, _, searched = direction.partition("->")
            queries |= {asks} if side in (asks, "both") else set()  # type: ignore[arg-type]  # a direction's are modalities
            candidates |= {searched} if side in (searched, "both") else set()  # type: ignore[arg-type]
        roles: dict[Role, tuple[Modality, ...]] = {
            "query": tuple(sorted(queries)),
            "candidate": tuple(sorted(candidates)),
        }
        return Policy(k=self.k, gate=self.fuser is None, coverage=self.coverage, refine=roles)


@dataclass(frozen=True)
class DirectionTest:
    """How one direction of the chosen policy was tested, on things that it was not chosen on.

    Attributes:
        line: its figures.
        loss: share of the things that lose where the memory holds no answer, with its exact interval.
        ships: whether it surely gains and loses no more than allowed at the interval's upper end.
    """

    line: Line
    loss: Interval
    ships: bool


@dataclass(frozen=True)
class Tuned:
    """The policy that was chosen, the test of each of its directions, and how many were tried."""

    policy: TunePolicy
    tried: int
    tests: Mapping[Direction, DirectionTest]
    max_loss: float

    @property
    def shipped(self) -> TunePolicy:
        """The policy with the directions that ship alone."""
        kept = {direction: side for direction, side in self.policy.sides.items() if self.tests[direction].ships}
        return replace(self.policy, sides=kept)

    @property
    def ships(self) -> bool:
        """Whether any direction does."""
        return bool(self.shipped.sides)

    def verdicts(self, model: Path | None) -> list[Verdict]:
        """A decision for each direction; ``model`` is the folder that was written."""
        if not self.tests:
            return [Verdict("leave", "labels", f"Plain is best of {self.tried} policies, and no model was written.")]
        settings = {**self.shipped.to_policy().model_dump(mode="json"), "model": str(model)} if model else {}
        return [self._verdict(direction, one, settings) for direction, one in self.tests.items()]

    def _verdict(self, direction: Direction, one: DirectionTest, settings: Mapping[str, Any]) -> Verdict:
        change, what = one.line.change, f"{self.policy.sides[direction]} ({direction})"
        assert change is not None  # noqa: S101 - it was tested
        figures = (
            f"{points(change.interval)} points of queries whose first result is right, on things that did not choose "
            f"it. Where the memory holds no answer, at most {100 * one.loss.high:.1f} of 100 things lose, and "
            f"{100 * self.max_loss:.1f} are allowed"
        )
        how = f"k {self.policy.k}, {self.policy.how}"
        if one.ships:
            head = f"Refine {what} with the model {settings['model']} ({how}, the best of {self.tried})"
            return Verdict("refine", "labels", f"{head}: {figures}.", change, settings)
        few = change.effect == "too few" and change.interval.high >= 0
        if change.sure or few:
            why = f"only {change.changed} of its queries change" if few else "more may be lost than is allowed"
            more = "Give pictures of more things" + ("" if few else ", or a larger --max-loss")
            sentence = f"Not known for {what}, because {why} ({how}): {figures}. {more}."
            return Verdict("not known", "labels", sentence, change)
        return Verdict("leave", "labels", f"Leave {what} plain; the best of {self.tried} ({how}): {figures}.", change)


@dataclass(frozen=True)
class _Tried:
    """A direction on one part of those who ask: side -> (n,) whether the first result is right, and things (n,).

    Attributes:
        known, unknown: while the memory holds other pairs of their things, and while it does not; ``frozen`` is plain.
    """

    known: Mapping[str, Figures]
    unknown: Mapping[str, Figures]
    things: Sequence[str]

    def gain(self, side: Side) -> Figures:
        """(n,) the change by a side."""
        return self.known[side] - self.known["frozen"]

    def best(self, max_loss: float) -> tuple[float, Side | None]:
        """The side that gains most of those that lose no more than allowed, and its gain; None: plain."""
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

        groups = np.unique(np.asarray(self.things), return_inverse=True)[1]
        gain, lost = self.gain(side), self.unknown[side] - self.unknown["frozen"]
        change = compare_pairs(gain, groups, seed=seed)
        each = np.bincount(groups, lost)
        losing = binomtest(int((each < 0).sum()), len(each))
        loss = Interval(float(losing.statistic), *map(float, losing.proportion_ci()))
        shares = float((gain > 0).mean()), float((gain < 0).mean())
        values = {"plain": float(self.known["frozen"].mean()), "refined": float(self.known[side].mean())}
        without = bootstrap(lost, groups, seed=seed)
        line = Line(name, len(gain), values, change, *shares, unknown=without)
        return DirectionTest(line, loss, change.sure and loss.high <= max_loss)


def tune(
    asking: Askers,
    *,
    max_loss: float = MAX_LOSS,
    seed: int = 0,
    fusers: Sequence[Fuser] = (),
    refine: RefineDefaults | None = None,
) -> Tuned:
    """Choose on the pairs that ask of one part of the classes, and test each direction by itself on the others.

    Args:
        asking: a source with labels that asks itself.
        max_loss: share of things, from 0 to 1.
        seed: of the intervals.
        fusers: of the paper's layer, to try beside the closed form.
        refine: options beside those that are tried: the settings of the service.
    """
    options: Any = {name: value for name, value in (refine or {}).items() if name in ("words", "presence")}
    ways = [TunePolicy(k, coverage, {}) for k in KS for coverage in COVERAGES]
    ways += [TunePolicy(KS[1], None, {}, fuser) for fuser in fusers]
    tried, best, gained = 0, ways[0], -1.0
    for way in ways:
        found = {
            direction: part.best(max_loss) for direction, part in _measure(asking, ~asking.test, way, options).items()
        }
        tried += sum(len(MEASURED[direction]) for direction in found)
        if (gain := sum(one for one, _ in found.values())) > gained:
            sides = {direction: side for direction, (_, side) in found.items() if side is not None}
            best, gained = replace(way, sides=sides), gain
    parts = _measure(asking, asking.test, best, options) if best.sides else {}
    tests = {
        direction: parts[direction].test(f"tested: {direction}, {side}", side, max_loss, seed)
        for direction, side in best.sides.items()
    }
    return Tuned(best, tried, tests, max_loss)


def _measure(asking: Askers, part: Any, way: TunePolicy, options: Any) -> dict[Direction, _Tried]:
    """Each direction that a policy has, on a part of those who ask, (Q,)."""
    assert asking.memory is not None  # noqa: S101 - it asks itself
    fuser = way.fuser
    memory = asking.memory.at(way.k) if fuser is None else asking.memory.plain
    refiner = Refiner(memory, fuser, k=way.k, gate=fuser is None, coverage=way.coverage, **options)
    known, unknown = asking.tasks(part), asking.tasks(part, known=False)

    def first(task: Task, sides: Sequence[Side]) -> dict[str, Figures]:
        refined = refine_task(refiner, task, sides)
        return {side: one.top(1) for side, one in measure_sides(task, refined, sides).items()}

    return {
        direction: _Tried(
            first(known[direction], MEASURED[direction]),
            first(unknown[direction], MEASURED[direction]),
            [known[direction].classes[label] for label in known[direction].queries.labels.tolist()],
        )
        for direction in ("text->image", "image->text")
    }


def choose(
    record: Record,
    asking: Askers,
    base: Artifact,
    out: Path,
    *,
    max_loss: float,
    seed: int,
    paper: bool,
    refine: RefineDefaults,
) -> Record:
    """Choose a policy, test it, write it as the folder ``model`` of ``out`` if it ships, and put it into the record.

    Raises:
        MissingExtra: ``paper``, which also tries the paper's layer, without torch.
        ArtifactError: the model cannot be written.
    """
    layer, fusers = None, []
    if paper:
        layer = train_layer(asking, out, seed)
        from ..export.train_layer import TorchFuser

        fusers.append(TorchFuser(layer))
    found = tune(asking, max_loss=max_loss, seed=seed, fusers=fusers, refine=refine)
    if not found.ships:
        return add_to(record, found, None)
    folder, policy, trained_on = out / "model", found.shipped.to_policy(), f"reco eval {asking.things.name}"
    if found.policy.fuser is None:
        write_model(base, policy, folder, trained_on)
    else:
        from ..export.onnx_export import refit

        refit(base, layer, folder, policy=policy, trained_on=trained_on)
    return add_to(record, found, folder)


def add_to(record: Record, tuned: Tuned, model: Path | None) -> Record:
    """The record with what was chosen in place of its decisions; ``model`` is the folder that was written."""
    lines = [*record.lines, *(one.line for one in tuned.tests.values())]
    return replace(record, verdicts=tuned.verdicts(model), lines=lines)


def write_model(base: Artifact, policy: Policy, out: Path, trained_on: str) -> None:
    """Write a model folder: the files of another one, with another policy, refined by the closed form.

    Raises:
        ArtifactError: ``out`` exists and is no model folder, or cannot be written; nothing is written.
    """
    manifest = base.manifest
    fusion = FusionInfo(fuser="reco", config=manifest.fusion.config, trained_on=trained_on)
    changed = manifest.model_copy(update={"format": FORMAT, "policy": policy, "fusion": fusion})
    with whole_model(out) as folder:
        if base.folder.is_dir():  # of an API there is none
            shutil.copytree(base.folder, folder, dirs_exist_ok=True)
        write_manifest(folder, changed)


def train_layer(asking: Askers, out: Path, seed: int) -> Fusions:
    """Train the paper's layer on the memory's pairs.

    Raises:
        MissingExtra: torch is not installed.
    """
    with importing(None, "train", "the paper's layer"):
        from ..export.train_layer import FusionConfig, TrainConfig, train_fusions
        from ..export.training_data import gather
    assert asking.memory is not None  # noqa: S101 - it asks itself
    pairs = asking.memory.pairs
    thing_of = dict(zip(asking.things.pairs.ids, asking.things.things, strict=True))
    data = gather(asking.memory.store, pairs, KS[1], [thing_of[id_] for id_ in pairs.ids])
    config = FusionConfig(data.pairs.image.shape[1])
    return train_fusions(data, config, out / "paper", TrainConfig(steps=STEPS, batch=BATCH, seed=seed))
