"""Random draws, each with a stream of its own from one seed: halves of classes, parts of memories, wrong captions.

Also memories made of others: two joined, and the near-duplicates of queries in one.
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
    """A generator for one draw, independent of all other draws of the same seed.

    Two draws from ``default_rng(seed)`` would be the same permutation.

    >>> stream(0, "halves").permutation(5).tolist() == stream(0, "halves").permutation(5).tolist()
    True
    >>> stream(0, "halves").permutation(99).tolist() == stream(0, "wrong captions").permutation(99).tolist()
    False
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(draw.encode())))


def split_classes(task: Task, seed: int) -> tuple[Task, Task]:
    """Split into a development half and a test half by class, each classified among its own classes.

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
    """Split the classes into two random halves, each to be left out of the memory once; masks (L,)."""
    return _halves(task, seed, "folds")


def _halves(task: Task, seed: int, draw: str) -> tuple[Mask, Mask]:
    """Masks (L,) of a random half of the classes and the other, larger one; seen and unseen ones are halved alike."""
    first, second = np.zeros((2, len(task.classes)), np.bool_)
    rng, numbers, unseen = stream(seed, draw), task.candidates.labels, task.unseen
    for kind in [numbers] if unseen is None else [numbers[unseen[numbers]], numbers[~unseen[numbers]]]:
        drawn = rng.permutation(kind)
        first[drawn[: len(kind) // 2]] = True
        second[drawn[len(kind) // 2 :]] = True
    return first, second


_TRIES = 100  # random partners to try before a caption stays in its place


class Corrupted(NamedTuple):
    """Pairs with partly wrong captions, and their true share."""

    records: Records
    share: float


def join_records(first: Records, second: Records) -> Records:
    """Join pairs (N, D) and (M, D); the second's ids get a prefix, so that none is replaced."""
    other = Records([f"other:{id_}" for id_ in second.ids], second.image, second.text, second.payloads)
    return Records.join([first, other], first.image.shape[1])


def part(pairs: int, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Rows (M,) of a random share of the pairs, in order; with the same seed the smaller is within the larger.

    >>> set(part(10, 0.3, 0)) < set(part(10, 0.5, 0)), len(part(10, 0.25, 0)), len(part(10, 0.01, 0))
    (True, 2, 1)
    """
    return np.sort(stream(seed, "part").permutation(pairs)[: max(1, round(share * pairs))])


def at_most_each(entities: Sequence[str], most: int, seed: int) -> npt.NDArray[np.bool_]:
    """Mask (N,) of at most ``most`` random pairs per entity, of (N,) entities; nested for one seed.

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
    """Identity of each of N captions: the caption, else a digest of the text vector."""
    return [
        str(payload["caption"]) if "caption" in payload else blake2b(vector.tobytes(), digest_size=16).hexdigest()
        for payload, vector in zip(records.payloads, records.text, strict=True)
    ]


def with_wrong_captions(records: Records, share: float, seed: int) -> Corrupted:
    """Give a random share of N pairs the text of another one, never the same caption.

    Texts are permuted among the chosen pairs, so the memory holds the same texts as before. Where more than
    half of the chosen pairs have one caption, some cannot move; the returned share is of those that did. With the same
    seed, the pairs of a smaller share are among those of a larger one.
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
    """Near-duplicates of N queries among M pairs."""

    queries: npt.NDArray[np.bool_]  # (N,) whether a query has one that is not hidden from it
    pairs: npt.NDArray[np.bool_]  # (M,) whether a pair is one
    nearest: npt.NDArray[np.float32]  # (N,) cosine to the nearest image that is not hidden; -1 where there is none


def leaks(task: Task, records: Records) -> Leaks:
    """Compare N queries with the images (M, D) of a memory; a query's own pair, where its id is known, is hidden."""
    column_of = {id_: column for column, id_ in enumerate(records.ids)}
    nearest, pairs = np.full(len(task), -1.0, np.float32), np.zeros(len(records), np.bool_)
    for rows in parts(len(task), len(records)) if len(records) else ():
        cosine = task.queries.similarity(rows, records.image, column_of)
        nearest[rows] = np.maximum(cosine.max(axis=1), -1.0)
        pairs |= (cosine > SAME_IMAGE).any(axis=0)
    return Leaks(nearest > SAME_IMAGE, pairs, nearest)


def _derangement(kind: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random permutation (N,) that gives no place its own kind (N,), as far as possible."""
    source = rng.permutation(len(kind))
    for place in np.flatnonzero(kind[source] == kind):
        if kind[source[place]] != kind[place]:
            continue  # an earlier swap has fixed it
        for partner in rng.integers(0, len(kind), _TRIES):
            if kind[source[partner]] != kind[place] and kind[source[place]] != kind[partner]:
                source[[place, partner]] = source[[partner, place]]
                break
    return source
