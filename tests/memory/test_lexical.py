"""Words of texts, and which caption stands in for a query by them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from reco_plugin.memory.lexical import MOST, QueryWords, Worded, stand_in, stored_words, words_of

PAIRS = 1000


def wholes(text: str) -> list[str]:
    return [word.whole for word in words_of(text)]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Sticker fox no. QX-4821-B, matt", "qx-4821-b"),
        ("Sticker fox no. QX-4821-B, matt", "QX4821B"),
        ("Sticker fox no. QX–4821–B, matt", "qx 4821 b"),
        ("Café Größe XL", "CAFE GROSSE"),
        ("cafe\u0301", "café"),
        ("ﬁlter ＦＵＬＬ", "filter full"),
        ("赤い狐のぬいぐるみ", "狐"),
        ("红色狐狸贴纸", "狐狸"),
        ("สติกเกอร์สุนัขจิ้งจอก", "สุนัข"),
        ("한국어 여우 스티커", "여우"),
        ("लाल लोमड़ी", "लोमड़ी"),
        ("St. John's wort", "Johns"),
    ],
)
def test_a_caption_has_the_words_of_a_query_however_they_are_written(written: str, asked: str) -> None:
    one = QueryWords.of(asked)
    assert one is not None
    assert one.lacks(frozenset(stored_words(written))) == 0


def test_a_text_of_any_length_has_words() -> None:
    assert len(stored_words("fox " * 500 + "QX-4821-B " * 500)) == 6
    assert len(wholes("fox " * 500)) == 500


def found(query: str, *captions: str) -> tuple[QueryWords, list[Worded]]:
    """The words of a query, and captions as a memory finds them, each with a direction of its own; all words rare."""
    asked = QueryWords.of(query)
    assert asked is not None
    rare, kinds = math.log(PAIRS), sorted(set(captions))
    rows = []
    for caption in captions:
        words = frozenset(stored_words(caption))
        score = sum(weight * rare for word, weight in asked.weights.items() if word in words)
        vector = np.eye(len(kinds), dtype=np.float32)[kinds.index(caption)]
        rows.append(Worded(score, str(len(rows)), caption, partial(lambda *both: both, words, vector)))
    return asked, sorted((row for row in rows if row.score), key=lambda row: -row.score)[: MOST + 1]


@pytest.mark.parametrize(
    ("query", "captions", "words"),
    [
        ("QX-4821-B", ["Sticker fox no. QX-4821-B", "wolf QX-4821-C"], "QX-4821-B"),
        ("QX-4821-B spare part", ["Sticker fox no. QX-4821-B"], "QX-4821-B"),
        ("QX-4821", ["Sticker fox no. QX-4821-B"], "QX-4821-B"),
        ("please, have you got QX-4821-B here", ["Sticker fox no. QX-4821-B"], "QX-4821-B"),
        ("QX-4821-B AB-1111-C", ["Sticker fox no. QX-4821-B"], None),
        ("leather case IPHONE14", [f"sticker {colour} iphone14" for colour in "abcdef"], None),
        ("a red fox please", ["a red fox"], None),
        ("QX-4821-B", ["QX-9999-A"], None),
        ("fox", ["wolf"], None),
    ],
)
def test_a_caption_stands_in_where_it_has_most_of_the_words(query: str, captions: list[str], words: str | None) -> None:
    taken = stand_in(*found(query, *captions), PAIRS)
    assert (None if taken is None else taken.matched) == words


def test_captions_that_cover_a_query_equally_count_together() -> None:
    taken = stand_in(*found("fox", "a fox", "fox sticker", "wolf"), PAIRS)
    assert taken is not None
    assert np.allclose(taken[0], np.array([1, 1, 0]) / math.sqrt(2))


def test_a_broad_query_stays_as_it_is_but_many_pairs_of_one_caption_are_one() -> None:
    assert stand_in(*found("dress", *(f"dress {number}" for number in range(MOST + 1))), PAIRS) is None
    assert stand_in(*found("dress", *(f"dress {number}" for number in range(MOST))), PAIRS) is not None
    assert stand_in(*found("QX-4821-B", *["dress QX-4821-B"] * 100), PAIRS) is not None
