"""Values at and beyond their bounds: what a memory takes comes back equal, what it refuses says why and what to do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from small_records import D, axis, everything, records, unit

from reco_plugin.errors import InputError, MemoryStoreError, VectorError
from reco_plugin.memory import Memory
from reco_plugin.memory.checks import check_search
from reco_plugin.memory.filters import matches, parse_filter
from reco_plugin.memory.points import FilterConstructors, point_id
from reco_plugin.types import Records, Search
from reco_plugin.values import (
    EXCLUSIONS,
    EXCLUSIONS_AT_ONCE,
    NEIGHBOURS,
    PAYLOAD_LEVELS,
    WHERE_KEYS,
    WHERE_NUMBERS,
    WHERE_TEXTS,
)

PLAIN: FilterConstructors[Any] = FilterConstructors(dict, dict, dict, list, bool, set)
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


def search(memory: Memory, **options: Any) -> list[list[str]]:
    given = {"by": "image", "read": "text", "k": 3} | options
    return memory.search(Search(axis(0)[None], **given)).ids


def holding_itself() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["self"] = [inner]
    return inner


# --- payloads


def by_grpc(memory: Memory) -> bool:
    """Whether it reaches its server by gRPC; a real server by what answers beside its URL."""
    client = getattr(memory, "_client", None)
    return isinstance(client, QdrantClient) and bool(client.init_options["prefer_grpc"])


def test_the_deepest_payload_comes_back(memory: Memory) -> None:
    if by_grpc(memory):  # whose messages end before
        memory.upsert(records(["a"], payloads=[nested(30)]))
        assert everything(memory)["a"][2] == nested(30)
        with pytest.raises(MemoryStoreError, match=r"By gRPC a payload may be nested some 30 levels.*use REST"):
            memory.upsert(records(["a"], payloads=[nested(PAYLOAD_LEVELS)]))
        return
    memory.upsert(records(["a"], payloads=[nested(PAYLOAD_LEVELS, "end")]))
    assert everything(memory)["a"][2] == nested(PAYLOAD_LEVELS, "end")
    assert memory.delete(["a"]) == 1


def test_a_payload_that_is_too_deep_is_refused_and_the_rest_stays(memory: Memory) -> None:
    memory.upsert(records(["a"], payloads=[{"n": 1}]))
    for payload in (nested(65, {}), nested(200), nested(100_000), holding_itself()):
        with pytest.raises(
            InputError, match=r"payload of 'b' is nested deeper than 64 levels.* at \['(top|self)'\]\[0\]\["
        ):
            memory.upsert(records(["b"], payloads=[payload]))
    memory.upsert(records(["c"]))
    assert set(everything(memory)) == {"a", "c"}


def test_the_place_in_the_payload_is_named(memory: Memory) -> None:
    with pytest.raises(InputError, match=r"holds nan at \['sizes'\]\[1\]\['width'\]: expected JSON values, finite"):
        memory.upsert(records(["a"], payloads=[{"sizes": [1, {"width": float("nan")}]}]))


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
    assert set(search(memory, k=9, where={"v": [*texts[:-1], *numbers, True]})[0]) == {"t", "n", "f", "list", "b"}


BEYOND: list[tuple[Any, str]] = [
    ({"v": [str(i) for i in range(WHERE_TEXTS + 1)]}, "filter: 10,001 texts, at most 10,000 texts.*ask in parts"),
    ({"v": list(range(WHERE_NUMBERS + 1))}, "filter: 1,001 numbers, at most.*give numbers as bounds"),
    ({"v": list(range(600)), "w": list(range(600))}, "filter: 1,200 numbers"),
    ({"v": [None] * 10**6}, "filter: 1,000,000 values"),
    ({str(i): 1 for i in range(WHERE_KEYS + 1)}, "filter: 17 keys, at most 16"),
    ("x", "filter: expected conditions.*found 'x'"),
    ([], "filter: expected conditions"),
    (7, "filter: expected conditions.*found 7"),
    ({"v": float("1e400")}, "filter 'v': expected.*found inf"),
    ({"v": {"gte": float("1e400")}}, "filter 'v': a bound must be a finite number, found inf"),
    ({"v": {"gte": 10**400}}, "filter 'v': a bound must be a finite number, found 1000"),
    ({"v": 10**30}, "filter 'v': expected.*64 bits.*found 1000000000"),
    ({"v": 10**9999}, "filter 'v': expected.*found int"),
    ({"v": 2**63}, "filter 'v': expected.*found 9223372036854775808"),
    ({"v": "\ud800"}, r"filter 'v': expected text in Unicode.*found '\\ud800'"),
    ({"\udfff": 1}, r"filter: '\\udfff' cannot be filtered by"),
    ({"v": [holding_itself()]}, "filter 'v': expected"),
]


def test_a_filter_beyond_the_bounds_names_key_value_and_way_out(memory: Memory) -> None:
    memory.upsert(records(["a"]))
    for where, message in BEYOND:
        with pytest.raises(InputError, match=message):
            search(memory, where=where)
    assert search(memory) == [["a"]]


def test_many_values_are_few_conditions() -> None:
    """A pair's payload is read anew for each condition that is compared with it."""
    texts, numbers = [str(i) for i in range(WHERE_TEXTS)], list(range(WHERE_NUMBERS))
    assert compared({"v": texts}) == 1
    assert compared({"v": numbers}, -1) == 1
    for number in (0, 100, 100.5, WHERE_NUMBERS - 1):
        assert compared({"v": numbers}, number) <= 8 * 4  # branches, levels


def compared(where: dict[str, Any], value: Any = None) -> int:
    """How many conditions are compared with a value until a filter is decided, as Qdrant goes through it."""
    wanted = check_search(Search(unit(0, 1), by="image", read="text", k=1, where=where), D)
    times = 0

    def holds(made: Any) -> bool:
        nonlocal times
        if "key" not in made:
            must, should = made.get("must") or (), made.get("should")
            return all(map(holds, must)) and (not should or any(map(holds, should)))
        times += 1
        bounds = made.get("range")
        return value is not None and bounds is not None and bounds["gte"] <= value <= bounds["lte"]

    for made in PLAIN.filters(wanted):
        holds(made)
    return times


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.0, 2**53, -(2**60)]),
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
    expected = {str(i) for i, payload in enumerate(payloads) if matches(conditions, payload)}
    assert set(search(memory, k=len(payloads), where=where)[0]) == expected


# --- k and exclusions


def test_any_whole_number_is_a_k(memory: Memory) -> None:
    memory.upsert(records(["a", "b"], [axis(0), axis(1)]))
    assert search(memory, k=np.int64(1)) == search(memory, k=np.uint8(1)) == [["a"]]
    assert search(memory, k=NEIGHBOURS) == [["a", "b"]]


def test_another_k_is_refused(memory: Memory) -> None:
    for k in (10**9, NEIGHBOURS + 1, 10**9999, 0, np.int64(-1), True, 1.0, "5", None):
        with pytest.raises(InputError, match="k must be a whole number from 1 to 10,000, got"):
            search(memory, k=k)


def test_what_would_fill_the_memory_of_the_process_is_refused(memory: Memory) -> None:
    with pytest.raises(InputError, match=r"4,000 queries with k=10,000 would read 1\.2 GiB.*fewer queries"):
        memory.search(Search(unit(0, 4000), by="image", read="text", k=NEIGHBOURS))


def test_many_exclusions_are_kept_out(memory: Memory) -> None:
    memory.upsert(records(["a", "b"], [axis(0), axis(1)]))
    hidden = ["a", *(f"x{i}" for i in range(EXCLUSIONS - 1))]
    found = memory.search(Search(np.stack([axis(0)] * 4), by="image", read="text", k=2, exclude=[hidden] * 4))
    assert found.ids == [["b"]] * 4


EXCLUDED: list[tuple[Any, str]] = [
    ([[str(i) for i in range(EXCLUSIONS + 1)]], "10,001 ids for one query.*at most 10,000"),
    ("a", "one collection of ids per query, found 'a'"),
    (5, "one collection of ids per query, found 5"),
    ([5], "exclude: expected a collection of ids, found the single value 5"),
    ([["a", 5]], "exclude: an id is any Unicode text.*found 5"),
]


def test_exclusions_that_are_none(memory: Memory) -> None:
    for exclude, message in EXCLUDED:
        with pytest.raises(InputError, match=message):
            search(memory, exclude=exclude)


def test_exclusions_of_all_queries_are_counted(memory: Memory) -> None:
    hidden = [str(i) for i in range(EXCLUSIONS)]
    queries = np.stack([axis(0)] * (EXCLUSIONS_AT_ONCE // EXCLUSIONS + 1))
    with pytest.raises(InputError, match="1,010,000 for all, at most 10,000 and 1,000,000: ask with fewer queries"):
        memory.search(Search(queries, by="image", read="text", k=1, exclude=[hidden] * len(queries)))


def test_queries_that_share_exclusions_share_a_filter() -> None:
    hidden = [str(i) for i in range(100)]
    asked = Search(unit(0, 256), by="image", read="text", k=1, exclude=[hidden] * 255 + [["a"]], where={"v": 1})
    wanted = check_search(asked, D)
    made = list(PLAIN.filters(wanted))
    assert len({id(each) for each in made}) == 2 and made[0] is made[254] is not made[255]


def test_exclusions_that_queries_share_are_checked_once() -> None:
    class Read(list[str]):
        times = 0

        def __iter__(self) -> Iterator[str]:
            self.times += 1
            return super().__iter__()

    hidden = Read(["a", "b"])
    asked = Search(unit(0, 256), by="image", read="text", k=1, exclude=[hidden] * 256)
    assert check_search(asked, D).exclude == [["a", "b"]] * 256
    assert hidden.times <= 2


# --- ids


def test_an_id_and_the_uuid_that_is_made_of_it_never_replace_one_another(memory: Memory) -> None:
    made = point_id("cat.jpg")
    for first, second in (("cat.jpg", made), (made, "cat.jpg")):
        memory.upsert(records([first], payloads=[{"n": 1}]))
        if memory.kind == "exact":
            memory.upsert(records([second]))
        else:
            with pytest.raises(InputError, match=r"are one point in Qdrant.*give one of these pairs another id"):
                memory.upsert(records(["another", second]))
            with pytest.raises(InputError, match="are one point"):
                memory.upsert(records([first, second]))
            assert set(everything(memory)) == {first}
        assert everything(memory)[first][2] == {"n": 1}
        memory.delete([first, second])


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


@EACH_KIND
@given(
    st.integers(0, 2**31),
    st.floats(0.991, 1.009),
    st.sampled_from([np.float16, np.float32, np.float64, np.longdouble]),
)
def test_vectors_of_about_unit_norm_come_back_normalised(backend: Any, seed: int, norm: float, kind: Any) -> None:
    memory = backend.opened[0] if backend.opened else backend.open()
    given = unit(seed, 1).astype(np.float64) * norm
    memory.upsert(Records(["a"], given.astype(kind), given.astype(kind), [{}]))
    exact = given.astype(kind).astype(np.float64)
    np.testing.assert_allclose(everything(memory)["a"][0], exact[0] / np.linalg.norm(exact), atol=1e-6)
    assert memory.search(Search(given.astype(kind), by="image", read="text", k=1)).ids == [["a"]]


BAD: list[tuple[Any, str]] = [
    (unit(1, 1) * 1.02, "norm 1.02, not 1: divide"),
    (unit(1, 1) + 0j, "not an array of numbers.*complex"),
    (unit(1, 1).astype(str), "not an array of numbers"),
    (np.full((1, D), 1e300), "NaN or infinity"),
    ([[10**400] * D], "not an array of numbers"),
]


def test_vectors_that_are_none_are_refused_wherever_they_come(memory: Memory) -> None:
    for bad, message in BAD:
        with pytest.raises(VectorError, match=message):
            memory.upsert(Records(["a"], unit(1, 1), bad, [{}]))
        with pytest.raises(VectorError, match=message):
            memory.search(Search(bad, by="image", read="text", k=1))
    assert memory.count() == 0
