"""What every kind of memory refuses, by the checks that all of them share: an error names the value and the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_records import D, axis, records, unit

from reco_plugin.errors import InputError, VectorError
from reco_plugin.memory.checks import check_records, check_search
from reco_plugin.memory.filters import parse_filter
from reco_plugin.types import Records, Search
from reco_plugin.values import EXCLUSIONS, EXCLUSIONS_AT_ONCE, MAX_K, WHERE_KEYS, WHERE_NUMBERS, WHERE_TEXTS


def nested(levels: int) -> dict[str, Any]:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": [value]}
    return {"top": value}


def holding_itself() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["self"] = [inner]
    return inner


@pytest.mark.parametrize(
    "payload", [nested(40), nested(50_000), holding_itself(), {"a": [{"b": float("nan")}]}, {"_reco_id": 1}]
)
def test_a_payload_that_cannot_be_stored(payload: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="payload of 'b'"):
        check_records(records(["a", "b"], payloads=[{}, payload]), D)


@pytest.mark.parametrize("ids", ["ab", ["a", "a"], ["a", ""], ["a", 5], ["a", "\ud800"]])
def test_ids_that_cannot_be(ids: Any) -> None:
    with pytest.raises(InputError, match="id"):
        check_records(Records(ids, unit(1, 2), unit(1, 2), [{}, {}]), D)


BAD = [unit(1, 1) * 1.02, unit(1, 1) + 0j, unit(1, 1).astype(str), np.full((1, D), 1e300), unit(1, 1, 6), axis(0)]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_vectors_that_are_none(bad: Any) -> None:
    with pytest.raises((VectorError, InputError)):
        check_records(Records(["a"], unit(1, 1), bad, [{}]), D)
    with pytest.raises(VectorError):
        check_search(Search(bad, by="image", read="text", k=1), D)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({"v": [str(i) for i in range(WHERE_TEXTS + 1)]}, "at most 10,000 texts"),
        ({"v": list(range(WHERE_NUMBERS + 1))}, "give numbers as bounds"),
        ({str(i): 1 for i in range(WHERE_KEYS + 1)}, "17 keys"),
        ("x", "found 'x'"),
        ({"v": {"gte": 10**400}}, "'v'"),
        ({"v": 2**53 + 1}, "found 9007199254740993"),
        ({"v": {"near": 1}}, "gt, gte, lt, lte"),
        ({"v": {}}, "gt, gte, lt, lte"),
        ({"v": {"gte": True}}, "found True"),
        ({"v": {"gt": "a"}}, "expected bounds that are finite numbers.* found 'a'"),
        ({"v": "\ud800"}, "'v'"),
        ({"v": float("nan")}, "'v'"),
        ({"v": None}, "'v'"),
        ({"v": [[1]]}, "'v'"),
        ({'a"b': 1}, "is no key"),
        ({1: 1}, "is no key"),
        ({"_reco_id": "a"}, "is no key"),
    ],
    ids=range(17),
)
def test_a_filter_that_means_nothing(where: Any, named: str) -> None:
    with pytest.raises(InputError, match=f"filter.*{named}"):
        parse_filter(where)


@pytest.mark.parametrize(
    "exclude", [[[str(i) for i in range(EXCLUSIONS + 1)]], "a", 5, [5], [["a", 5]], [["a"]] * 2], ids=range(6)
)
def test_exclusions_that_are_none(exclude: Any) -> None:
    with pytest.raises(InputError, match="exclude: "):
        check_search(Search(axis(0)[None], by="image", read="text", k=3, exclude=exclude), D)


def test_what_would_fill_the_memory_of_the_process() -> None:
    with pytest.raises(InputError, match=r"4,000 queries with k=10,000 would read 1\.2 GiB.*fewer queries"):
        check_search(Search(unit(0, 4000), by="image", read="text", k=MAX_K), D)
    hidden = [str(i) for i in range(EXCLUSIONS)]
    queries = np.stack([axis(0)] * (EXCLUSIONS_AT_ONCE // EXCLUSIONS + 1))
    with pytest.raises(InputError, match="1,010,000 for all"):
        check_search(Search(queries, by="image", read="text", k=1, exclude=[hidden] * len(queries)), D)
