"""The queries of a held-out part and the memories they retrieve from; and the candidate methods that refine them.

The paper's layer is trained on the part ``fit``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..defaults import NEIGHBOURS
from ..evaluate.memories import RamMemory, ram_memory
from ..evaluate.methods import ALONE, grid
from ..evaluate.task import Side, Task, TaskItems
from ..fuse import Fuser
from ..refine import Refiner
from ..types import Caution, Fingerprint, Vectors
from .catalogue import Catalogue, HeldOut, SplitName, chance
from .config import FitConfig, TaskName

if TYPE_CHECKING:
    from ..models.train import Fusions

MOST = 4000
"""Pairs of a part that query: more would narrow the intervals by little, and take longer."""
RIVALS = 10_000
"""Groups of all parts whose captions and names compete with those that are asked for, at most."""


@dataclass(frozen=True)
class Questions:
    """The tasks of one part.

    Attributes:
        tasks: texts search images and images search texts, each caption once per group, with all pairs of the group as
            true results; and images among the names of groups, where groups are names. Captions and names of the groups
            of all parts are rivals, since among a part's own alone the choice is easier than in a user's index.
            Near-duplicates of an image are hidden from it, from its caption and from its name.
        memory: without the pairs that query.
        without: the same without their groups, so that it holds no answer.
    """

    tasks: dict[TaskName, Task]
    memory: RamMemory
    without: RamMemory

    def task(self, name: TaskName, *, known: bool) -> Task:
        """One task; without rivals where the memory holds no answer, so that it knows nothing of what is searched."""
        task = self.tasks[name]
        return task if known else task.among(np.isin(np.arange(task.candidates.labels.max() + 1), task.queries.labels))


def ask(catalogue: Catalogue, split: HeldOut, part: SplitName, fingerprint: Fingerprint, *, near: float) -> Questions:
    """Make the tasks of ``validation`` or ``test``, the part with the queries.

    The memory of validation holds nothing of the test part; that of the test holds all of validation. ``near`` is the
    image cosine from which a pair of the memory is hidden.
    """
    from ..models.neighbours import hidden_ids

    known = split.rows("fit") if part == "validation" else split.rows("fit", "validation")
    memory = memory_of_rows(catalogue, np.concatenate([known, split.rest(part)]), fingerprint)
    asking = split.queries(part)
    rows = asking[some([catalogue.pairs.ids[row] for row in asking], MOST)]
    pairs = catalogue.pairs.take(rows)
    hidden = hidden_ids(memory.store, pairs, threshold=near)
    names, numbers = np.unique([catalogue.groups[row] for row in rows], return_inverse=True)
    groups = numbers.astype(np.int64)
    first, text_of = _captions(pairs.text, groups)
    images = TaskItems(pairs.image, "image", groups, hidden)
    texts = TaskItems(pairs.text[first], "text", groups[first], _join_hidden(hidden, text_of, len(first)))
    rivals = _rivals(catalogue, set(names.tolist()))
    tasks: dict[TaskName, Task] = {
        "text->image": Task(texts, images, texts.labels),
        "image->text": Task(images, _with_rivals(texts, catalogue.pairs.text[list(rivals.values())]), images.labels),
    }
    if (prompts := _prompts(catalogue, [*map(str, names), *rivals])) is not None:
        own = _join_hidden(hidden, groups, len(names))
        classes = TaskItems(prompts[: len(names)], "text", np.arange(len(names)), own)
        tasks["image->name"] = Task(images, _with_rivals(classes, prompts[len(names) :]), images.labels)
    return Questions(tasks, memory, memory_of_rows(catalogue, known, fingerprint))


def _rivals(catalogue: Catalogue, asked: set[str]) -> dict[str, int]:
    """Groups that do not ask, at most :data:`RIVALS`, and one row of each."""
    row_of = {group: row for row, group in enumerate(catalogue.groups) if group not in asked}
    names = sorted(row_of)
    return {names[row]: row_of[names[row]] for row in some(names, RIVALS)}


def _with_rivals(items: TaskItems, rivals: Vectors) -> TaskItems:
    """Candidates, and others (R, D) that no query asks for."""
    labels = np.concatenate([items.labels, items.labels.max() + 1 + np.arange(len(rivals))])
    own = [*(items.own or ()), *[set[str]()] * len(rivals)]
    return TaskItems(np.concatenate([items.vectors, rivals]), items.modality, labels, own)


def memory_of_rows(catalogue: Catalogue, rows: npt.NDArray[np.int64], fingerprint: Fingerprint) -> RamMemory:
    """Build an exact memory of some rows (M,), sorted by id, so that samples do not depend on the source's order."""
    ordered = sorted(rows.tolist(), key=lambda row: catalogue.pairs.ids[row])
    return ram_memory(catalogue.pairs.take(ordered), fingerprint)


def some(ids: Sequence[str], most: int) -> list[int]:
    """Rows of at most ``most`` pairs, the same ones whatever their order."""
    if len(ids) <= most:
        return list(range(len(ids)))
    return sorted(sorted(range(len(ids)), key=lambda row: chance(f"some\0{ids[row]}"))[:most])


def _captions(texts: Vectors, groups: npt.NDArray[np.int64]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Row of each caption's first use in a group, of texts (N, D) and groups (N,), and the caption (N,) of each row."""
    place: dict[tuple[int, bytes], int] = {}
    first: list[int] = []
    of = np.empty(len(texts), np.int64)
    for row, (text, group) in enumerate(zip(texts, groups.tolist(), strict=True)):
        key = (group, text.tobytes())
        if key not in place:
            place[key] = len(first)
            first.append(row)
        of[row] = place[key]
    return first, of


def _join_hidden(hidden: Sequence[set[str]], of: npt.NDArray[np.int64], count: int) -> list[set[str]]:
    joined: list[set[str]] = [set() for _ in range(count)]
    for ids, number in zip(hidden, of.tolist(), strict=True):
        joined[number] |= ids
    return joined


def _prompts(catalogue: Catalogue, names: Sequence[str]) -> Vectors | None:
    """Prompts (G, D) of groups; None unless all of them are named."""
    row_of: dict[str, Any] = {name: row for row, name in enumerate(catalogue.names)}
    if not names or any(name not in row_of for name in names):
        return None
    return catalogue.prompts[[row_of[name] for name in names]]


GateSwitch: TypeAlias = Literal["on", "off"]
"""on: moves only as far as the memory's own pairs justify. off: by the neighbours alone."""
CAUTIONS: tuple[Caution, ...] = ("balanced", "bold", "cautious")
_WEIGHTS = (0.5, 2.0, ALONE)


@dataclass(frozen=True)
class Candidate:
    """One method to refine: a fusion, k and a gate."""

    name: str  # of the fusion: one of those in :data:`reco_plugin.fit.config.KINDS`; or of a baseline
    k: int  # neighbours
    gate: GateSwitch
    fuser: Fuser | None = None  # to measure; None: the closed form, which alone has a gate
    caution: Caution = "balanced"  # of the gate
    fusions: Fusions | None = None  # to export

    @property
    def gated(self) -> bool:
        """Whether it moves only as far as the memory's own pairs justify."""
        return self.gate == "on"

    @property
    def label(self) -> str:
        """Name, k and gate."""
        return f"{self.name}, k={self.k}, gate {self.gate}"

    def refiner(self, memory: RamMemory) -> Refiner:
        """Make the refiner with a memory, whose calibration is learned where there is a gate."""
        pairs = memory.at(self.k) if self.gated else memory.plain
        return Refiner(pairs, self.fuser, k=self.k, gate=self.gated, caution=self.caution)


def candidates(config: FitConfig, dimension: int, paper: Fusions | None = None) -> Iterator[Candidate]:
    """Yield all candidates, the simplest first; ``paper`` is the trained layer, where it is a candidate."""
    for kind in config.kinds:
        if kind == "reco":
            yield from _list_closed_forms(config)
        else:
            from ..models.train import TorchFuser

            assert paper is not None  # noqa: S101 - trained before the candidates are measured
            yield Candidate(PAPER, config.k or NEIGHBOURS, "off", TorchFuser(paper), fusions=paper)


def _list_closed_forms(config: FitConfig) -> Iterator[Candidate]:
    """Yield the closed form by k and caution, and without its gate."""
    for k in config.ks:
        for caution in CAUTIONS:
            yield Candidate("reco" if caution == "balanced" else f"reco, {caution}", k, "on", caution=caution)
        yield Candidate("reco", k, "off")


def baselines(side: Side) -> Iterator[Candidate]:
    """Yield simple baselines that move these sides at most: weighted means of neighbours, and label transfer."""
    for fuser in grid(side):
        weights = {"image": fuser.image_weight, "text": fuser.text_weight}
        words = ", ".join(
            ("alone" if weight >= ALONE else f"weight {weight:g}") + (f" for {modality}s" if side == "both" else "")
            for modality, weight in weights.items()
            if side in (modality, "both")
        )
        shares = "even" if np.isinf(fuser.temperature) else f"temperature {fuser.temperature:g}"
        for k in (5, 10):
            yield Candidate(f"mean of neighbours ({words}, {shares})", k, "off", fuser)


PAPER = "paper"
_FOLDER = Path("candidates") / PAPER


def train_paper(
    config: FitConfig, catalogue: Catalogue, split: HeldOut, fingerprint: Fingerprint, out: Path
) -> Fusions:
    """Train the layer on the part ``fit``."""
    from ..models.layer import FusionConfig
    from ..models.neighbours import gather, hidden_ids
    from ..models.train import TrainConfig, train_fusions

    memory = memory_of_rows(catalogue, split.rows("fit"), fingerprint)
    pairs = memory.pairs.take(some(memory.pairs.ids, max(config.steps, 1) * config.batch))
    group_of = dict(zip(catalogue.pairs.ids, catalogue.groups, strict=True))
    hidden = hidden_ids(memory.store, pairs, threshold=config.near_duplicate)
    data = gather(memory.store, pairs, config.k or NEIGHBOURS, [group_of[id_] for id_ in pairs.ids], hidden)
    how = TrainConfig(steps=config.steps, batch=config.batch, seed=config.seed)
    fusion = FusionConfig(data.pairs.image.shape[1])
    return train_fusions(data, fusion, out / _FOLDER, how, device=config.device)
