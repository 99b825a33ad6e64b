"""``reco eval --tune``: choose k, coverage and sides on one part of the classes, and test that one policy on another.

What is written is the policy that was tested. It needs labels: a wrong caption would both teach and count as right, and
a policy that follows it would pass its test. Torch is needed only where the paper's layer is tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import FORMAT, Artifact, FusionInfo, Policy, whole_model, write_manifest
from ..defaults import BATCH, STEPS
from ..fuse import Fuser
from ..refine import Refiner
from ..types import Modality, Role
from .evaluate import MEASURED, Askers, Direction
from .ranks import Side, Task, measure_sides, refine_task
from .record import Decision, Line, Record, Shares, Verdict
from .statistics import CHANGED, Difference, Figures, Interval, bootstrap, compare_pairs, level, points

if TYPE_CHECKING:
    from ..models.train import Fusions

KS = (5, 10, 20)
COVERAGES = (0.5, 0.9)
MAX_LOSS = 0.05
"""Share of queries whose first result may get worse where the memory holds no answer, at the interval's upper end."""
Choice = dict[Direction, Side]
"""The side that is refined in each direction; those that are not named stay plain."""


@dataclass(frozen=True)
class TunePolicy:
    """One policy to try.

    Attributes:
        k: neighbours.
        coverage: of the closed form; None: nobody said.
        sides: that are refined.
        fuser: of the paper's layer; None: the closed form.
    """

    k: int
    coverage: float | None
    sides: Choice
    fuser: Fuser | None = None

    def __str__(self) -> str:
        how = "the paper's layer" if self.fuser is not None else f"coverage {self.coverage}"
        sides = " and ".join(f"{side} ({direction})" for direction, side in self.sides.items())
        return f"k {self.k}, {how}, refined: {sides}"

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
class _Outcome:
    """What a policy gives on one part: (n,) for each query of every direction.

    Attributes:
        plain, gain: whether the first result is right, and the change of that.
        loss: how much it falls where the memory holds no answer: minus the change.
        groups: things.
    """

    plain: Figures
    gain: Figures
    loss: Figures
    groups: Sequence[str]

    def change(self, seed: int) -> Difference:
        """The gain, tested once."""
        return compare_pairs(self.gain, np.asarray(self.groups), seed=seed)

    def lost(self, seed: int) -> Interval:
        """The loss, with its interval.

        Draws of few changes, or of none, hardly differ: then Wilson's bound of the share that loses is the upper end.
        """
        groups = np.asarray(self.groups)
        found = bootstrap(self.loss, groups, seed=seed)
        if np.count_nonzero(self.loss) >= CHANGED:
            return found
        return found._replace(high=max(found.high, level(self.loss > 0, groups).high))


@dataclass(frozen=True)
class Tuned:
    """The policy that was chosen, how it was tested, and whether it ships."""

    policy: TunePolicy
    tried: int
    change: Difference
    loss: Interval
    max_loss: float
    line: Line

    @property
    def ships(self) -> bool:
        """Whether it surely gains on the other part, and loses no more than allowed at the interval's upper end."""
        return self.change.sure and self.loss.high <= self.max_loss

    @property
    def sentence(self) -> str:
        """For people."""
        figures = (
            f"{self.policy}. It was tested once, on things that it was not chosen on: {points(self.change.interval)} "
            f"points of queries whose first result is right; {self.line.shares}. Where the memory holds no answer, it "
            f"loses at most {100 * self.loss.high:.1f} points, and {100 * self.max_loss:.1f} are allowed"
        )
        if self.ships:
            return f"Chosen from {self.tried} policies: {figures}."
        if self.change.sure:
            return (
                f"No model was written, because the best of {self.tried} policies may lose more than is allowed: "
                f"{figures}. Give pictures of more things, or a larger --max-loss."
            )
        return f"Plain is best, and no model was written. The best of {self.tried} policies: {figures}."


def tune(asking: Askers, *, max_loss: float = MAX_LOSS, seed: int = 0, fusers: Sequence[Fuser] = ()) -> Tuned:
    """Choose on the pairs that ask of one part of the classes, and test on the others.

    Args:
        asking: a source with labels that asks itself.
        max_loss: share of queries, from 0 to 1.
        seed: of the intervals.
        fusers: of the paper's layer, to try beside the closed form.
    """
    tried = 0
    best: tuple[float, TunePolicy] | None = None
    for policy, outcome in _outcomes(asking, ~asking.test, fusers):
        tried += 1
        allowed = outcome.loss.mean() <= max_loss
        score = float(outcome.gain.mean()) - (0.0 if allowed else 1.0)
        if best is None or score > best[0]:
            best = score, policy
    assert best is not None  # noqa: S101 - there are policies
    chosen = best[1]
    outcome = next(found for policy, found in _outcomes(asking, asking.test, fusers, chosen))
    change, loss = outcome.change(seed), outcome.lost(seed)
    line = Line(
        f"tested: {chosen}",
        len(outcome.gain),
        level(outcome.plain + outcome.gain, np.asarray(outcome.groups)),
        change,
        Shares.of(outcome.gain, np.ones(len(outcome.gain))),
        Interval(0.0 - loss.mean, 0.0 - loss.high, 0.0 - loss.low),
    )
    return Tuned(chosen, tried, change, loss, max_loss, line)


def _outcomes(
    asking: Askers, part: Any, fusers: Sequence[Fuser], only: TunePolicy | None = None
) -> Iterator[tuple[TunePolicy, _Outcome]]:
    """Each policy, or one, with what it gives on a part of those who ask, (Q,)."""
    known, unknown = asking.tasks(part), asking.tasks(part, known=False)
    ways: list[tuple[int, float | None, Fuser | None]] = [(k, coverage, None) for k in KS for coverage in COVERAGES]
    ways += [(KS[1], None, fuser) for fuser in fusers]
    for k, coverage, fuser in ways if only is None else [(only.k, only.coverage, only.fuser)]:
        assert asking.memory is not None  # noqa: S101 - it asks itself
        memory = asking.memory.at(k) if fuser is None else asking.memory.plain
        refiner = Refiner(memory, fuser, k=k, gate=fuser is None, coverage=coverage)
        found = {}
        for direction, task in known.items():
            hidden = unknown[direction]
            asked = MEASURED[direction]
            found[direction] = (
                _first(task, refine_task(refiner, task, asked), asked),
                _first(hidden, refine_task(refiner, hidden, asked), asked),
                [task.classes[label] for label in task.queries.labels.tolist()],
            )
        for sides in _choices() if only is None else [only.sides]:
            plain, after, loss, groups = list[Figures](), list[Figures](), list[Figures](), list[str]()
            for direction, (with_answer, without, things) in found.items():
                side = sides.get(direction, "frozen")
                plain.append(with_answer["frozen"])
                after.append(with_answer[side])
                loss.append(without["frozen"] - without[side])
                groups += things
            before = np.concatenate(plain)
            yield (
                TunePolicy(k, coverage, sides, fuser),
                _Outcome(before, np.concatenate(after) - before, np.concatenate(loss), groups),
            )


def _first(task: Task, refined: Task, sides: Sequence[str]) -> dict[str, Figures]:
    """Whether the first result is right, (n,), plain and with each side refined."""
    return {side: one.top(1) for side, one in measure_sides(task, refined, sides).items()}


def _choices() -> list[Choice]:
    """Sides to try: texts that search pictures, any side where pictures search the names of classes, or both."""
    text: Choice = {"text->image": "text"}
    images: list[Choice] = [{"image->text": side} for side in MEASURED["image->text"]]
    return [text, *images, *(text | one for one in images)]


@dataclass(frozen=True)
class Choosing:
    """How a policy is chosen.

    Attributes:
        max_loss: share of queries that may lose where the memory holds no answer.
        seed: of training and of intervals.
        paper: also train and try the paper's layer.
    """

    max_loss: float = MAX_LOSS
    seed: int = 0
    paper: bool = False


def choose(record: Record, asking: Askers, base: Artifact, out: Path, how: Choosing) -> Record:
    """Choose a policy, test it, write it as the folder ``model`` of ``out`` if it ships, and put it into the record.

    Raises:
        MissingExtra: the paper's layer without torch.
        ArtifactError: the model cannot be written.
    """
    layer = train_layer(asking, out, seed=how.seed, steps=STEPS, batch=BATCH) if how.paper else None
    fusers = []
    if layer is not None:
        from ..models.train import TorchFuser

        fusers.append(TorchFuser(layer))
    found = tune(asking, max_loss=how.max_loss, seed=how.seed, fusers=fusers)
    if not found.ships:
        return add_to(record, found, None)
    folder, policy, trained_on = out / "model", found.policy.to_policy(), f"reco eval {asking.things.name}"
    if found.policy.fuser is None:
        write_model(base, policy, folder, trained_on)
    else:
        from ..models.export import refit

        refit(base, layer, folder, policy=policy, trained_on=trained_on)
    return add_to(record, found, folder)


def add_to(record: Record, tuned: Tuned, model: Path | None) -> Record:
    """The record with what was chosen; ``model`` is the folder that was written."""
    settings = {**tuned.policy.to_policy().model_dump(mode="json"), "model": str(model)} if tuned.ships else {}
    decision: Decision = "switch" if tuned.ships else "not known" if tuned.change.sure else "leave"
    sentence = f"{tuned.sentence} Use it as the model {model}." if tuned.ships else tuned.sentence
    verdict = Verdict(decision, "labels", sentence, tuned.change, tuned.line.shares, settings)
    return replace(
        record, verdict=verdict, lines=[*record.lines, tuned.line], notes=[record.verdict.sentence, *record.notes]
    )


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


def train_layer(asking: Askers, out: Path, *, seed: int = 0, steps: int, batch: int) -> Fusions:
    """Train the paper's layer on the memory's pairs.

    Raises:
        MissingExtra: torch is not installed.
    """
    from ..errors import importing

    with importing(None, "train", "the paper's layer"):
        from ..models.neighbours import gather
        from ..models.train import FusionConfig, TrainConfig, train_fusions
    assert asking.memory is not None  # noqa: S101 - it asks itself
    store, pairs = asking.memory.store, asking.memory.pairs
    thing_of = dict(zip(asking.things.pairs.ids, asking.things.things, strict=True))
    data = gather(store, pairs, KS[1], [thing_of[id_] for id_ in pairs.ids])
    config = FusionConfig(data.pairs.image.shape[1])
    return train_fusions(data, config, out / "paper", TrainConfig(steps=steps, batch=batch, seed=seed))
