"""Found by words: the words of texts, the same for every kind of memory, and the caption that stands in for a query.

A memory keeps the words of each caption as a sparse vector of ones and finds captions by BM25's IDF; how often a word
comes, and how long a caption is, do not count, so that captions with the same words of a query score the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..types import Search, Vectors

MOST = 20
"""Captions that cover a query equally and count together; a query that more of them cover is a broad one."""
CODE, CODE_LENGTH = 5.0, 6
"""How much a word counts that mixes letters and digits, from that length on: a part number."""
SHARE = 0.7
"""Of the words of a query with a part number, by IDF, that a caption must have with it; of others, all. Words that it
lacks count as the rarest. With .7 for others, too, products that the memory lacks lose 5 points."""
EQUAL = 0.9999
"""Of the best score, from which another one is the same: sums of rounded numbers."""
_SAME = 0.999
_JOINS = "-_/'."
_DASHES = dict.fromkeys("‐‑‒–−", "-") | {"’": "'"}
_PARTS = re.compile(rf"[^{re.escape(_JOINS)}]+")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
"""Runs of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


class _Letters(dict[int, str]):
    """What stays of each character: letters, digits, marks, and what joins them; anything else is a space."""

    def __missing__(self, code: int) -> str:
        letter = _DASHES.get(chr(code), chr(code))
        stays = letter.isalnum() or letter in _JOINS or unicodedata.category(letter).startswith("M")
        return self.setdefault(code, letter if stays else " ")


_LETTERS = _Letters()


class Term(NamedTuple):
    """A word as it is written, as a whole and in its parts, both folded."""

    spelled: str
    whole: str
    parts: tuple[str, ...]


def words_of(text: str) -> Iterator[Term]:
    """The words of a text in any language, with case and accents folded; none is dropped or stemmed.

    Scripts without spaces are cut into pairs of neighbouring characters.

    >>> [(word.whole, word.parts) for word in words_of("Fuchs QX-4821-B, Größe XL: 赤い狐")][1:]
    [('qx4821b', ('qx', '4821', 'b')), ('grosse', ('grosse',)), ('xl', ('xl',)), ('赤い狐', ('赤い', 'い狐'))]
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    for joined in text.translate(_LETTERS).split():
        if joined.isascii() and joined.isalnum():  # most words, in a third of the time
            yield Term(joined, lower := joined.lower(), (lower,))
            continue
        for place, run in enumerate(_UNSPACED.split(joined)):
            if place % 2:
                pairs = [run[start : start + 2] for start in range(max(1, len(run) - 1))]
                yield Term(run, run, tuple(pairs))
            elif parts := _PARTS.findall(_fold(run)):
                whole = "".join(parts) if "." not in run.strip(".") else ".".join(parts)
                yield Term(run.strip(_JOINS), whole, tuple(parts))


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    bare = (letter for letter in unicodedata.normalize("NFKD", text) if not "\u0300" <= letter <= "\u036f")
    return unicodedata.normalize("NFKC", "".join(bare).casefold())


def _index(word: str) -> int:
    """The number of a word in sparse vectors, the same on every machine."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def stored_words(caption: str | None) -> list[int]:
    """The words of a caption as a memory keeps them: wholes, parts, and single characters of scripts without spaces."""
    stored = set[str]()
    for word in words_of(caption or ""):
        stored.update((word.whole, *word.parts))
        if not word.whole.isascii() and _UNSPACED.match(word.whole):
            stored.update(word.whole)
    return sorted(map(_index, stored))


@dataclass(frozen=True)
class QueryWords:
    """The words of a query."""

    words: tuple[Term, ...]

    @classmethod
    def of(cls, text: str) -> QueryWords | None:
        """The words of a text; None where it has none."""
        words = tuple(words_of(text))
        return cls(words) if words else None

    @property
    def text(self) -> str:
        """A text of these words alone."""
        return " ".join(word.spelled for word in self.words)

    @cached_property
    def weights(self) -> dict[int, float]:
        """Word -> how much it counts."""
        return {_index(name): _weight(name) for word in self.words for name in (word.whole, *word.parts)}

    def lacks(self, caption: frozenset[int]) -> float:
        """What a caption lacks of the query's words, by weight."""
        lacking = {part for word in self.words if _index(word.whole) not in caption for part in word.parts}
        return sum(_weight(part) for part in lacking if _index(part) not in caption)

    def shared(self, caption: frozenset[int]) -> str:
        """The words that a caption has, as the query spells them."""
        there = list[str]()
        for word in self.words:
            parts = [part for part in word.parts if _index(part) in caption]
            whole = _index(word.whole) in caption or len(parts) == len(word.parts)
            there += [word.spelled] if whole else parts
        return " ".join(dict.fromkeys(there))


def _weight(word: str) -> float:
    code = len(word) >= CODE_LENGTH and not word.isalpha() and not word.isdigit() and not _UNSPACED.match(word)
    return CODE if code else 1.0


class Worded(NamedTuple):
    """A caption that was found by its words."""

    score: float
    words: frozenset[int]
    vector: Vectors  # (D,)


def stand_in(query: QueryWords, found: Sequence[Worded], pairs: int) -> tuple[Vectors, str] | None:
    """The vector (D,) that stands in for a query's own, and the words by which it was found; None: it stays.

    Args:
        query: its words.
        found: captions by score, the best first: :data:`MOST` and one more, or all that share the best score.
        pairs: of the memory.
    """
    if not found:
        return None
    best = found[0]
    lacking = query.lacks(best.words) * math.log(2.0 * pairs + 2.0)
    coded = any(weight == CODE and word in best.words for word, weight in query.weights.items())
    if lacking and not (coded and best.score >= SHARE * (best.score + lacking)):
        return None
    equal = [one for one in found if one.score >= best.score * EQUAL]
    if nothing_else := [one for one in equal if one.words <= query.weights.keys()]:
        equal = nothing_else
    vectors = np.stack([one.vector for one in equal])
    mean = vectors.mean(axis=0)
    mean /= np.maximum(np.linalg.norm(mean), np.float32(1e-12))
    if len(equal) > MOST and float((vectors @ mean).min()) < _SAME:
        return None
    return mean.astype(np.float32), query.shared(best.words)


def stand_ins(
    search: Search, vectors: Vectors, pairs: int, find: Callable[[Mapping[int, QueryWords]], Iterable[Sequence[Worded]]]
) -> tuple[Vectors, list[str]]:
    """What a memory is searched with, (B, D), and B texts: the words by which a caption was found, or nothing.

    Args:
        search: with the words of its queries.
        vectors: (B, D) of the queries.
        pairs: that the memory has learned from; 0: nothing moves yet, so nothing stands in.
        find: captions for the words of some rows, see :func:`stand_in`.
    """
    queries = {row: one for row, one in enumerate(search.words or ()) if one is not None and pairs}
    vectors, matched = vectors.copy(), [""] * len(vectors)
    for (row, one), found in zip(queries.items(), find(queries) if queries else (), strict=True):
        if (taken := stand_in(one, found, pairs)) is not None:
            vectors[row], matched[row] = taken
    return vectors, matched
