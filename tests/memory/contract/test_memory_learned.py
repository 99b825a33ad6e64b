"""What was learned and said lies beside the header: small headers, no half states, nothing lost."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_stand_in import Refusal, StandIn, serving
from small_records import D, records, said_record

from reco_plugin.calibration.feedback import MOST, Feedback
from reco_plugin.config import MemoryOptions
from reco_plugin.errors import ConfigError, MemoryStoreError
from reco_plugin.memory import Fingerprint, Memory, kept, kept_served, open_memory, opinion_file
from reco_plugin.memory.layout import Layout
from reco_plugin.memory.opinion_file import OPINIONS_NAME
from reco_plugin.memory.reading import attach
from reco_plugin.memory.server import Server
from reco_plugin.memory.server_versions import ServerVersions

FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)
LARGE = base64.b64encode(np.random.default_rng(0).bytes(410_000)).decode()  # as of 512 dimensions
LEARNED = {"format": 3, "pairs": 7, "fitted": True, "sha256": "ab" * 32, "blob": LARGE}
OTHER = LEARNED | {"pairs": 8, "blob": LARGE[::-1]}
OLDER = [said_record(number) for number in (1, 2)]


def packed(count: int) -> dict[str, Any]:
    """What people said, as older versions stored it."""
    said = [said_record(number) for number in range(1, count + 1)]
    words = [{name: one[name] for name in ("id", "modality", "pair", "right", "by", "at")} for one in said]
    raw = b"".join(base64.b64decode(one[side]) for side in ("query", "answer") for one in said)
    return {"format": 1, "opinions": words, "vectors": base64.b64encode(raw).decode()}


def header_bytes(backend: Any, server: StandIn | None) -> int:
    """Bytes of a memory's header as others read it."""
    if server is None:
        return (Path(backend.location) / "memory.json").stat().st_size
    metadata = server.engine.client.get_collection(f"{backend.collection}--v1").config.metadata
    return len(json.dumps(metadata))


def test_a_header_stays_small_and_all_is_there_again(
    persistent: Callable[..., Memory], backend: Any, request: Any
) -> None:
    if backend.name.endswith("-server"):
        pytest.skip("its metadata is not looked at here")
    server = request.getfixturevalue("stand_in") if backend.name.endswith(("-rest", "-grpc")) else None
    memory = persistent()
    memory.upsert(records(["a"]))
    said = [said_record(number) for number in range(MOST)]
    memory.change_said(said, ())
    memory.set_calibration(LEARNED)
    assert header_bytes(backend, server) < 2_000
    assert memory.header.sizes[0] < 2_000
    assert memory.header.sizes[1] > len(LARGE)
    memory.close()
    again = persistent(create=False)
    assert again.header.calibration == LEARNED
    assert list(again.header.said.values()) == said
    again.set_calibration(OTHER)
    again.set_calibration(LEARNED)
    assert again.header.calibration == LEARNED


# --- in a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A memory that learned and was told something, closed."""
    place = tmp_path / "memory"
    with closing(open_memory(place, FINGERPRINT)) as memory:
        memory.upsert(records(["a"]))
        memory.set_calibration(LEARNED)
        memory.change_said(OLDER, ())
    return place


def state_of(place: Any, **given: Any) -> tuple[Any, list[str]]:
    """What a process that opens a memory now finds: what was learned, and ids of what was said."""
    with closing(open_memory(place, FINGERPRINT, create=False, **given)) as memory:
        return memory.header.calibration, list(memory.header.said)


class Killed(BaseException):
    """Stands for the end of the process."""


CHANGES: dict[str, Callable[[Memory], None]] = {
    "learned": lambda memory: memory.set_calibration(OTHER),
    "noted": lambda memory: memory.note_learning({"id": "x"}),
    "said": lambda memory: memory.change_said([said_record(3)], [OLDER[0]["id"]]),
}


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> Callable[[], bool]:
    """Let the call of this number of a function end the process; returns whether it was reached."""
    calls, real = [0], getattr(owner, name)

    def ends(*arguments: Any, **given: Any) -> Any:
        calls[0] += 1
        if calls[0] >= number:
            raise Killed
        return real(*arguments, **given)

    monkeypatch.setattr(owner, name, ends)
    return lambda: calls[0] >= number


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("older", [False, True], ids=["", "of-an-older-version"])
def test_killed_between_two_writes_of_a_folder_leaves_one_state(
    folder: Path, change: str, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        make_older(folder)
    before = state_of(folder)
    reached = set[str]()
    for name, owner in {"write_whole": kept, "write_header": kept, "_line": opinion_file, "unlink": Path}.items():
        with monkeypatch.context() as patch, closing(open_memory(folder, FINGERPRINT)) as memory:
            was_reached = killed_at(patch, owner, name, 1)
            with suppress(Killed):
                CHANGES[change](memory)
            reached |= {name} if was_reached() else set()
        learned, said = state_of(folder)
        assert learned in (before[0], OTHER if change == "learned" else before[0])
        assert said in (before[1], [OLDER[1]["id"], said_record(3)["id"]])
    assert reached, "the change writes"
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        CHANGES[change](memory)
    assert state_of(folder)[0] == (OTHER if change == "learned" else LEARNED)
    assert len(list(folder.glob("learned-*"))) == 1


def make_older(folder: Path) -> None:
    """Let a folder be as an older version left it: all in its header."""
    header = json.loads((folder / "memory.json").read_text())
    for path in (*folder.glob("learned-*"), folder / OPINIONS_NAME):
        path.unlink()
    (folder / "memory.json").write_text(json.dumps(header | {"trust": LEARNED, "feedback": packed(2)}))


def test_a_folder_of_an_older_version_is_read_and_moved_with_the_next_write(folder: Path) -> None:
    make_older(folder)
    assert state_of(folder) == (LEARNED, [one["id"] for one in OLDER])
    assert not (folder / OPINIONS_NAME).exists(), "reading writes nothing"
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.change_said([said_record(3)], [OLDER[0]["id"]])
    assert state_of(folder) == (LEARNED, [OLDER[1]["id"], said_record(3)["id"]])
    header = json.loads((folder / "memory.json").read_text())
    assert "feedback" not in header
    assert "blob" not in header["trust"]
    again = Feedback.from_records(OLDER, D)
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        kept_ones = Feedback.from_records(list(memory.header.said.values()), D)
    np.testing.assert_array_equal(kept_ones.queries[0], again.queries[1])


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_word_that_was_not_written_to_its_end_is_none_and_is_cut_off(folder: Path, cut: int) -> None:
    file = folder / OPINIONS_NAME
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.change_said([said_record(3)], ())
    file.write_bytes(file.read_bytes()[:-cut])
    assert state_of(folder)[1] == [one["id"] for one in OLDER]
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.change_said([said_record(4)], ())
    assert state_of(folder)[1] == [one["id"] for one in (*OLDER, said_record(4))]


@pytest.mark.parametrize("fails", ["fsync", "write"])
def test_a_word_that_cannot_be_written_is_none(folder: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        with monkeypatch.context() as patch:
            if fails == "fsync":
                patch.setattr(os, "fsync", refuse)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size(folder) + 40, resource.RLIM_INFINITY))
            try:
                with pytest.raises(MemoryStoreError, match=f"cannot write {re.escape(str(folder / OPINIONS_NAME))}"):
                    memory.change_said([said_record(3)], ())
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert list(memory.header.said) == [one["id"] for one in OLDER]
        memory.change_said([said_record(4)], ())
    assert state_of(folder)[1] == [one["id"] for one in (*OLDER, said_record(4))]


def refuse(_: int) -> None:
    """As a disk that is full."""
    raise OSError(28, "No space left on device")


def file_size(folder: Path) -> int:
    """Bytes of what people said."""
    return (folder / OPINIONS_NAME).stat().st_size


def test_a_line_that_is_damaged_says_so_and_can_be_forgotten(folder: Path) -> None:
    file = folder / OPINIONS_NAME
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.change_said([said_record(3)], ())
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"ann", b"bob", 1))
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        assert list(memory.header.said) == ["line 1", said_record(3)["id"]]
        with pytest.raises(ConfigError, match=r"line 1 of .*opinions\.jsonl does not match its checksum"):
            Feedback.from_records(list(memory.header.said.values()), D)
        memory.change_said((), ["line 1"])
    assert state_of(folder)[1] == [said_record(3)["id"]]


def test_a_word_after_a_restore_under_an_open_memory_is_kept(folder: Path) -> None:
    file = folder / OPINIONS_NAME
    backup = file.read_bytes()
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.change_said([said_record(3)], ())
        file.write_bytes(backup)
        memory.change_said([said_record(4)], ())
        assert list(memory.header.said) == [one["id"] for one in (*OLDER, said_record(4))]
    assert state_of(folder)[1] == [one["id"] for one in (*OLDER, said_record(4))]


def test_a_file_that_cannot_be_written_anew_is_not_tried_with_each_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[Path]()

    def full(path: Path, _: Any) -> None:
        tried.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(opinion_file, "_DEAD", 10)
    monkeypatch.setattr(opinion_file, "write_whole", full)
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        for number in range(3, 43):
            memory.change_said([said_record(number)], [said_record(number - 1)["id"]])
    assert 1 < len(tried) < 8
    assert state_of(folder)[1] == [said_record(number)["id"] for number in (1, 42)]


def test_what_was_learned_and_is_missing_or_damaged_says_so(folder: Path) -> None:
    from reco_plugin.calibration import Calibration

    file = next(folder.glob("learned-*"))
    whole = file.read_bytes()
    for write in (lambda: file.write_bytes(whole[:-1]), file.unlink):
        write()
        learned, said = state_of(folder)
        assert len(said) == 2
        with pytest.raises(ConfigError, match=r"is not beside its header.*run `reco memory calibrate`"):
            Calibration.from_json(learned)
        with closing(open_memory(folder, FINGERPRINT)) as memory:
            memory.note_learning({})  # keeps what it cannot read
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.set_calibration(LEARNED)
    assert state_of(folder)[0] == LEARNED
    assert next(folder.glob("learned-*")).read_bytes() == whole


# --- on a server


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def place(request: pytest.FixtureRequest, server: StandIn) -> str:
    """URL of a server with a memory that learned and was told something."""
    url: str = server.url(request.param)
    with closing(opened(url)) as memory:
        memory.upsert(records(["a"]))
        memory.set_calibration(LEARNED)
        memory.change_said(OLDER, ())
    return url


def opened(url: str, collection: str = "reco", **options: Any) -> Memory:
    return open_memory(url, FINGERPRINT, collection=collection, options=MemoryOptions(**options))


WRITES = ("upsert", "update_batch", "delete", "update_collection", "create_collection")


class KilledAt:
    """Lets a write of this number be the last one that a server sees of a client."""

    def __init__(self, server: StandIn, number: int) -> None:
        self.left = number
        self._run, self._server = server.engine.run, server
        server.engine.run = self.run  # type: ignore[method-assign]

    def run(self, operation: str, *arguments: Any, **given: Any) -> Any:
        if operation in WRITES:
            self.left -= 1
            if self.left < 0:
                raise Refusal(400, "killed")
        return self._run(operation, *arguments, **given)

    def end(self) -> None:
        self._server.engine.run = self._run  # type: ignore[method-assign]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("older", [False, True], ids=["", "of-an-older-version"])
def test_killed_between_two_writes_on_a_server_leaves_one_state(
    server: StandIn, place: str, change: str, older: bool
) -> None:
    if older:
        make_older_on(server)
    before, number, met = state_of_served(place), 0, 0
    while True:
        memory, killed = opened(place), KilledAt(server, number)
        with suppress(MemoryStoreError):
            CHANGES[change](memory)
        killed.end()
        memory.close()
        learned, said = state_of_served(place)
        assert learned in (before[0], OTHER if change == "learned" else before[0])
        assert set(said) >= {OLDER[1]["id"]}, "nothing that was acknowledged is lost"
        assert set(said) <= {*before[1], said_record(3)["id"]}
        if killed.left >= 0:
            break
        met, number = met + 1, number + 1
    assert met >= (2 if change == "learned" else 1), "it was killed before each write"
    assert (learned, said) == (
        OTHER if change == "learned" else LEARNED,
        [OLDER[1]["id"], said_record(3)["id"]] if change == "said" else before[1],
    )


def state_of_served(place: str) -> tuple[Any, list[str]]:
    with closing(opened(place)) as memory:
        return memory.header.calibration, list(memory.header.said)


def make_older_on(server: StandIn) -> None:
    """Let the memory be as an older version left it: all in the collection's metadata."""
    server.engine.client.delete_collection("reco--v1--learned")
    server.engine.client.update_collection("reco--v1", metadata={"reco_trust": LEARNED, "reco_feedback": packed(2)})


def test_a_server_of_an_older_version_is_read_and_moved_with_the_next_write(server: StandIn, place: str) -> None:
    make_older_on(server)
    with closing(opened(place, refresh_s=1e-9)) as other:
        assert state_of_served(place) == (LEARNED, [one["id"] for one in OLDER])
        assert not server.engine.client.collection_exists("reco--v1--learned"), "reading writes nothing"
        with closing(opened(place)) as memory:
            memory.change_said([said_record(3)], [OLDER[0]["id"]])
        metadata = server.engine.client.get_collection("reco--v1").config.metadata
        assert len(json.dumps(metadata)) < 2_000
        assert list(other.look().said) == [OLDER[1]["id"], said_record(3)["id"]]
        assert other.header.calibration == LEARNED
    assert state_of_served(place) == (LEARNED, [OLDER[1]["id"], said_record(3)["id"]])


def test_what_an_older_version_writes_until_it_is_moved_is_moved_too(server: StandIn, place: str) -> None:
    make_older_on(server)
    with closing(opened(place)) as memory:
        server.engine.client.update_collection("reco--v1", metadata={"reco_trust": OTHER, "reco_feedback": packed(3)})
        memory.change_said([said_record(4)], ())
    assert state_of_served(place) == (OTHER, [said_record(number)["id"] for number in (1, 2, 3, 4)])


def test_two_that_say_something_in_the_same_moment_lose_nothing(server: StandIn, place: str) -> None:
    memories = [opened(place) for _ in range(2)]
    begun = threading.Barrier(len(memories))

    def say(number: int) -> None:
        begun.wait()
        for row in range(20):
            memories[number].change_said([said_record(100 * (number + 1) + row)], ())

    threads = [threading.Thread(target=say, args=(number,)) for number in range(len(memories))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {*(one["id"] for one in OLDER)} | {said_record(at + row)["id"] for at in (100, 200) for row in range(20)}
    for memory in memories:
        assert set(memory.look().said) == wanted
        memory.close()
    assert set(state_of_served(place)[1]) == wanted


def test_a_look_is_small_and_what_is_known_is_not_read_again(server: StandIn, place: str) -> None:
    with closing(opened(place)) as memory, closing(opened(place)) as other:
        seen = server.engine.seen
        before = dict(seen)
        same = memory.look()
        assert memory.look() is same
        assert {name: seen[name] - before.get(name, 0) for name in ("get", "aliases", "retrieve", "scroll")} == {
            "get": 2,
            "aliases": 2,
            "retrieve": 2,
            "scroll": 0,
        }
        other.change_said([said_record(3)], ())
        before = dict(seen)
        assert len(memory.look().said) == 3
        assert (seen["retrieve"] - before["retrieve"], seen["scroll"] - before["scroll"]) == (2, 1)
        assert memory.header.said[OLDER[0]["id"]] is same.said[OLDER[0]["id"]]
        assert memory.header.calibration["blob"] is same.calibration["blob"], "what was learned is parsed once"


def test_what_was_learned_before_is_kept_a_while_for_those_who_read_its_digest(
    server: StandIn, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        found, _ = server.engine.client.scroll("reco--v1--learned", limit=100)
        return sum("digest" in one.payload for one in found)

    with closing(opened(place)) as memory:
        memory.set_calibration(OTHER)
        assert count() == 2
        monkeypatch.setattr(kept_served, "_KEPT_S", -1.0)
        memory.set_calibration(LEARNED)
    assert count() == 1
    assert state_of_served(place) == (LEARNED, [one["id"] for one in OLDER])


def test_without_the_collection_beside_a_memory_is_not_calibrated_and_who_knew_goes_on(
    server: StandIn, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    from reco_plugin.calibration import Calibration

    with closing(opened(place)) as running:
        other = LEARNED | {"blob": LARGE[1:] + "A"}
        with closing(opened(place)) as memory:
            memory.set_calibration(other)
        server.engine.client.delete_collection("reco--v1--learned")
        assert running.look().calibration == LEARNED | {"pairs": other["pairs"]}
        running.look()
        assert caplog.text.count("what others learned is not there (collection reco--v1--learned)") == 1
    with closing(opened(place)) as memory:
        assert memory.header.said == {}
        with pytest.raises(ConfigError, match="is not beside its header, as after a restore of one of both"):
            Calibration.from_json(memory.header.calibration)
        memory.change_said([said_record(3)], ())  # makes it anew
        memory.set_calibration(OTHER)
    assert state_of_served(place) == (OTHER, [said_record(3)["id"]])


def test_what_was_known_of_one_version_does_not_count_for_another_one(server: StandIn, place: str) -> None:
    with (
        closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions,
        closing(opened(place)) as reader,
    ):
        name = versions.begin(FINGERPRINT)
        with closing(opened(place, name)) as new:
            new.set_calibration(OTHER)
        server.engine.client.delete_collection(f"{name}--learned")
        versions.finish(name, 0, FINGERPRINT)
        versions.use(name)
        assert reader.header.calibration == LEARNED
        assert "blob" not in reader.look().calibration
        assert "blob" not in reader.look().calibration
        versions.rollback()
        assert reader.look().calibration == LEARNED


def test_a_collection_of_somebody_else_under_the_name_is_not_written(server: StandIn) -> None:
    with closing(opened(server.url("grpc"))) as memory:
        vectors = models.VectorParams(size=3, distance=models.Distance.COSINE)
        server.engine.client.create_collection("reco--v1--learned", vectors_config=vectors)
        for change in CHANGES.values():
            with suppress(MemoryStoreError):
                change(memory)
        with pytest.raises(MemoryStoreError, match=r"'reco--v1--learned' at .* holds something else"):
            memory.set_calibration(LEARNED)
        assert server.engine.client.count("reco--v1--learned").count == 0
        assert state_of_served(server.url("grpc")) == ({}, [])


def test_each_version_has_its_own_and_takes_it_with_it(server: StandIn, place: str) -> None:
    client: QdrantClient = server.engine.client
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions:
        name = versions.begin(FINGERPRINT)
        with closing(opened(place, name)) as new:
            new.upsert(records(["a"]))
            new.set_calibration(OTHER)
            new.change_said([said_record(3)], ())
        assert state_of_served(place) == (LEARNED, [one["id"] for one in OLDER])
        with closing(opened(place, refresh_s=1e-9)) as reader:
            versions.finish(name, 1, FINGERPRINT)
            versions.use(name)
            assert (reader.look().calibration, list(reader.header.said)) == (OTHER, [said_record(3)["id"]])
            reader.change_said([said_record(4)], ())
            back = versions.rollback()
            assert list(reader.look().said) == [one["id"] for one in OLDER]
            assert list(versions.header_of(back).said) == [one["id"] for one in OLDER]
            assert versions.header_of(back).calibration == LEARNED
        versions.use(name)
        assert versions.prune(keep=0) == ["reco--v1"]
        assert sorted(each.name for each in client.get_collections().collections) == [name, f"{name}--learned"]
    client.delete_collection(name)  # by hand
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions:
        again = versions.begin(FINGERPRINT)
    assert not client.collection_exists(f"{again}--learned")


def test_a_word_after_a_swap_goes_to_the_version_in_use(server: StandIn, place: str) -> None:
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions, closing(opened(place)) as old:
        name = versions.begin(FINGERPRINT)
        versions.finish(name, 0, FINGERPRINT)
        versions.use(name)
        old.change_said([said_record(3)], ())  # has not read its header since
        old.set_calibration(OTHER)
    assert state_of_served(place) == (OTHER, [said_record(3)["id"]])
    assert server.engine.client.get_collection("reco--v1").config.metadata["reco_trust"]["pairs"] == LEARNED["pairs"]


def test_what_is_learned_from_a_version_is_not_stored_with_the_next_one(server: StandIn, place: str) -> None:
    def metadata(name: str) -> Any:
        return server.engine.client.get_collection(name).config.metadata

    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions, closing(opened(place)) as old:
        for pruned in (False, True):
            before = next(each.name for each in versions.all() if each.live)
            old.note_learning({"id": "x"})
            name = versions.begin(FINGERPRINT)
            versions.finish(name, 0, FINGERPRINT)
            versions.use(name)
            swapped = f"'{name}' was put to use while '{before}' was learned from"
            with pytest.raises(MemoryStoreError, match=swapped):
                old.set_witnesses(["p1"], np.ones((1, 3), np.float32))
            with pytest.raises(MemoryStoreError, match=swapped):
                old.set_calibration(OTHER)
            assert "reco_trust" not in metadata(name)
            if pruned:
                assert before in versions.prune(keep=0)
            old.note_learning({})
            assert pruned or metadata(before)["reco_learning"] == {}
        old.set_calibration(OTHER)
        assert metadata(name)["reco_trust"]["pairs"] == OTHER["pairs"]


def test_a_key_that_may_not_list_aliases_finds_what_lies_beside_or_says_what_it_lacks(
    server: StandIn, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(ServerVersions(Server.parse(server.url("http")), "reco")) as versions:
        server.engine.refusals["aliases"] = Refusal(403, "Forbidden")
        with closing(opened(place)) as memory:  # the only version there is
            assert (memory.header.calibration, list(memory.header.said)) == (LEARNED, [one["id"] for one in OLDER])
            memory.change_said([said_record(3)], ())
        del server.engine.refusals["aliases"]
        assert len(state_of_served(place)[1]) == 3
        versions.finish(versions.begin(FINGERPRINT), 0, FINGERPRINT)
        server.engine.refusals["aliases"] = Refusal(403, "Forbidden")
    assert not caplog.records
    with closing(opened(place)) as memory:
        assert "blob" not in memory.header.calibration
        with pytest.raises(MemoryStoreError, match="the key may not list the aliases of"):
            memory.change_said([said_record(4)], ())
    assert "give the collection's own name as memory_collection" in caplog.records[0].message
    assert not server.engine.client.collection_exists("reco--learned"), "where nobody would look for it"


@pytest.mark.parametrize("writable", [False, True])
def test_of_an_attached_collection_only_the_metadata_is_written(server: StandIn, writable: bool) -> None:
    client: QdrantClient = server.engine.client
    sides = {side: models.VectorParams(size=D, distance=models.Distance.COSINE) for side in ("pic", "cap")}
    client.create_collection("shop", vectors_config=sides)
    vectors = records(["1"])
    point = models.PointStruct(id=1, vector={"pic": vectors.image[0].tolist(), "cap": vectors.text[0].tolist()})
    client.upsert("shop", [point])
    attach(Server.parse(server.url("http")), "shop", FINGERPRINT, Layout("pic", "cap", True, writable))
    before = client.scroll("shop", with_payload=True, with_vectors=True)
    with closing(opened(server.url("grpc"), "shop")) as memory:
        memory.set_calibration(LEARNED)
        memory.change_said(OLDER, ())
        assert memory.count() == 1
    assert client.scroll("shop", with_payload=True, with_vectors=True) == before
    with closing(opened(server.url("http"), "shop")) as memory:
        assert (memory.header.calibration, list(memory.header.said)) == (LEARNED, [one["id"] for one in OLDER])
    attach(Server.parse(server.url("http")), "shop", FINGERPRINT, Layout("pic", "cap", True, writable))
    with closing(opened(server.url("http"), "shop")) as memory:
        assert memory.header.calibration == LEARNED, "attaching it again keeps what was learned"


def test_a_key_that_may_only_read_reads_all_of_it(server: StandIn, place: str) -> None:
    for operation in WRITES:
        server.engine.refusals[operation] = Refusal(403, "Forbidden: Global manage access is required")
    with closing(opened(place)) as memory:
        assert (memory.header.calibration, list(memory.header.said)) == (LEARNED, [one["id"] for one in OLDER])
        with pytest.raises(MemoryStoreError, match="Check the API key"):
            memory.change_said([said_record(3)], ())
    server.engine.refusals["aliases"] = Refusal(403, "Forbidden")
    with closing(opened(place, "reco--v1")) as memory:  # a key for this collection and the one beside
        assert memory.header.calibration == LEARNED
    server.engine.refusals["retrieve"] = Refusal(403, "Forbidden")
    with closing(opened(place, "reco--v1")) as memory:  # and for this one alone
        assert "blob" not in memory.header.calibration
