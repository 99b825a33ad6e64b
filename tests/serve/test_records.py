"""Encoded pairs over HTTP: what the memory behind a service is to the commands that fill it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from live_service import wait_until

from reco_plugin import Reco
from reco_plugin.calibration.learner import AskedRuns
from reco_plugin.client import Client
from reco_plugin.client.memory import ServedMemory
from reco_plugin.errors import ConfigError, FingerprintMismatch, InputError, MemoryStoreError, MemoryUnavailable
from reco_plugin.memory import Memory
from reco_plugin.types import Fingerprint, Records, Search
from reco_plugin.values import pack

from .conftest import ADMIN

MARKS = {"reco_row": "0123456789abcdef", "reco_source": "/srv/shop.csv"}


def unit(seed: int, rows: int, dimension: int = 128) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def some(rows: int, **payload: Any) -> Records:
    ids = [f"pair {row}/ä" for row in range(rows)]
    return Records(
        ids, unit(1, rows), unit(2, rows), [{"n": row, "in": [{"x": None}], **payload} for row in range(rows)]
    )


def everything(memory: Memory) -> dict[str, tuple[list[float], list[float], dict[str, Any]]]:
    found = {}
    for part in memory.scroll(7):
        for row, id_ in enumerate(part.ids):
            found[id_] = (part.image[row].tolist(), part.text[row].tolist(), dict(part.payloads[row]))
    return found


@pytest.fixture
def served_memory(reco: Reco, live: Any) -> Iterator[ServedMemory]:
    """The empty memory of a service, reached over a socket."""
    with live(reco) as (url, _):
        memory = ServedMemory.open(Client(url, admin_key=ADMIN), None)
        yield memory
        memory.close()


def test_it_is_the_memory_itself(served_memory: ServedMemory, reco: Reco) -> None:
    store, records = reco.memory.store, some(600, **MARKS)
    before = reco.memory.version
    served_memory.upsert(records)
    assert (served_memory.count(), reco.memory.version > before) == (600, True)
    assert everything(served_memory) == everything(store)
    assert store.count() == 600
    assert dict(served_memory.payloads()) == dict(store.payloads())
    wanted = [records.ids[3], "unknown", records.ids[1]]
    assert dict(served_memory.payloads(wanted)) == {
        id_: records.payloads[row] for id_, row in ((wanted[0], 3), (wanted[2], 1))
    }
    (part,) = served_memory.scroll(10, wanted)
    assert part.ids == [wanted[0], wanted[2]]
    first = served_memory.ids_after(None, 5)
    assert first + served_memory.ids_after(first[-1], 5) == store.ids_after(None, 10)
    assert served_memory.delete([*wanted, records.ids[1]]) == 2
    assert (served_memory.count(), served_memory.delete([]), list(served_memory.payloads([]))) == (598, 0, [])


@pytest.mark.parametrize("k", [1, 3, 700])
def test_it_is_searched_as_the_memory_itself(served_memory: ServedMemory, reco: Reco, k: int) -> None:
    served_memory.upsert(some(600))
    queries = unit(3, 5)
    for more in (
        {},
        {"where": {"n": {"lt": 4}}},
        {"exclude": [["pair 7/ä"]] * 5},
        {"exclude": [["pair 7/ä"], *[[]] * 4]},
    ):
        search = Search(queries, by="image", read="text", k=k, payloads=True, **more)
        ours, same = served_memory.search(search), reco.memory.store.search(search)
        assert ours.ids == same.ids
        assert ours.payloads == same.payloads
        for name in ("similarity", "vectors", "found"):
            np.testing.assert_allclose(getattr(ours, name), getattr(same, name), atol=1e-6)


def test_large_payloads_go_in_parts_and_one_that_is_too_large_is_refused(served_memory: ServedMemory) -> None:
    served_memory.upsert(some(40, note="x" * 200_000, numbers=list(range(2_000))))
    assert served_memory.count() == 40
    with pytest.raises(InputError, match="max_body_bytes"):
        served_memory.upsert(some(1, note="x" * 40_000_000))
    assert served_memory.count() == 40


def test_a_flush_lets_the_service_learn(served_memory: ServedMemory, reco: Reco, drawings: Any) -> None:
    with Reco.open(reco.settings.model, memory=":memory:") as other:
        other.memory.add(drawings)
        served_memory.upsert(next(other.memory.store.scroll()))
    assert reco.memory.calibration is None
    served_memory.flush()
    assert reco.memory.calibration is not None


def test_a_run_of_learning_that_is_asked_for_is_joined_and_tells_how_it_ended(
    served_memory: ServedMemory, reco: Reco, drawings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reco.memory.add(drawings)
    seen = list[tuple[int, int]]()
    learned = served_memory.calibrate(lambda done, total: seen.append((done, total)))
    assert learned == reco.memory.searches.header.calibration
    assert seen[-1] == (seen[-1][1], seen[-1][1]) != (0, 0)
    begun, going = threading.Event(), threading.Event()

    def learn(*_: Any, **__: Any) -> None:
        begun.set()
        going.wait(60)
        raise MemoryStoreError("the disk is full")

    monkeypatch.setattr("reco_plugin.calibration.learner.learn", learn)
    assert served_memory._post("/calibrate", {}, dict)["asked"] == 2
    assert begun.wait(60), "it never began"
    assert served_memory._post("/calibrate", {}, dict)["asked"] == 2
    with pytest.warns(UserWarning, match="the disk is full"):
        with pytest.raises(MemoryStoreError, match="did not learn: the disk is full"):
            served_memory.calibrate(lambda *_: going.set())  # which waits for that run
        wait_until(lambda: reco.memory.learner._thread is None)


def test_who_waits_for_a_run_hears_that_it_could_not_begin_or_that_the_service_was_started_anew(
    served_memory: ServedMemory, reco: Reco, drawings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reco.memory.add(drawings)
    learner = reco.memory.learner

    def count() -> int:
        if threading.current_thread() is learner._thread:
            raise MemoryStoreError("the server is gone")
        return len(drawings)

    with monkeypatch.context() as patched:
        patched.setattr(reco.memory.store, "count", count)
        with pytest.warns(UserWarning, match="the server is gone"):
            with pytest.raises(MemoryStoreError, match="did not learn: the server is gone"):
                served_memory.calibrate(lambda *_: None)
            wait_until(lambda: learner._thread is None)
    begun = served_memory._post("/calibrate", {}, dict)["asked"]
    wait_until(lambda: learner.runs.ended == begun)
    monkeypatch.setattr(reco.memory.learner, "ask", lambda: AskedRuns(asked=begun + 1))  # which the next forgot
    with pytest.raises(MemoryStoreError, match="started anew before it had learned"):
        served_memory.calibrate(lambda *_: None)


def test_calls_that_belong_together_do_not_write_to_two_versions(
    served_memory: ServedMemory, reco: Reco, live: Any
) -> None:
    served_memory.upsert(some(3))
    served_memory._state = "another.0"  # as before a swap, or of the service before a restart
    for call in (lambda: served_memory.upsert(some(5)), lambda: list(served_memory.payloads()), served_memory.flush):
        with pytest.raises(MemoryStoreError, match="another version of the memory was put to use meanwhile"):
            call()
    assert reco.memory.store.count() == 3


def test_what_cannot_be_reached_or_is_another_one_is_an_error(reco: Reco, live: Any) -> None:
    def opened(url: str, key: str | None, fingerprint: Fingerprint | None = None) -> ServedMemory:
        client = Client(url, admin_key=key)
        stack.callback(client.close)
        return ServedMemory.open(client, fingerprint)

    with ExitStack() as stack:
        with live(reco) as (url, _):
            with pytest.raises(FingerprintMismatch, match="other"):
                opened(url, ADMIN, Fingerprint("other", "0" * 64, 128))
            for key, said in ((None, "key_missing"), ("wrong", "key_wrong")):
                with pytest.raises(ConfigError, match=said):
                    opened(url, key)
            memory = opened(url, ADMIN)
        with pytest.raises(MemoryUnavailable, match="What was written stays: give the same command again"):
            memory.upsert(some(1))


def test_who_fills_the_memory_reads_why_it_fails(troubled: Any, live: Any) -> None:
    made = troubled()

    def full() -> None:
        raise MemoryStoreError("cannot write to the memory at '/srv/memory': its disk has 3 MiB left")

    with live(made.reco) as (url, _):
        memory = ServedMemory.open(Client(url, admin_key=ADMIN), None)
        made.seam.trouble = full
        with pytest.raises(MemoryStoreError, match=r"its disk has 3 MiB left.* What was written stays"):
            memory.upsert(some(1))
        made.seam.trouble = None
        memory.upsert(some(1))
        memory.close()


def test_bad_blocks_are_refused_and_nothing_is_written(client: Any, filled: Reco, admin: dict[str, str]) -> None:
    good = {"ids": ["a", "b"], "image": pack(unit(1, 2)), "text": pack(unit(2, 2)), "payloads": [{}, {}]}
    many = [str(number) for number in range(3_000)]
    for change, said in (
        ({"image": "###"}, "image must be base64 of 2 x 128 float32"),
        ({"text": pack(unit(2, 3))}, "text must be base64 of 2 x 128 float32"),
        ({"text": pack(unit(2, 2) * 2)}, "has norm 2"),
        ({"image": base64.b64encode(np.full((2, 128), np.nan, "<f4").tobytes()).decode()}, "NaN"),
        ({"payloads": [{}]}, "payloads has 1 entries, and ids 2"),
        ({"rows": ["x"]}, "rows has 1 entries, and ids 2"),
        ({"ids": ["a", "a"]}, "more than once"),
        ({"ids": ["a", ""]}, "not empty"),
        ({"payloads": [{}, MARKS]}, "has the key 'reco_row'"),
        ({"ids": many}, "max_items"),
        ({"extra": 1}, "not known here"),
    ):
        answer = client.post("/v1/memory/records", json={**good, **change}, headers=admin)
        assert answer.status_code in (400, 413), (change, answer.text)
        assert said in answer.text, (said, answer.text)
    assert len(filled.memory) == 24
    read = client.post("/v1/memory/records/read", json={"limit": 3_000}, headers=admin)
    assert (read.status_code, "max_items" in read.text) == (413, True)
    asked = {"vectors": pack(unit(1, 30)), "by": "image", "read": "text", "k": 100}
    assert client.post("/v1/memory/records/search", json=asked, headers=admin).status_code == 413
    asked |= {"k": 1, "words": ["a"]}
    assert "words must be of 30 queries" in client.post("/v1/memory/records/search", json=asked, headers=admin).text
    use = client.post("/v1/memory/use", json={"name": "memory--v2"}, headers=admin)
    assert "no folder" in use.text
