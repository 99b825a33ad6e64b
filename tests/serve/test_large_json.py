"""Large JSON is parsed part by part, and comes to what it is as a whole."""

from __future__ import annotations

import json
import random
from functools import partial
from typing import Any

import pytest

from reco_plugin.serve import large
from reco_plugin.serve.wire import load_json

WORDS = ["a", "]", "[", "\\", '"', 'a\\"b,', "é", ":{", "", "狐"]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_PART", 40)
    monkeypatch.setattr(large, "_LOOKED_AT", 64)


def anything(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(8 if depth else 5)
    if kind < 3:
        return [rng.random(), None, rng.choice(WORDS) * rng.randrange(1, 9)][kind]
    if kind < 5:
        return [rng.random() for _ in range(rng.randrange(20))]
    if kind < 7:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(8))]
    return {rng.choice(WORDS) * rng.randrange(9): anything(rng, depth - 1) for _ in range(rng.randrange(8))}


def outcome(parse: Any, body: bytes) -> Any:
    try:
        return parse(body)
    except ValueError as error:
        return str(error)


def test_the_parts_come_to_the_whole_and_what_is_wrong_is_wrong_in_the_same_words(small_parts):
    rng, right = random.Random(0), 0
    for _ in range(200):
        body = bytearray(
            json.dumps(anything(rng, 4), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()
        )
        if rng.random() < 0.5:
            place = rng.randrange(len(body))
            body[place : place + rng.randrange(2)] = rng.choice(
                [b"", b"]", b"}", b"[", b",", b'"', b":", b" ", b"\\", b"\0"]
            )
        whole = outcome(load_json, body)
        assert outcome(partial(large.load_parts, load=load_json), body) == whole, body
        right += not isinstance(whole, str)
    assert 60 < right < 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * 50 + b"]",
        b"[" + b"1," * 50 + b"1}",
        b"[" + b"1," * 50 + b"1] 2",
        b"[" + b"1," * 20 + b"]" + b"[" + b"1," * 20 + b"1]",
        b'{"a": ' + b"1" * 50 + b",}",
        b'{"a" ' + b"[1," * 50 + b"1]}",
        b"\xef\xbb\xbf[" + b"1," * 50 + b"1]",
        ("[" + "1," * 50 + "1]").encode("utf-16"),
        b"[" * 60 + b"]" * 60,
        b'["' + b"\\" * 200 + b'", 1, "' + b"\\" * 201 + b'", 2]' + b'"]',
        b'["' + b"\\" * 400_000 + b'n", 1]',  # minutes, if it is looked at from each backslash
        b'["' + b"\\" * 400_001 + b'x", 1]',
    ],
    ids=range(12),
)
def test_odd_ones_are_taken_as_they_are_as_a_whole(small_parts, body):
    assert outcome(partial(large.load_parts, load=load_json), body) == outcome(load_json, body)


def test_nothing_large_is_parsed_at_once_but_a_text():
    sizes = list[int]()

    def load(body: bytes) -> Any:
        sizes.append(len(body))
        return load_json(body)

    vectors = [[0.25] * 1000 for _ in range(300)]
    body = json.dumps({"modality": "text", "vectors": vectors, "one": vectors[0] * 200}).encode()
    assert large.load_parts(body, load)["vectors"] == vectors
    assert max(sizes) <= large._PART + 2 < len(body) / 10
    assert large.load_parts(json.dumps(["x" * 500_000]).encode(), load) == ["x" * 500_000]
    assert max(sizes) == 500_002
