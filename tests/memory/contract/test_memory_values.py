"""Values up to their bounds: what a memory takes comes back equal, and what it refuses leaves it as it was."""

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
from small_records import axis, everything, records

from reco_plugin.errors import InputError, MemoryStoreError
from reco_plugin.memory import Memory
from reco_plugin.memory.filters import parse_filter
from reco_plugin.types import Search
from reco_plugin.values import (
    EXCLUSIONS,
    PAYLOAD_LEVELS,
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


# --- exclusions


def test_many_exclusions_are_kept_out(memory: Memory) -> None:
    memory.upsert(records(["a", "b"], [axis(0), axis(1)]))
    hidden = ["a", *(f"x{i}" for i in range(EXCLUSIONS - 1))]
    found = memory.search(Search(np.stack([axis(0)] * 4), by="image", read="text", k=2, exclude=[hidden] * 4))
    assert found.ids == [["b"]] * 4


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
