"""The queries of a held-out part, the index that they search, and the memories that they retrieve from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..evaluate.study.memories import RamMemory, ram_memory
from ..evaluate.task import Task, TaskItems
from ..types import Fingerprint, Vectors
from .catalogue import Catalogue
from .config import TaskName
from .split import HeldOut, SplitName, chance

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
    from ..train.data import hidden_ids

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
