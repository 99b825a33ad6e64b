"""What a held-out part asks, what it searches, and what it may retrieve from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration import calibrate
from ..evaluate.study.memories import RememberingMemory
from ..refine import VectorMemory
from ..types import Fingerprint, Records, Vectors
from .catalogue import Catalogue
from .split import Part, Split, chance

MOST = 4000
"""Pairs of a part that ask: more would narrow its intervals by little, and cost time in proportion."""


@dataclass
class GroundMemory:
    """An exact memory in RAM, with the gate calibrated for whatever number of neighbours is asked for."""

    store: RememberingMemory
    pairs: Records
    _gates: dict[int, VectorMemory] = field(default_factory=dict)

    def at(self, k: int) -> VectorMemory:
        """The memory as it would be served with k neighbours."""
        if k not in self._gates:
            calibration = calibrate(self.pairs.image, self.pairs.text, neighbours=k) if len(self.pairs) else None
            self._gates[k] = VectorMemory(self.store, calibration)
        return self._gates[k]


@dataclass(frozen=True)
class Questions:
    """Queries of one part.

    Attributes:
        images: (Q, D) of the pairs that ask; they are the index of text queries too.
        image_groups: (Q,) number of each one's group.
        image_hidden: (Q,) ids that the query must not find: near-duplicates of its image.
        texts: (T, D) their captions, each once per group; they are the index of image queries too.
        text_groups, text_hidden: the same of the captions; hidden is what is hidden from any of its images.
        prompts: (C, D) names of groups 0 to C-1, as candidates; None where groups are no names.
        prompt_hidden: (C,).
        memory: without the pairs that ask.
        without: the same without their groups: what a memory is that knows nothing of what is asked for.
    """

    images: Vectors
    image_groups: npt.NDArray[np.int64]
    image_hidden: list[set[str]]
    texts: Vectors
    text_groups: npt.NDArray[np.int64]
    text_hidden: list[set[str]]
    prompts: Vectors | None
    prompt_hidden: list[set[str]]
    memory: GroundMemory
    without: GroundMemory


def ask(catalogue: Catalogue, split: Split, part: Part, fingerprint: Fingerprint, *, near: float) -> Questions:
    """The questions of ``validation`` or ``test``.

    The memory of validation holds nothing of the test part; that of the test holds all of validation.

    Args:
        catalogue: encoded.
        split: of it.
        part: that asks.
        fingerprint: of its vectors.
        near: image cosine from which a pair of the memory is hidden.
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
    prompts = _prompts(catalogue, [str(name) for name in names])
    return Questions(
        images=pairs.image,
        image_groups=groups,
        image_hidden=hidden,
        texts=pairs.text[first],
        text_groups=groups[first],
        text_hidden=_joined(hidden, text_of, len(first)),
        prompts=prompts,
        prompt_hidden=_joined(hidden, groups, len(names)),
        memory=memory,
        without=memory_of_rows(catalogue, known, fingerprint),
    )


def memory_of_rows(catalogue: Catalogue, rows: npt.NDArray[np.int64], fingerprint: Fingerprint) -> GroundMemory:
    """An exact memory of some pairs; in order of their ids, so that no source's own order decides what is sampled."""
    ordered = sorted(rows.tolist(), key=lambda row: catalogue.pairs.ids[row])
    pairs, store = catalogue.pairs.take(ordered), RememberingMemory(fingerprint)
    if ordered:
        store.upsert(pairs)
    return GroundMemory(store, pairs)


def some(ids: Sequence[str], most: int) -> list[int]:
    """Rows of at most so many pairs, the same ones whatever their order."""
    if len(ids) <= most:
        return list(range(len(ids)))
    return sorted(sorted(range(len(ids)), key=lambda row: chance(f"some\0{ids[row]}"))[:most])


def _captions(texts: Vectors, groups: npt.NDArray[np.int64]) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Row of each caption's first use in a group, and the caption of each row."""
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


def _joined(hidden: Sequence[set[str]], of: npt.NDArray[np.int64], count: int) -> list[set[str]]:
    joined: list[set[str]] = [set() for _ in range(count)]
    for ids, number in zip(hidden, of.tolist(), strict=True):
        joined[number] |= ids
    return joined


def _prompts(catalogue: Catalogue, names: Sequence[str]) -> Vectors | None:
    """Names of the asked groups; None unless all of them can be asked for."""
    row_of: dict[str, Any] = {name: row for row, name in enumerate(catalogue.names)}
    if not names or any(name not in row_of for name in names):
        return None
    return catalogue.prompts[[row_of[name] for name in names]]
