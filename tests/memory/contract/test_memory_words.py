"""Captions are found by their words, alike in every kind of memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from small_records import D, axis

from reco_plugin.memory import Memory
from reco_plugin.memory.lexical import MOST, QueryWords
from reco_plugin.types import Filter, Neighbours, Records, Search

CAPTIONS = {
    "fox": "Sticker fox no. QX-4821-B, matt, 12 pieces",
    "other": "Sticker fox no. QX-4822-C, matt, 12 pieces",
    "wolf": "Sticker wolf no. AB-1111-A, matt, 12 pieces",
    "石": "赤い狐のぬいぐるみ",
    "café": "Größe XL, CAFÉ",
    "none": "",
}


def words_of(memory: Memory, captions: dict[str, str]) -> None:
    """Store captions, each with a direction of its own, and let the memory know that it has learned from them."""
    vectors = np.stack([axis(place % D) for place in range(len(captions))])
    payloads = [{"caption": text, "length": len(text)} if text else {} for text in captions.values()]
    memory.upsert(Records(list(captions), vectors, vectors, payloads))
    memory.set_calibration({"pairs": len(captions)})


def ask(memory: Memory, *queries: str, exclude: Any = None, where: Filter | None = None) -> Neighbours:
    """Search with texts whose vectors are like no caption's."""
    vectors = np.tile(np.full(D, D**-0.5, np.float32), (len(queries), 1))
    asked = [QueryWords.of(text) for text in queries]
    return memory.search(Search(vectors, "text", "image", 2, exclude, where, payloads=True, words=asked))


def stood_in(memory: Memory, *queries: str, exclude: Sequence[Collection[str]] | None = None, **how: Any) -> list[str]:
    """The pair whose caption stood in for each query; empty where none did."""
    found = ask(memory, *queries, exclude=exclude, **how)
    assert found.asked is not None
    return [
        ids[0] if words and similarity[0] > 0.999 else ""
        for ids, words, similarity in zip(found.ids, found.words, found.similarity, strict=True)
    ]


def test_a_caption_stands_in_for_a_query_with_its_words(memory: Memory) -> None:
    words_of(memory, CAPTIONS)
    queries = ["qx-4821-b", "QX 4821 B", "a WOLF", "wolf no. ab-1111-a", "狐のぬい", "cafe grosse", "🦊", "unicorn"]
    assert stood_in(memory, *queries) == ["fox", "fox", "wolf", "wolf", "石", "café", "", ""]
    found = ask(memory, "QX-4821-B blue", "blue")
    assert list(found.words) == ["QX-4821-B", ""]
    assert found.asked is not None
    assert np.allclose(found.asked[1], D**-0.5)
    assert found.payloads is not None
    assert found.payloads[0][0] == {"caption": CAPTIONS["fox"], "length": len(CAPTIONS["fox"])}


def test_captions_that_cover_a_query_equally_count_together_unless_they_are_many(memory: Memory) -> None:
    words_of(memory, CAPTIONS)
    found = ask(memory, "sticker fox")
    assert found.asked is not None
    assert np.allclose(found.asked[0], (axis(0) + axis(1)) / np.sqrt(2), atol=1e-3)
    assert set(found.ids[0]) == {"fox", "other"}
    words_of(memory, {str(number): f"dress number {number}" for number in range(MOST + 1)})
    assert list(ask(memory, "dress").words) == [""]
    assert list(ask(memory, "dress number 17").words) == ["dress number 17"]


NUMBERS = {
    "vag": "Pumpe, Teilenummer 7L0 698 151 R, EAN 4006381333931",
    "honda": "Filter 12345-ABC-678, black",
    "joined": "ポンプ品番1K0615301AA 黒",
    "a": "Belt 55566677A1",
    "b": "Belt 55566677B1",
}


def test_a_number_is_found_as_people_type_it(memory: Memory) -> None:
    words_of(memory, NUMBERS)
    typed = ["7l0698151r", "7L06 981 51R", "7L0 699 151 R", "7L0691851R", "7L0698151RX", "7L0 698"]
    assert stood_in(memory, *typed) == ["vag", "vag", "vag", "vag", "", "vag"]
    typed = [
        "looking for spare no. 12345ABC678 please",
        "do you have 12345-ABX-678 in stock",
        "品番1K0 615 301 AAはありますか",
    ]
    assert stood_in(memory, *typed) == ["honda", "honda", "joined"]
    found = ask(memory, "pump 7L0689151R")
    assert (found.words[0], found.word_ids[0]) == ("7L0 698 151 R", ("vag",))


def test_no_number_is_answered_by_its_neighbour(memory: Memory) -> None:
    words_of(memory, NUMBERS)
    typed = [
        "4006381333931",
        "4006381333932",
        "4006381333930",
        "55566677A1",
        "55566677C1",
        "7L0 698 151 S",
        "9X9999999Q",
    ]
    assert stood_in(memory, *typed) == ["vag", "", "", "a", "", "", ""]
    assert stood_in(memory, "55566677A1", exclude=[["a"]]) == [""]  # it exists, so it is no other
    assert stood_in(memory, "12345-ABX-678", exclude=[["honda"]]) == [""]


def test_conditions_and_exclusions_hold_for_words(memory: Memory) -> None:
    words_of(memory, CAPTIONS)
    assert stood_in(memory, "QX-4821-B", "wolf no", exclude=[["fox"], []]) == ["", "wolf"]
    assert stood_in(memory, "QX-4821-B", where={"length": len(CAPTIONS["fox"])}) == ["fox"]
    assert stood_in(memory, "QX-4821-B", where={"length": 1}) == [""]


def test_what_is_written_is_found_by_its_words_at_once(memory: Memory) -> None:
    words_of(memory, CAPTIONS)
    vector = axis(7)[None]
    memory.upsert(Records(["fox"], vector, vector, [{"caption": "ZZ-9000-Z"}]))
    assert stood_in(memory, "ZZ-9000-Z", "QX-4821-B") == ["fox", ""]
    memory.delete(["fox"])
    assert stood_in(memory, "ZZ-9000-Z") == [""]
    words_of(memory, {"fox": CAPTIONS["fox"]})
    assert stood_in(memory, "QX-4821-B") == ["fox"]
