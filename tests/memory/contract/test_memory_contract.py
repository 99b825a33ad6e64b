"""What every kind of memory promises. Vectors are 8-d and computable in the head: axis(0) is 1 in the first place."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_records import D, axis, everything, lean, records, said_record, unit

from reco_plugin.errors import (
    ConfigError,
    FingerprintMismatch,
    InputError,
    MemoryLocked,
    MemoryStoreError,
    VectorError,
)
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.base import copy
from reco_plugin.types import MODALITIES, Records, Search
from reco_plugin.values import CONFIRMED

OPENER = Callable[..., Memory]
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)


# --- opening


def test_of_two_that_make_a_memory_at_once_one_has_it(tmp_path: Any) -> None:
    """And the other one hears that it is open, whatever of the first one's making it met."""
    folder, begun, heard = tmp_path / "memory", threading.Barrier(4), list[str]()
    opened: list[Memory] = []

    def make() -> None:
        begun.wait()
        try:
            opened.append(open_memory(folder, FINGERPRINT))
        except MemoryLocked as error:
            heard.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), len(heard)) == (1, 3)
    opened[0].upsert(records(["a"]))
    opened[0].close()
    assert sorted(path.name for path in folder.iterdir()) == ["memory.json", "shard"]


# --- reading in parts


def test_pairs_are_read_in_parts_while_others_are_written(memory: Memory) -> None:
    ids = [f"pair {number}" for number in range(12)]
    memory.upsert(records(ids))
    assert memory.ids_after(None, 100) == memory.ids_after(None, 5) + memory.ids_after(memory.ids_after(None, 5)[-1], 7)
    read, last = [], None
    while part := memory.ids_after(last, 5):
        read += part
        last = part[-1]
        memory.delete([last])  # a place that is gone is gone on from
        memory.upsert(records([f"late {len(read)}"], unit(3, 1), unit(4, 1)))
    assert len(read) == len(set(read))
    assert set(ids) <= set(read)
    with pytest.raises(InputError, match="limit: expected a whole number of at least 1"):
        memory.ids_after(None, 0)


# --- search


def test_k_beyond_count_is_padded(memory: Memory) -> None:
    marked = [{}, {CONFIRMED: True}]
    memory.upsert(records(["near", "far"], [axis(0), lean(0, 1, 0.6)], [axis(2), axis(3)], marked))
    found = memory.search(Search(axis(0)[None], by="image", read="text", k=4))
    assert found.is_confirmed.tolist() == [[False, True, False, False]]
    assert found.ids == [["near", "far"]]
    assert found.found.tolist() == [[True, True, False, False]]
    np.testing.assert_allclose(found.similarity, [[1, 0.6, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.vectors[0], [axis(2), axis(3), axis(2) * 0, axis(2) * 0], atol=1e-6)
    assert found.payloads is None


def test_searches_and_reads_either_side(memory: Memory) -> None:
    stored = {"image": [axis(0), axis(1)], "text": [axis(1), axis(0)]}
    memory.upsert(records(["a", "b"], stored["image"], stored["text"]))
    for by, read in product(MODALITIES, MODALITIES):
        found = memory.search(Search(axis(0)[None], by=by, read=read, k=1))
        row = {"image": 0, "text": 1}[by]
        assert found.ids == [["ab"[row]]], (by, read)
        np.testing.assert_allclose(found.vectors[0, 0], stored[read][row], atol=1e-6)


def test_bounds_of_a_key_that_holds_texts_are_refused(memory: Memory) -> None:
    memory.upsert(records(["a", "b"], payloads=[{"price": "9", "n": 1}, {"price": "30"}]))
    asked = Search(axis(0)[None], by="image", read="text", k=2)
    for bounds in ({"gte": 0, "lt": 20}, 9):
        with pytest.raises(InputError, match="price is a text in this memory, such as '"):
            memory.search(replace(asked, where={"price": bounds}))
    for where in ({"n": {"gt": 1}}, {"gone": {"lt": 1}}, {"price": "10"}):
        assert memory.search(replace(asked, where=where)).ids == [[]]


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 40), k=st.integers(1, 12), gone=st.integers(0, 5))
def test_equals_the_reference(backend: Any, seed: int, rows: int, k: int, gone: int) -> None:
    if backend.kind == "exact":
        pytest.skip("is the reference")
    memory = backend.opened[0] if backend.opened else backend.open()
    memory.delete([name for batch in list(memory.scroll()) for name in batch.ids])
    reference = open_memory(None, FINGERPRINT)
    ids = [f"{seed}-{i}" for i in range(rows)]
    for each in (memory, reference):
        each.upsert(records(ids, unit(seed, rows), unit(seed + 1, rows), [{"n": i % 3} for i in range(rows)]))
        each.delete(ids[:gone])
    queries = unit(seed + 2, 3)
    for where in (None, {"n": {"gte": 1}}):
        asked = Search(queries, by="text", read="image", k=k, where=where, payloads=True, exclude=[ids[-2:], [], []])
        ours, theirs = (each.search(asked) for each in (memory, reference))
        np.testing.assert_allclose(ours.similarity, theirs.similarity, atol=1e-5)
        np.testing.assert_array_equal(ours.found, theirs.found)
        assert ours.ids == theirs.ids
        np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-5)
        assert ours.payloads == theirs.payloads


def test_random_operations_leave_what_a_dict_holds(backend: Any) -> None:
    memory, drawn = backend.open(), np.random.default_rng(7)
    held: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {}
    for step in range(80):
        names = [f"p{row}" for row in drawn.choice(12, drawn.integers(1, 6), replace=False)]
        match drawn.integers(4):
            case 0 | 1:
                image, text = unit(step, len(names)), unit(step + 1000, len(names))
                payloads = [{"n": step, "caption": f"word{row}"} for row in range(len(names))]
                memory.upsert(Records(names, image, text, payloads))
                held |= dict(zip(names, zip(image, text, payloads, strict=True), strict=True))
            case 2:
                assert memory.delete(names) == len(held.keys() & set(names))
                held = {name: pair for name, pair in held.items() if name not in names}
            case _ if backend.kind != "exact":
                memory.close()
                memory = backend.open(create=False)
        assert memory.count() == len(held)
    found = everything(memory)
    assert {name: pair[2] for name, pair in found.items()} == {name: pair[2] for name, pair in held.items()}
    for name, (image, text, _) in held.items():
        np.testing.assert_allclose(np.stack(found[name][:2]), np.stack([image, text]), atol=1e-6)
        near = memory.search(Search(image[None], by="image", read="text", k=len(held), exclude=[["p0"]]))
        ranked = sorted(held.keys() - {"p0"}, key=lambda other: -float(image @ held[other][0]))
        assert near.ids == [ranked]
        cosines = [held[other][0] @ held[other][1] for other in ranked]
        np.testing.assert_allclose(near.cosine[0, : len(ranked)], cosines, atol=1e-6)


# --- filters

PAYLOADS: dict[str, dict[str, Any]] = {
    "none": {},
    "null": {"v": None},
    "true": {"v": True},
    "false": {"v": False},
    "one": {"v": 1},
    "one.0": {"v": 1.0},
    "zero": {"v": 0},
    "2.5": {"v": 2.5},
    "text": {"v": "1"},
    "de": {"v": "de"},
    "list": {"v": [1, 2, "de"]},
    "bools": {"v": [True]},
    "object": {"v": {"v": 1}},
    "big": {"v": 2**53},
    "dotted": {"a.b": 1, "Schlüssel [0]": "ja"},
    "nested": {"a": {"b": 1}},
}
FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"v": 1}, {"one", "one.0", "list"}),
    ({"v": 1.0}, {"one", "one.0", "list"}),
    ({"v": 2.5}, {"2.5"}),
    ({"v": True}, {"true", "bools"}),
    ({"v": False}, {"false"}),
    ({"v": 0}, {"zero"}),
    ({"v": "1"}, {"text"}),
    ({"v": "de"}, {"de", "list"}),
    ({"v": ["de", "1", 2.5, True]}, {"de", "text", "2.5", "true", "bools", "list"}),
    ({"v": ["missing"]}, set()),
    ({"v": []}, set()),
    ({"v": {"gt": 1}}, {"2.5", "list", "big"}),
    ({"v": {"gte": 1, "lt": 2}}, {"one", "one.0", "list"}),
    ({"v": {"lt": 1}}, {"zero"}),
    ({"v": {"lte": 1}}, {"zero", "one", "one.0", "list"}),
    ({"v": {"gt": 1, "lt": 2}}, set()),
    ({"a.b": 1}, {"dotted"}),
    ({"Schlüssel [0]": "ja", "a.b": {"gte": 1}}, {"dotted"}),
    ({"a.b": 1, "v": 1}, set()),
    ({"missing": 1}, set()),
    ({}, set(PAYLOADS)),
]


def test_filter(memory: Memory) -> None:
    memory.upsert(records(list(PAYLOADS), payloads=list(PAYLOADS.values())))
    for where, expected in FILTERS:
        found = memory.search(Search(unit(0, 2), by="text", read="text", k=len(PAYLOADS), where=where))
        assert [set(row) for row in found.ids] == [expected] * 2, where


# --- write


def test_payload_round_trip(memory: Memory) -> None:
    payload = {
        "nested": {"list": [1, 2.5, None, True, {"deep": ["ä", []]}], "empty": {}},
        "Grüße 🦊": "日本\n\u0000",
        'quote "x"': "back\\slash",
        "": -0.1,
        "float": 1.0,
        "big": 2**62,
    }
    memory.upsert(records(["a"], payloads=[payload]))
    found = memory.search(Search(unit(0, 1), by="image", read="text", k=1, payloads=True))
    assert found.payloads == [[payload]]
    assert everything(memory)["a"][2] == payload
    found.payloads[0][0]["nested"].clear()  # a copy, not the memory's own
    assert everything(memory)["a"][2] == payload


# --- what is refused


def test_what_is_refused_leaves_all_as_it_was(memory: Memory) -> None:
    memory.upsert(records(["a"], payloads=[{"n": 1}]))
    before = everything(memory)
    for wrong in (
        records(["b", "b"]),
        records(["b"], unit(1, 1, 6)),
        records(["a", "b"], payloads=[{}, {"width": float("nan")}]),
    ):
        with pytest.raises((InputError, VectorError)):
            memory.upsert(wrong)
    for asked in (
        Search(axis(0), by="image", read="text", k=1),
        Search(axis(0)[None], by="image", read="text", k=1, where={"v": None}),
        Search(axis(0)[None], by="image", read="text", k=1, exclude=[]),
    ):
        with pytest.raises((InputError, VectorError)):
            memory.search(asked)
    assert everything(memory).keys() == before.keys() and dict(memory.payloads()) == {"a": {"n": 1}}


# --- scroll


def test_scroll_reads_everything_once(memory: Memory) -> None:
    ids = [f"id{i}" for i in range(23)]
    image, text = unit(3, 23), unit(4, 23)
    memory.upsert(records(ids, image, text, [{"n": i} for i in range(23)]))
    for batch_size in (1, 7, 1000):
        batches = list(memory.scroll(batch_size))
        seen = [name for batch in batches for name in batch.ids]
        assert sorted(seen) == sorted(ids)
        assert max(len(batch) for batch in batches) <= batch_size
        assert seen == [name for batch in memory.scroll(batch_size) for name in batch.ids]
        for name, (one, other, payload) in everything(memory, batch_size).items():
            row = ids.index(name)
            np.testing.assert_allclose(one, image[row], atol=1e-6)
            np.testing.assert_allclose(other, text[row], atol=1e-6)
            assert payload == {"n": row}


def test_scroll_some_ids_in_their_order(memory: Memory) -> None:
    memory.upsert(records(["a", "b", "c", "d"], payloads=[{"n": i} for i in range(4)]))
    batches = list(memory.scroll(2, ids=["d", "unknown", "a", "d", "b"]))
    assert [name for batch in batches for name in batch.ids] == ["d", "a", "b"]
    assert [payload["n"] for batch in batches for payload in batch.payloads] == [3, 0, 1]
    assert list(memory.scroll(ids=["unknown"])) == []
    assert list(memory.scroll(ids=[])) == []


# --- what is stored with them


def test_calibration_is_there_again(persistent: OPENER) -> None:
    memory = persistent()
    memory.upsert(records(["a"]))
    memory.set_calibration({"format": 1, "blob": "AAAA"})
    memory.close()
    assert persistent(create=False).header.calibration == {"format": 1, "blob": "AAAA"}


def test_feedback_is_there_again_beside_calibration_and_goes_with_a_copy(persistent: OPENER) -> None:
    memory = persistent()
    memory.upsert(records(["a"]))
    assert memory.header.said == {}
    first, second, third = (said_record(number) for number in (1, 2, 3))
    memory.change_said([first], [])
    memory.set_calibration({"format": 1, "blob": "AAAA"})
    memory.change_said([third, second], ["unknown"])
    kept = {one["id"]: one for one in (first, second, third)}
    assert list(memory.look().said.items()) == list(kept.items()), "oldest first"
    memory.close()
    again = persistent(create=False)
    assert list(again.header.said.items()) == list(kept.items())
    assert again.header.calibration == {"format": 1, "blob": "AAAA"}
    target = open_memory(":memory:", FINGERPRINT)
    assert copy(again, target) == 1
    again.change_said([], [first["id"]])
    again.change_said([second | {"by": "bob"}], [third["id"]])
    again.close()
    last = persistent(create=False)
    assert last.header.said == {second["id"]: second | {"by": "bob"}}
    last.change_said([], [second["id"]])
    last.close()
    assert persistent(create=False).header.said == {}


# --- open and close


def test_header_kind_and_location(memory: Memory, backend: Any) -> None:
    assert (memory.kind, memory.location) == (backend.kind, backend.location)
    assert memory.header.fingerprint == FINGERPRINT
    assert memory.header.calibration == {}
    memory.set_calibration({"gate": {"a": 1.5}})
    memory.set_calibration({"b": [1]})
    assert memory.header.calibration == {"b": [1]}
    with pytest.raises(InputError, match="calibration"):
        memory.set_calibration({"b": object()})
    assert memory.header.calibration == {"b": [1]}


def test_reopen_keeps_everything(persistent: OPENER) -> None:
    memory = persistent()
    memory.upsert(records(["a", "b"], payloads=[{"n": 1}, {"ü": ["x"]}]))
    memory.set_calibration({"gate": {"a": 1.5}, "gone": 1})
    memory.set_calibration({"gate": {"a": 2.5}})
    before = everything(memory)
    memory.close()
    again = persistent(create=False)
    assert again.header.fingerprint == FINGERPRINT
    assert again.header.calibration == {"gate": {"a": 2.5}}
    after = everything(again)
    assert list(after) == list(before)
    for name, (image, text, payload) in before.items():
        np.testing.assert_allclose(image, after[name][0], rtol=2e-7)  # qdrant-client scales them anew as it reads them
        np.testing.assert_allclose(text, after[name][1], rtol=2e-7)
        assert payload == after[name][2]


def test_other_encoder_is_refused_by_name(persistent: OPENER) -> None:
    persistent().close()
    with pytest.raises(FingerprintMismatch) as caught:
        persistent(Fingerprint("other/clip", "cd" * 32, D))
    assert "mini/clip" in str(caught.value)
    assert "other/clip" in str(caught.value)
    persistent().close()  # the refused one held nothing open


def test_absent_memory_is_not_made_unasked(persistent: OPENER) -> None:
    for options in ({"create": False}, {"fingerprint": None}):
        with pytest.raises(MemoryStoreError, match="there is no memory"):
            persistent(**options)


def test_close_twice_then_use(memory: Memory) -> None:
    memory.upsert(records(["a"]))
    scrolling = memory.scroll()
    memory.close()
    memory.close()
    for use in (
        lambda: memory.count(),
        lambda: memory.upsert(records(["b"])),
        lambda: memory.delete(["a"]),
        lambda: memory.search(Search(unit(0, 1), by="image", read="text", k=1)),
        lambda: memory.scroll(),
        lambda: next(scrolling),
        lambda: memory.flush(),
        lambda: memory.set_calibration({}),
    ):
        with pytest.raises(MemoryStoreError, match="closed"):
            use()


@pytest.mark.parametrize("location", ["redis://localhost", "grpc://user:secret@localhost", "http://a:secret@localhost"])
def test_a_url_of_no_server_is_refused_and_not_shown(location: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_memory(location, FINGERPRINT)
    assert "secret" not in str(caught.value)


def test_import_is_light() -> None:
    code = (
        "import sys, reco_plugin.memory; print([m for m in sys.modules if 'qdrant' in m or m in ('grpc', 'pydantic')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
