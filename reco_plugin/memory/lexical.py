"""Found by words: the words of texts, the same for every kind of memory, and the caption that stands in for a query.

A memory keeps the words of each caption as a sparse vector of ones and finds captions by BM25's IDF; how often a word
comes, and how long a caption is, do not count, so that captions with the same words of a query score the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
from typing import NamedTuple, TypeAlias

import numpy as np

from ..types import Search, Vectors

MOST = 20
"""Captions that cover a query equally and count together; a query that more of them cover is a broad one."""
CODE, CODE_LENGTH, DIGITS = 5.0, 6, 8
"""How much a number counts: letters and digits together, from that length on, or digits alone, from that."""
SHARE = 0.7
"""Of the words of a query with a number, by IDF, that a caption must have with it; of others, all. Words that it
lacks count as the rarest. With .7 for others, too, products that the memory lacks lose 5 points."""
FEW = 4
"""Captions with a number, at most, of which one stands in whatever other words without digits it lacks."""
CORRECTED, HALF = 8, 5
"""Characters of a stored number from which a query's is corrected, and of a query's from which it is completed."""
EQUAL = 0.9999
"""Of the best score, from which another one is the same: sums of rounded numbers."""
_LONGEST, _PIECES, _LETTERS_ALONE = 24, 5, 3  # characters and pieces of a number; letters of a piece without digits
_GTIN = (8, 12, 13, 14)  # lengths of article numbers whose last digit is a check
_SHORTER, _BEGUN = "~", "^"  # before a number without one of its characters, and before its first characters
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


class Number(NamedTuple):
    """A number of a text: neighbouring pieces of its words ``first`` to ``last``, joined."""

    joined: str
    first: int
    last: int
    is_whole: bool  # it neither begins nor ends within a word

    @property
    def is_corrected(self) -> bool:
        """Whether a number that is nearly this one may stand for it: not where a check digit tells them apart."""
        alone = self.first == self.last or not self.joined.isdigit()
        return self.is_whole and alone and CORRECTED <= len(self.joined) <= _LONGEST and not _is_gtin(self.joined)


def numbers_of(words: Sequence[Term]) -> Iterator[Number]:
    """Part numbers and article numbers, across hyphens and blanks, and those within longer ones.

    >>> [one.joined for one in numbers_of(tuple(words_of("pump 7L0 698 151 R, matt"))) if one.first == 1]
    ['7l0698', '7l0698151', '7l0698151r']
    """
    pieces = [
        (part, at, place == 0, place == len(word.parts) - 1, _is_piece(part, word))
        for at, word in enumerate(words)
        for place, part in enumerate(word.parts)
    ]
    complete = {at for at, word in enumerate(words) if len(word.spelled) >= CORRECTED and _weight(word.whole) == CODE}
    for start, (_, first, begins, _, _) in enumerate(pieces):
        joined = ""
        for part, last, _, ends, belongs in pieces[start : start + _PIECES]:
            if not belongs or (first != last and complete.intersection((first, last))):
                break
            joined += part
            if _weight(joined) == CODE:
                yield Number(joined, first, last, begins and ends)


def _is_piece(part: str, word: Term) -> bool:
    """Whether a part of a word may belong to a number: it has a digit, or is a letter or two beside some."""
    if not part.isalpha():
        return not _UNSPACED.match(part)
    short = len(part) <= _LETTERS_ALONE and not _UNSPACED.match(part)
    return short and (word.spelled.isupper() or any(map(str.isdigit, word.whole)))


def _may_be_half(word: str) -> bool:
    """Whether a word may be the first part of a number."""
    return len(word) >= HALF + word.isdigit() and not word.isalpha() and not _UNSPACED.match(word)


def _is_gtin(number: str) -> bool:
    """Whether a number's last digit is the check of an EAN, a UPC or a GTIN."""
    if not (number.isdecimal() and len(number) in _GTIN):
        return False
    return sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(reversed(number))) % 10 == 0


def _shorter(number: str) -> set[str]:
    """A number without each one of its characters."""
    return {number[:place] + number[place + 1 :] for place in range(len(number))}


def _is_near(one: str, another: str) -> bool:
    """Whether numbers differ by a character, wrong, missing or too many, or by two swapped ones, but not in the last.

    The last character counts up, or tells variants apart.

    >>> _is_near("7l0698151r", "7l0689151r"), _is_near("7l0698151r", "7l0698151s")
    (True, False)
    """
    if one[-1] != another[-1]:
        return False
    if len(one) != len(another):
        return one in _shorter(another) or another in _shorter(one)
    wrong = [place for place in range(len(one)) if one[place] != another[place]]
    swapped = [another[place] for place in reversed(wrong)] == [one[place] for place in wrong]
    return len(wrong) == 1 or (len(wrong) == 2 and swapped and wrong[1] - wrong[0] == 1)


def stored_words(caption: str | None) -> list[int]:
    """The words of a caption as a memory keeps them.

    These are wholes, parts, numbers across blanks, what finds a number that is nearly or partly written so, and single
    characters of scripts without spaces.
    """
    stored, words = set[str](), tuple(words_of(caption or ""))
    for word in words:
        stored.update((word.whole, *word.parts))
        if not word.whole.isascii() and _UNSPACED.match(word.whole):
            stored.update(word.whole)
    for number in numbers_of(words):
        stored.add(number.joined)
        if number.is_corrected:
            stored.update(_SHORTER + one for one in _shorter(number.joined))
            stored.update(_BEGUN + number.joined[:length] for length in range(HALF, len(number.joined)))
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

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """The numbers of whole words."""
        return tuple(one for one in numbers_of(self.words) if one.is_whole)

    @cached_property
    def weights(self) -> dict[int, float]:
        """Word -> how much it counts; a number across blanks is one, too."""
        joined = {_index(one.joined): CODE for one in self.numbers}
        return joined | {_index(name): _weight(name) for word in self.words for name in (word.whole, *word.parts)}

    def held(self, caption: frozenset[int]) -> tuple[Number, ...]:
        """The numbers that a caption has."""
        return tuple(one for one in self.numbers if _index(one.joined) in caption)

    def lacks(self, caption: frozenset[int], *, digits: bool = False) -> float:
        """What a caption lacks of the query's words, by weight; ``digits``: of those with digits.

        Infinite where it has only a part of a number that the query writes with blanks.
        """
        held = self.held(caption)
        there = {at for one in held for at in range(one.first, one.last + 1)}
        lacking = dict[str, float]()
        for at, word in enumerate(self.words):
            if at in there or _index(word.whole) in caption:
                continue
            parts = [part for part in word.parts if _index(part) not in caption]
            if parts and _is_piece(word.parts[0], word):
                if any(one.first < one.last and at in (one.first - 1, one.last + 1) for one in held):
                    return math.inf
            elif digits:
                continue
            if parts:
                names = [word.whole] if _weight(word.whole) == CODE else parts
                lacking |= {name: _weight(name) for name in names}
        return sum(lacking.values())

    @cached_property
    def doubtful(self) -> tuple[Number, ...]:
        """Numbers that may be written nearly or partly: the longest ones first, and words with digits."""
        words = (Number(word.whole, at, at, True) for at, word in enumerate(self.words) if _may_be_half(word.whole))
        spans = sorted({*self.numbers, *words}, key=lambda one: one.first - one.last)
        return tuple(
            one
            for one in spans
            if one.first == one.last or not any(a.first <= one.first and one.last <= a.last and a != one for a in spans)
        )

    @cached_property
    def near_weights(self) -> dict[int, float]:
        """What finds captions whose numbers are nearly the query's, or begin so; those that have its own first."""
        terms = dict[str, float]()
        for one in self.doubtful:
            terms |= {one.joined: CODE, _BEGUN + one.joined: 1.0}
            if not _is_gtin(one.joined):
                shorter = _shorter(one.joined)
                terms |= dict.fromkeys((_SHORTER + one.joined, *shorter, *(_SHORTER + name for name in shorter)), 1.0)
        return {_index(name): weight for name, weight in terms.items()}

    def corrected(self, captions: Iterable[str]) -> QueryWords | None:
        """These words with numbers as captions write them; None where each exists, or not exactly one is near."""
        known, spelled = set[str](), dict[str, str]()
        for caption in dict.fromkeys(captions):
            words = tuple(words_of(caption))
            for one in numbers_of(words):
                known.add(one.joined)
                if one.is_corrected:
                    spelled[one.joined] = " ".join(word.spelled for word in words[one.first : one.last + 1])
        changed = list(self.words)
        for one in self.doubtful:
            near = {name for name in spelled if _is_near(name, one.joined)} if not _is_gtin(one.joined) else set()
            near = near or {name for name in spelled if name.startswith(one.joined)}
            longest = [name for name in near if not any(name in longer for longer in near - {name})]
            if one.joined not in known and len(longest) == 1 and changed[one.first] in self.words:
                term = Term(spelled[longest[0]], longest[0], (longest[0],))
                changed[one.first : one.last + 1] = [term] * (one.last + 1 - one.first)
        return QueryWords(tuple(dict.fromkeys(changed))) if changed != list(self.words) else None

    def matched(self, caption: str) -> str:
        """The part of a caption that has these words."""
        names = {name for word in self.words for name in (word.whole, *word.parts)}
        joined, words = {one.joined for one in self.numbers}, tuple(words_of(caption))
        there = {at for at, word in enumerate(words) if names.intersection((word.whole, *word.parts))}
        there.update(at for one in numbers_of(words) if one.joined in joined for at in range(one.first, one.last + 1))
        return " ".join(dict.fromkeys(words[at].spelled for at in sorted(there)))


def _weight(word: str) -> float:
    mixed = len(word) >= CODE_LENGTH and not word.isalpha() and not _UNSPACED.match(word)
    return CODE if mixed and not (word.isdigit() and len(word) < DIGITS) else 1.0


@dataclass(frozen=True)
class Worded:
    """A pair that was found by the words of its caption; ``read`` gives their indices, and its vector (D,)."""

    score: float
    id: str
    caption: str
    read: Callable[[], tuple[frozenset[int], Vectors]]


class StandIn(NamedTuple):
    """What stands in for a query: a vector (D,), the part of a caption that has its words, and ids of such pairs."""

    vector: Vectors
    matched: str
    ids: tuple[str, ...]


def stand_in(query: QueryWords, found: Sequence[Worded], pairs: int) -> StandIn | None:
    """What stands in for a query by its words; None: nothing does.

    Args:
        query: its words.
        found: pairs by score, the best first: :data:`MOST` and one more, or all that share the best score.
        pairs: of the memory.
    """
    if not found:
        return None
    best = found[0].score
    equal = [one for one in found if one.score >= best * EQUAL]
    words, vectors = zip(*(one.read() for one in equal), strict=True)
    if query.lacks(words[0]):
        holders = _holders(query.held(words[0]), found)
        lacking = query.lacks(words[0], digits=holders <= FEW) * math.log(2.0 * pairs + 2.0)
        if not holders or best < SHARE * (best + lacking):
            return None
    alone = [place for place, one in enumerate(words) if one <= query.weights.keys()]
    chosen = alone or range(len(equal))
    stacked = np.stack([vectors[place] for place in chosen])
    mean = stacked.mean(axis=0)
    mean /= np.maximum(np.linalg.norm(mean), np.float32(1e-12))
    if len(chosen) > MOST and float((stacked @ mean).min()) < _SAME:
        return None
    ids = tuple(equal[place].id for place in chosen)
    return StandIn(mean.astype(np.float32), query.matched(equal[chosen[0]].caption), ids)


def _holders(held: Collection[Number], found: Iterable[Worded]) -> int:
    """How many captions have one of some numbers: those found first, and one more than :data:`FEW` at most."""
    names, captions = {one.joined for one in held}, dict.fromkeys(one.caption for one in found)
    having = takewhile(lambda text: names & {one.joined for one in numbers_of(tuple(words_of(text)))}, captions)
    return len(list(islice(having, FEW + 1)))


Find: TypeAlias = Callable[[Mapping[int, Mapping[int, float]], bool], list[list[Worded]]]
"""Finds :data:`MOST` pairs, and one more, whose captions have most of the words of some rows, by weight and IDF; True:
also those that conditions and exclusions of the search hide."""


class StandIns(NamedTuple):
    """What a memory is searched with, (B, D), and of B queries what :class:`StandIn` says; nothing where none does."""

    vectors: Vectors
    words: list[str]
    word_ids: list[tuple[str, ...]]


def stand_ins(search: Search, vectors: Vectors, pairs: int, find: Find) -> StandIns:
    """What stands in for B queries.

    A query that no caption covers is looked for once more, with its numbers as captions write them.

    Args:
        search: with the words of its queries.
        vectors: (B, D) of the queries.
        pairs: that the memory has learned from; 0: nothing moves yet, so nothing stands in.
        find: pairs for the words of some rows.
    """
    taken = StandIns(vectors.copy(), [""] * len(vectors), [()] * len(vectors))

    def look(queries: Mapping[int, QueryWords]) -> None:
        hits = find({row: one.weights for row, one in queries.items()}, False) if queries else ()
        for (row, one), found in zip(queries.items(), hits, strict=True):
            if (stands := stand_in(one, found, pairs)) is not None:
                taken.vectors[row], taken.words[row], taken.word_ids[row] = stands

    queries = {row: one for row, one in enumerate(search.words or ()) if one is not None and pairs}
    look(queries)
    doubtful = {row: one for row, one in queries.items() if not taken.word_ids[row] and one.doubtful}
    if doubtful:
        near = find({row: one.near_weights for row, one in doubtful.items()}, True)
        corrected = {
            row: one.corrected(hit.caption for hit in hits)
            for (row, one), hits in zip(doubtful.items(), near, strict=True)
        }
        look({row: one for row, one in corrected.items() if one is not None})
    return taken
