"""The classes of the set that each pair of the memory shows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from ...types import Payload, Records, Vectors

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

    Raises:
        ConfigError: no pair has the key.
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
