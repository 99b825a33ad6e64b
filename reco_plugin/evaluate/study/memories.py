"""Memories of a study: random parts and worse ones, in RAM; and the classes that their pairs show."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ...calibration.learn import learn
from ...defaults import SAME_IMAGE
from ...errors import ConfigError
from ...files import digest_records
from ...memory import Fingerprint, Memory, Searches, open_memory
from ...refine import VectorMemory
from ...types import Neighbours, Payload, Records, Search, Vectors
from ...values import counted
from ..ranking import parts
from ..task import Mask, Task

How: TypeAlias = Literal["label key", "caption", "nearest prompt"]
"""Where pairs have neither key nor caption, the encoder decides by their texts."""
_WORD = re.compile(r"\w+")
_BLOCK = 4096


@dataclass(frozen=True)
class Membership:
    """N pairs and their classes, E matches; a caption may name several classes, or none."""

    pair: npt.NDArray[np.int64]  # (E,) row of a pair
    number: npt.NDArray[np.int64]  # (E,) number of a class that it shows
    pairs: int  # N
    how: How

    def of(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each pair shows any of these classes, (N,)."""
        mask = np.zeros(self.pairs, np.bool_)
        mask[self.pair[np.isin(self.number, numbers)]] = True
        return mask

    def covered(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of these classes (M,) has any pair, (M,)."""
        return np.isin(numbers, self.number)

    @property
    def known(self) -> bool:
        """Whether the classes are known, rather than guessed by the encoder."""
        return self.how != "nearest prompt"


def membership(records: Records, classes: Sequence[str], prompts: Vectors, label_key: str | None) -> Membership:
    """Find the classes of each of N pairs, by the names and the prompts (C, D) of C classes.

    By the payload value under ``label_key`` (the class's name, whatever its case, or its number); else a pair belongs
    to every class whose name its caption contains as words; else, where no pair has a caption, to the class whose
    prompt is nearest to its text.
    """
    if label_key is not None:
        return _by_key(records.payloads, classes, label_key)
    if any("caption" in payload for payload in records.payloads):
        found = [find_named(str(p.get("caption", "")), names) for names in [_index(classes)] for p in records.payloads]
        return _membership(found, "caption")
    blocks = (records.text[start : start + _BLOCK] for start in range(0, len(records), _BLOCK))
    nearest = [(int(number),) for block in blocks for number in (block @ prompts.T).argmax(axis=1)]
    return _membership(nearest, "nearest prompt")


def find_named(caption: str, names: dict[tuple[str, ...], list[int]]) -> tuple[int, ...]:
    """Find the numbers of the classes whose name is in a caption, as words.

    >>> find_named("A Red Fox, asleep.", {("fox",): [0], ("red", "fox"): [1], ("red",): [2], ("ox",): [3]})
    (0, 1, 2)
    """
    words = tuple(_WORD.findall(caption.casefold()))
    longest = max(map(len, names), default=0)
    return tuple(sorted({number for part in _parts(words, longest) for number in names.get(part, ())}))


def _parts(words: tuple[str, ...], longest: int) -> Iterator[tuple[str, ...]]:
    for start in range(len(words)):
        for length in range(1, min(longest, len(words) - start) + 1):
            yield words[start : start + length]


def _index(classes: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Words of a name -> the classes of that name."""
    names: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, name in enumerate(classes):
        if words := tuple(_WORD.findall(name.replace("_", " ").casefold())):
            names[words].append(number)
    return dict(names)


def _by_key(payloads: Sequence[Payload], classes: Sequence[str], key: str) -> Membership:
    if not any(key in payload for payload in payloads):
        known = sorted({name for payload in payloads[:1000] for name in payload})
        raise ConfigError(
            f"--label-key {key!r} is in no payload of the memory; there are: {', '.join(known) or 'none'}"
        )
    names: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(classes):
        names[name.casefold()].append(number)
        if str(number) not in map(str.casefold, classes):
            names[str(number)].append(number)
    return _membership([tuple(names.get(str(p.get(key)).casefold(), ())) for p in payloads], "label key")


def _membership(found: Sequence[tuple[int, ...]], how: How) -> Membership:
    pair = np.repeat(np.arange(len(found)), [len(numbers) for numbers in found]).astype(np.int64)
    return Membership(pair, np.array([n for numbers in found for n in numbers], np.int64), len(found), how)


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
    """
    if len(task.candidates) < 4:
        raise ConfigError(
            f"{counted(len(task.candidates), 'class is', 'classes are')} too few to choose baselines on one half and "
            "report on the other: give a development set (--dev FILE)"
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


_KEPT_BYTES = 1 << 30


class RememberingMemory:
    """Caches searches, since a study repeats them with many fusions.

    The store is filled before it is searched, and never changed afterwards. The oldest results are dropped when all
    together exceed a gigabyte.
    """

    def __init__(self, store: Searches) -> None:
        self.header = store.header
        self._store = store
        self._answers: dict[str, Neighbours] = {}
        self.bytes = 0
        """Of the cached vectors."""

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        asked = hashlib.sha256(np.ascontiguousarray(search.vectors).tobytes())
        hidden = None if search.exclude is None else [sorted(ids) for ids in search.exclude]
        asked.update(repr(replace(search, vectors=search.vectors.shape, exclude=hidden)).encode())  # type: ignore[arg-type]
        key = asked.hexdigest()
        if key in self._answers:
            return self._answers[key]
        found = self._store.search(search)
        self._answers[key] = found
        self.bytes += found.vectors.nbytes
        while self.bytes > _KEPT_BYTES and len(self._answers) > 1:
            self.bytes -= self._answers.pop(next(iter(self._answers))).vectors.nbytes
        return found


class ApproximateMemory:
    """An index of a given recall: each true neighbour is missed with probability 1 - recall, the next one moves up.

    The misses depend on the query and the seed alone, so that a lower recall misses the same and more.
    """

    def __init__(self, store: Searches, recall: float, seed: int) -> None:
        self.header = store.header
        self._store, self._recall, self._seed = store, recall, seed

    def search(self, search: Search) -> Neighbours:
        """Search for (B, D), see :meth:`reco_plugin.memory.Searches.search`."""
        k = search.k
        wide = 4 * k + 16  # at recall 0.5, fewer than k of these are kept about once in a million queries
        found = self._store.search(replace(search, k=wide))
        kept = np.stack([self._draw(vector, wide) for vector in search.vectors]) < self._recall  # (B, wide)
        order = np.argsort(~(kept & found.found), axis=1, kind="stable")[:, :k]  # what was kept first, nearest first
        here = np.take_along_axis(kept & found.found, order, axis=1)  # (B, k)
        places = [row[ok].tolist() for row, ok in zip(order, here, strict=True)]
        return replace(
            found,
            ids=[[ids[place] for place in row] for ids, row in zip(found.ids, places, strict=True)],
            similarity=np.where(here, np.take_along_axis(found.similarity, order, axis=1), np.float32(0)),
            witnesses=None
            if found.witnesses is None
            else np.where(here[..., None], np.take_along_axis(found.witnesses, order[..., None], axis=1), np.nan),
            vectors=np.where(
                here[..., None], np.take_along_axis(found.vectors, order[..., None], axis=1), np.float32(0)
            ),
            found=here,
            payloads=None
            if found.payloads is None
            else [[shown[place] for place in row] for shown, row in zip(found.payloads, places, strict=True)],
        )

    def _draw(self, vector: Vectors, wide: int) -> Vectors:
        digest = hashlib.sha256(vector.tobytes()).digest()[:8]
        return stream(self._seed, f"recall of {digest.hex()}").random(wide, np.float32)


@dataclass
class RamMemory:
    """An exact memory of some pairs in RAM, with its calibration for any number of neighbours."""

    pairs: Records
    store: Memory  # of the pairs
    searches: RememberingMemory  # of the store
    _last: tuple[int, VectorMemory] | None = None

    @property
    def plain(self) -> VectorMemory:
        """The memory without calibration, which only the closed form needs."""
        return VectorMemory(self.store, None, self.searches)

    def at(self, k: int) -> VectorMemory:
        """The memory, calibrated for k neighbours; another k replaces what the store holds of each pair."""
        if self._last is None or self._last[0] != k:
            self._last = k, VectorMemory(self.store, learn(self.store, k, asks=False), self.searches)
        return self._last[1]


def ram_memory(pairs: Records, fingerprint: Fingerprint) -> RamMemory:
    """Build a memory of pairs, (N, D) each, with cached searches."""
    store = open_memory(":memory:", fingerprint)
    store.upsert(pairs)
    return RamMemory(pairs, store, RememberingMemory(store))


class Memories:
    """Memories in RAM that are learned once, though several sections need them: learning takes most of a study's time.

    The oldest are dropped when all together, with what they cached, exceed a gigabyte.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[RamMemory, VectorMemory]] = {}

    def of(self, pairs: Records, fingerprint: Fingerprint, k: int) -> VectorMemory:
        """The memory of these pairs, (N, D) each, its calibration learned for k neighbours."""
        key = f"{fingerprint.digest} {k} {digest_records(pairs)}"
        if key not in self._made:
            made = ram_memory(pairs, fingerprint)
            self._made[key] = made, made.at(k)
        while len(self._made) > 1 and sum(_bytes(made) for made, _ in self._made.values()) > _KEPT_BYTES:
            self._made.pop(next(one for one in self._made if one != key))
        return self._made[key][1]


def _bytes(memory: RamMemory) -> int:
    return memory.pairs.image.nbytes + memory.pairs.text.nbytes + memory.searches.bytes
