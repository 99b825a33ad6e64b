"""Values at and beyond their bounds: what a memory takes comes back equal, what it refuses is named."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from small_records import D, axis, everything, records, unit

from reco_plugin.errors import InputError, MemoryStoreError, VectorError
from reco_plugin.memory import Memory
from reco_plugin.memory.filters import parse_filter
from reco_plugin.types import Records, Search
from reco_plugin.values import (
    EXCLUSIONS,
    EXCLUSIONS_AT_ONCE,
    MAX_K,
    PAYLOAD_LEVELS,
    WHERE_KEYS,
    WHERE_NUMBERS,
    WHERE_TEXTS,
)

pytestmark = pytest.mark.slow

EACH_KIND = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def nested(levels: int, last: Any = None) -> dict[str, Any]:
    """A payload of so many levels, lists and objects in turn."""
    value: Any = last
    for level in range(levels, 1, -1):
        value = {"a": value} if level % 2 else [value]
    return {"top": value}


def holding_itself() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["self"] = [inner]
    return inner


def search(memory: Memory, **options: Any) -> list[list[str]]:
    given = {"by": "image", "read": "text", "k": 3} | options
    return memory.search(Search(axis(0)[None], **given)).ids


# --- payloads


def test_the_deepest_payload_comes_back(memory: Memory) -> None:
    client = getattr(memory, "_client", None)
    if isinstance(client, QdrantClient) and client.init_options["prefer_grpc"]:  # whose messages end before
        with pytest.raises(MemoryStoreError):
            memory.upsert(records(["a"], payloads=[nested(PAYLOAD_LEVELS)]))
        deepest = nested(30)
    else:
        deepest = nested(PAYLOAD_LEVELS, "end")
    memory.upsert(records(["a"], payloads=[deepest]))
    assert everything(memory)["a"][2] == deepest


def test_a_payload_that_is_too_deep_or_no_json_is_refused_and_the_rest_stays(memory: Memory) -> None:
    memory.upsert(records(["a"], payloads=[{"n": 1}]))
    for payload in (nested(65, {}), nested(100_000), holding_itself(), {"sizes": [1, {"width": float("nan")}]}):
        with pytest.raises(InputError, match=r"payload of 'b' (is nested deeper than 64 levels|holds nan)"):
            memory.upsert(records(["b"], payloads=[payload]))
    memory.upsert(records(["c"]))
    assert set(everything(memory)) == {"a", "c"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


HALF = re.compile("[\ud800-\udfff]")  # of a sign that UTF-16 writes as two


def assert_alike(found: Any, given: Any) -> None:
    """Equal, but for the last bit of a number with a fraction: Qdrant's JSON parser rounds some of them."""
    if isinstance(given, dict):
        assert found.keys() == given.keys()
        for key, value in given.items():
            assert_alike(found[key], value)
    elif isinstance(given, list):
        assert len(found) == len(given)
        for one, other in zip(found, given, strict=True):
            assert_alike(one, other)
    elif isinstance(given, float):
        # Qdrant's parser multiplies rounded digits by a rounded power of ten: three roundings of half a unit each.
        assert abs(found - given) <= 2 * math.ulp(given)
    else:
        assert found == given and type(found) is type(given)


@EACH_KIND
@given(st.dictionaries(st.text(st.characters(), max_size=12), JSON | st.just("\udfff"), max_size=6))
@example({"f": 5e-324, "g": 1.7976931348623157e308, "h": 0.1 + 0.2, "i": -0.0, "j": 2**63 - 1, "k": -(2**63)})
@example({"\ud7a3": "\\ud800"})  # a sign of Korean, and six of ASCII
@example({"": 4.2884751865446724e51})  # comes back from Edge as 4.288475186544672e51
def test_a_payload_comes_back_equal_or_is_refused(backend: Any, payload: dict[str, Any]) -> None:
    memory = backend.opened[0] if backend.opened else backend.open()
    memory.delete(["a"])
    sound = not HALF.search(json.dumps(payload, ensure_ascii=False))
    if sound and "_reco_id" not in payload:
        memory.upsert(records(["a"], payloads=[payload]))
        assert_alike(dict(memory.payloads(["a"]))["a"], payload)
    else:
        with pytest.raises(InputError, match="the payload of 'a'"):
            memory.upsert(records(["a"], payloads=[payload]))
        assert memory.count() == 0


# --- filters


def test_many_texts_and_numbers_are_found_as_few_are(memory: Memory) -> None:
    rows = {
        "t": {"v": "t7"},
        "n": {"v": 30},
        "f": {"v": 60.0},
        "half": {"v": 30.5},
        "list": {"v": ["x", 90]},
        "b": {"v": True},
    }
    memory.upsert(records(list(rows), payloads=list(rows.values())))
    texts, numbers = [f"t{i}" for i in range(WHERE_TEXTS)], [3 * i for i in range(WHERE_NUMBERS)]
    assert set(search(memory, k=9, where={"v": texts})[0]) == {"t"}
    assert set(search(memory, k=9, where={"v": numbers})[0]) == {"n", "f", "list"}
    assert set(search(memory, k=9, where={"v": [*texts, *numbers, True]})[0]) == {"t", "n", "f", "list", "b"}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"v": [str(i) for i in range(WHERE_TEXTS + 1)]}, "10,001 values, at most 10,000 texts.*ask in parts"),
        ({"v": list(range(WHERE_NUMBERS + 1))}, "101 values, at most.*give numbers as bounds"),
        ({str(i): 1 for i in range(WHERE_KEYS + 1)}, "filter: 17 keys, at most 16"),
        ("x", "filter: expected conditions.*found 'x'"),
        ({"v": float("1e400")}, "filter 'v': expected.*found inf"),
        ({"v": {"gte": 10**400}}, "filter 'v': expected.*found "),
        ({"v": 2**53 + 1}, "filter 'v': expected.*found 9007199254740993"),
        ({"v": {"near": 1}}, "filter 'v': expected bounds of gt, gte, lt, lte"),
        ({"v": {"gte": True}}, "filter 'v': expected.*found True"),
        ({"v": "\ud800"}, r"filter 'v': expected text in Unicode.*found '\\ud800'"),
        ({"v": [holding_itself()]}, "filter 'v': expected"),
        ({'a"b': 1}, "is no key to filter by"),
        ({"_reco_id": "a"}, "is no key to filter by"),
    ],
)
def test_a_filter_beyond_the_bounds_names_key_value_and_way_out(where: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_filter(where)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0, 2**53]),
    st.sampled_from(["", "1", "ä"]),
)
BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(-3, 3) | st.just(0.5), min_size=1)


@EACH_KIND
@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), SCALARS | st.lists(SCALARS, max_size=3)), min_size=1, max_size=8),
    st.dictionaries(st.sampled_from("ab"), SCALARS | st.lists(SCALARS, max_size=30) | BOUNDS, min_size=1),
)
def test_a_filter_finds_what_the_reference_finds(backend: Any, payloads: list[Any], where: dict[str, Any]) -> None:
    memory = backend.opened[0] if backend.opened else backend.open()
    memory.delete([name for name, _ in list(memory.payloads())])
    memory.upsert(records([str(i) for i in range(len(payloads))], payloads=payloads))
    conditions = parse_filter(where)
    expected = {str(i) for i, each in enumerate(payloads) if all(condition.fits(each) for condition in conditions)}
    assert set(search(memory, k=len(payloads), where=where)[0]) == expected


# --- k and exclusions


def test_what_would_fill_the_memory_of_the_process_is_refused(memory: Memory) -> None:
    with pytest.raises(InputError, match=r"4,000 queries with k=10,000 would read 1\.2 GiB.*fewer queries"):
        memory.search(Search(unit(0, 4000), by="image", read="text", k=MAX_K))
    hidden = [str(i) for i in range(EXCLUSIONS)]
    queries = np.stack([axis(0)] * (EXCLUSIONS_AT_ONCE // EXCLUSIONS + 1))
    with pytest.raises(InputError, match="1,010,000 for all, at most 10,000 and 1,000,000: ask with fewer queries"):
        memory.search(Search(queries, by="image", read="text", k=1, exclude=[hidden] * len(queries)))


def test_many_exclusions_are_kept_out(memory: Memory) -> None:
    memory.upsert(records(["a", "b"], [axis(0), axis(1)]))
    hidden = ["a", *(f"x{i}" for i in range(EXCLUSIONS - 1))]
    found = memory.search(Search(np.stack([axis(0)] * 4), by="image", read="text", k=2, exclude=[hidden] * 4))
    assert found.ids == [["b"]] * 4


@pytest.mark.parametrize("exclude", [[[str(i) for i in range(EXCLUSIONS + 1)]], "a", 5, [5], [["a", 5]], [["a"]] * 2])
def test_exclusions_that_are_none(memory: Memory, exclude: Any) -> None:
    with pytest.raises(InputError, match="exclude: "):
        search(memory, exclude=exclude)


# --- ids


@EACH_KIND
@given(st.lists(st.text(st.characters(), max_size=12), min_size=1, max_size=6, unique=True))
@example(["\ud7a3", "\ue000", "\ud800"])  # Korean, and beside it what is half of a sign
def test_an_id_comes_back_equal_or_is_refused(backend: Any, ids: list[str]) -> None:
    memory = backend.opened[0] if backend.opened else backend.open()
    sound = [name for name in ids if name and not HALF.search(name)]
    if len(sound) < len(ids):
        with pytest.raises(InputError, match="an id is any Unicode text that is not empty, found"):
            memory.upsert(records(ids))
    memory.upsert(records(sound))
    assert [batch.ids for batch in memory.scroll(ids=sound)] == [sound] * bool(sound)
    assert memory.delete(sound) == len(sound) and memory.count() == 0


# --- vectors


BAD: list[Any] = [unit(1, 1) * 1.02, unit(1, 1) + 0j, unit(1, 1).astype(str), np.full((1, D), 1e300)]


def test_vectors_that_are_none_are_refused_wherever_they_come(memory: Memory) -> None:
    for bad in BAD:
        with pytest.raises(VectorError):
            memory.upsert(Records(["a"], unit(1, 1), bad, [{}]))
        with pytest.raises(VectorError):
            memory.search(Search(bad, by="image", read="text", k=1))
    assert memory.count() == 0
