"""What was learned and said: all of it is there again, one write at a time, and nothing is lost where several write."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from qdrant_stand_in import Refusal, StandIn
from small_records import D, records, said_record

from reco_plugin.errors import MemoryFull, MemoryStoreError
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.connection import Server
from reco_plugin.memory.server_versions import ServerVersions
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Search

FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)
LARGE = base64.b64encode(np.random.default_rng(0).bytes(410_000)).decode()  # as of 512 dimensions
LEARNED = {"format": 3, "pairs": 7, "fitted": True, "sha256": "ab" * 32, "blob": LARGE}


def test_all_of_it_is_there_again(persistent: Callable[..., Memory]) -> None:
    memory, said = persistent(), [said_record(number) for number in range(200)]
    memory.upsert(records(["a"]))
    memory.change_said(said, ())
    memory.set_calibration(LEARNED)
    memory.close()
    again = persistent(create=False)
    assert (again.header.calibration, list(again.header.said.values())) == (LEARNED, said)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_a_folder_cannot_write_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        memory.change_said([said_record(1)], ())
        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
            with pytest.raises(MemoryFull, match="No space left"):
                memory.change_said([said_record(2)], ())
        assert list(memory.header.said) == [said_record(1)["id"]]
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        assert list(memory.header.said) == [said_record(1)["id"]]


# --- on a server


@pytest.fixture(params=["http", "grpc"])
def place(request: pytest.FixtureRequest, server: StandIn) -> str:
    """A memory that learned something."""
    url = server.url(request.param)
    with opened(url) as memory:
        memory.upsert(records(["a", "b"]))
        memory.set_calibration(LEARNED)
    return url


def opened(url: str, collection: str = "reco", **options: object) -> closing[Memory]:
    return closing(open_memory(url, FINGERPRINT, collection=collection, options=MemoryOptions(**options)))  # type: ignore[arg-type]


def test_the_reserved_point_is_no_pair(place: str) -> None:
    with opened(place) as memory:
        memory.change_said([said_record(1)], ())
        assert memory.count() == 2
        assert sorted(memory.ids_after(None, 9)) == sorted(name for name, _ in memory.payloads()) == ["a", "b"]
        assert sorted(name for batch in memory.scroll() for name in batch.ids) == ["a", "b"]
        found = memory.search(Search(np.eye(1, D, dtype=np.float32), by="image", read="text", k=9))
        assert sorted(found.ids[0]) == ["a", "b"]


def test_two_that_say_something_in_the_same_moment_lose_nothing(place: str) -> None:
    with opened(place) as one, opened(place) as other:

        def say(memory: Memory, start: int) -> None:
            for number in range(start, start + 10):
                memory.change_said([said_record(number)], ())

        threads = [threading.Thread(target=say, args=each) for each in ((one, 0), (other, 10))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.change_said((), [said_record(3)["id"]])
        for memory in (one, other):
            known = {said_record(number)["id"] for number in range(20) if number != 3}
            assert (set(memory.look().said), memory.header.calibration) == (known, LEARNED)


def test_each_version_has_its_own(place: str) -> None:
    with closing(ServerVersions(Server.parse(place), "reco")) as versions, opened(place, refresh_s=1e-9) as reader:
        name = versions.begin(FINGERPRINT)
        with opened(place, name) as new:
            new.upsert(records(["c"]))
        versions.finish(name, 1)
        reader.change_said([said_record(1)], ())
        assert list(versions.all()[0].header.said) == [said_record(1)["id"]]
        versions.use(name)
        assert (reader.look().calibration, dict(reader.header.said)) == ({}, {})
        reader.change_said([said_record(2)], ())
        versions.rollback()
        assert (reader.look().calibration, list(reader.header.said)) == (LEARNED, [said_record(1)["id"]])
        versions.begin(FINGERPRINT)
        assert versions.prune() == ["reco--v3"], "neither the one in use nor the newest finished one"


def test_a_key_that_may_only_read_reads_all_of_it(server: StandIn, place: str) -> None:
    with opened(place) as memory:
        memory.change_said([said_record(1)], ())
    for name in ("upsert", "update_batch", "delete", "update_collection", "create_collection", "aliases", "list"):
        server.engine.refusals[name] = Refusal(403, "forbidden")
    with opened(place) as memory:
        assert (memory.header.calibration, list(memory.header.said)) == (LEARNED, [said_record(1)["id"]])
        with pytest.raises(MemoryStoreError, match="API key"):
            memory.change_said([said_record(2)], ())
        assert list(memory.header.said) == [said_record(1)["id"]]
