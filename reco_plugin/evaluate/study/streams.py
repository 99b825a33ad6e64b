"""One seed, and for everything that is drawn a stream of its own: halves of classes, parts of memories, wrong captions.

Beside them what else makes a memory of another one: two joined, and the near-duplicates of queries that it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...defaults import SAME_IMAGE
from ...errors import ConfigError
from ...types import Records
from ..ranking import parts
from ..task import Mask, Task


def stream(seed: int, draw: str) -> np.random.Generator:
    """The random numbers of one draw: independent of all other draws of the same seed.

    Two draws from ``default_rng(seed)`` would be one and the same permutation: half of the classes and half of the
    pairs would be the same half.

    >>> stream(0, "halves").permutation(5).tolist() == stream(0, "halves").permutation(5).tolist()
    True
    >>> stream(0, "halves").permutation(99).tolist() == stream(0, "wrong captions").permutation(99).tolist()
    False

    Args:
        seed: of the study.
        draw: what is drawn.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(draw.encode())))


def split_classes(task: Task, seed: int) -> tuple[Task, Task]:
    """A development half and a test half by class, each classified among its own classes.

    Seen and unseen classes are halved alike; of an odd number the test half gets one more. Classes without queries
    count too, as candidates.

    Raises:
        ConfigError: fewer than four classes.
    """
    if len(task.candidates) < 4:
        raise ConfigError(
            f"{len(task.candidates)} classes are too few to choose baselines on one half and report on the other: "
            "give a development set (--dev FILE)"
        )
    dev, test = _halves(task, seed, "development classes")
    return task.among(dev), task.among(test)


def folds(task: Task, seed: int) -> tuple[Mask, Mask]:
    """The classes of a task in two random halves, each of which is left out of the memory once; masks (L,)."""
    return _halves(task, seed, "folds")


def _halves(task: Task, seed: int, draw: str) -> tuple[Mask, Mask]:
    """(L,) a random half of the classes and the other; the first is the smaller, alike for seen and unseen ones."""
    first, second = np.zeros((2, len(task.classes)), np.bool_)
    rng, numbers, unseen = stream(seed, draw), task.candidates.labels, task.unseen
    for kind in [numbers] if unseen is None else [numbers[unseen[numbers]], numbers[~unseen[numbers]]]:
        drawn = rng.permutation(kind)
        first[drawn[: len(kind) // 2]] = True
        second[drawn[len(kind) // 2 :]] = True
    return first, second


_TRIES = 100  # random partners that are looked at before a caption stays where it is


class Corrupted(NamedTuple):
    """Pairs whose captions are partly wrong, and the share that really is."""

    records: Records
    share: float


def joined(first: Records, second: Records) -> Records:
    """Both, the second's ids marked so that none is replaced."""
    other = Records([f"other:{id_}" for id_ in second.ids], second.image, second.text, second.payloads)
    return Records.join([first, other], first.image.shape[1])


def part(pairs: int, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Rows of a random share of the pairs, in order; with the same seed the smaller is within the larger.

    >>> set(part(10, 0.3, 0)) < set(part(10, 0.5, 0)), len(part(10, 0.25, 0)), len(part(10, 0.01, 0))
    (True, 2, 1)
    """
    return np.sort(stream(seed, "part").permutation(pairs)[: max(1, round(share * pairs))])


def at_most_each(entities: Sequence[str], most: int, seed: int) -> npt.NDArray[np.bool_]:
    """Mask of at most so many random pairs per entity; nested for one seed.

    >>> at_most_each(["a", "a", "b"], 1, 0).sum(), at_most_each(["a", "a", "b"], 2, 0).sum()
    (np.int64(2), np.int64(3))
    """
    _, member = np.unique(np.array(entities, np.str_), return_inverse=True)
    order = stream(seed, "at most each").permutation(len(member))
    grouped = order[np.argsort(member[order], kind="stable")]  # by entity, at random within
    start = np.concatenate([[0], np.cumsum(np.bincount(member))])[member[grouped]]
    chosen = np.zeros(len(member), np.bool_)
    chosen[grouped[np.arange(len(member)) - start < most]] = True
    return chosen


def captions_of(records: Records) -> list[str]:
    """What tells captions apart, one per pair: the caption, else a digest of the text's vector."""
    return [
        str(payload["caption"]) if "caption" in payload else blake2b(vector.tobytes(), digest_size=16).hexdigest()
        for payload, vector in zip(records.payloads, records.text, strict=True)
    ]


def with_wrong_captions(records: Records, share: float, seed: int) -> Corrupted:
    """Give a random share of the pairs the text of another one, never the same caption.

    Texts are permuted among the chosen pairs, so the memory holds the same texts as before. Where one caption stands
    on more than half of the chosen pairs, some cannot move; the share that is returned is what really moved.

    Args:
        records: the pairs.
        share: of the pairs, from 0 to 1.
        seed: the same seed makes the same mistakes, and the smaller share's pairs are among the larger's.
    """
    captions = np.unique(np.array(captions_of(records), np.str_), return_inverse=True)[1]
    rng = stream(seed, "wrong captions")
    rows = rng.permutation(len(records))[: round(share * len(records))]
    source = _derangement(captions[rows], rng)
    origin = np.arange(len(records))
    origin[rows] = rows[source]
    payloads = [
        {**payload, "caption": records.payloads[origin[row]]["caption"]}
        if "caption" in payload and "caption" in records.payloads[origin[row]]
        else payload
        for row, payload in enumerate(records.payloads)
    ]
    wrong = float(np.mean(captions[origin] != captions)) if len(records) else 0.0
    return Corrupted(Records(records.ids, records.image, records.text[origin], payloads), wrong)


@dataclass(frozen=True)
class Leaks:
    """What a query can retrieve that shows its own image."""

    queries: npt.NDArray[np.bool_]  # (N,) whether a query has a near-duplicate in the memory that is not hidden from it
    pairs: npt.NDArray[np.bool_]  # (M,) whether a pair is one
    nearest: npt.NDArray[np.float32]  # (N,) cosine to the nearest image that is not hidden; -1 where there is none


def leaks(task: Task, records: Records, near: float = SAME_IMAGE) -> Leaks:
    """Compare every query with every image of the memory; its own pair, where its id is known, is hidden from it.

    Args:
        task: its queries.
        records: M pairs.
        near: cosine above which a pair shows the query's image.
    """
    row_of = {id_: row for row, id_ in enumerate(records.ids)}
    nearest, pairs = np.full(len(task), -1.0, np.float32), np.zeros(len(records), np.bool_)
    if not len(records):
        return Leaks(nearest > near, pairs, nearest)
    for rows in parts(len(task), len(records)):
        cosine = task.queries.vectors[rows] @ records.image.T  # (b, M)
        for offset, ids in enumerate(() if task.queries.own is None else task.queries.own[rows]):
            cosine[offset, [row_of[id_] for id_ in ids if id_ in row_of]] = -1.0
        nearest[rows] = cosine.max(axis=1)
        pairs |= (cosine > near).any(axis=0)
    return Leaks(nearest > near, pairs, nearest)


def _derangement(kind: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random permutation that gives no place its own kind, as far as that can be."""
    source = rng.permutation(len(kind))
    for place in np.flatnonzero(kind[source] == kind):
        if kind[source[place]] != kind[place]:
            continue  # an earlier swap has cured it
        for partner in rng.integers(0, len(kind), _TRIES):
            if kind[source[partner]] != kind[place] and kind[source[place]] != kind[partner]:
                source[[place, partner]] = source[[partner, place]]
                break
    return source
