"""What happens to a memory when processes die, meet, or find something unexpected in the folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.config import MemoryOptions
from reco_plugin.errors import (
    MemoryLocked,
    MemoryStoreError,
    MemoryUnavailable,
    MissingExtra,
)
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.memory.damaged import open_damaged
from reco_plugin.memory.points import translate_errors
from reco_plugin.types import Records, Search

D = 8
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)
PREAMBLE = f"""
import os, signal, sys
import numpy as np
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records
def pairs(start, n):
    side = np.eye({D}, dtype=np.float32)[np.arange(start, start + n) % {D}]
    return Records([str(i) for i in range(start, start + n)], side, side, [{{"n": i}} for i in range(start, start + n)])
memory = open_memory(sys.argv[1], Fingerprint("mini/clip", "ab" * 32, {D}))
"""


def pairs(start: int, n: int) -> Records:
    side = np.eye(D, dtype=np.float32)[np.arange(start, start + n) % D]
    return Records([str(i) for i in range(start, start + n)], side, side, [{"n": i} for i in range(start, start + n)])


def all_ids(memory: Any) -> set[str]:
    return {name for batch in memory.scroll() for name in batch.ids}


@contextmanager
def process(folder: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that opens the memory and runs the code; killed without notice in the end."""
    script = PREAMBLE + textwrap.dedent(code)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


# --- two at once


def test_folder_held_by_another_process(tmp_path: Path) -> None:
    with process(tmp_path / "m", "memory.upsert(pairs(0, 3)); print('open', flush=True); sys.stdin.read()") as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "open\n"
        with pytest.raises(
            MemoryLocked,
            match=r"another process.*a Qdrant server and give its URL: --memory grpc:",
        ):
            open_memory(tmp_path / "m", FINGERPRINT)
        held.kill()
        held.wait()
    memory = open_memory(tmp_path / "m", FINGERPRINT)  # a lock dies with its holder
    assert memory.count() == 3
    memory.close()


def test_folder_held_by_this_process(tmp_path: Path) -> None:
    memory = open_memory(tmp_path / "m", FINGERPRINT)
    with pytest.raises(MemoryLocked):
        open_memory(tmp_path / "m", FINGERPRINT)
    memory.upsert(pairs(0, 2))  # the holder is not disturbed
    assert memory.count() == 2
    memory.close()


# --- killed


def test_killed_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    size, enough = 100, 70  # past the first flush, at 5000 points
    code = f"""
        for i in range(10_000):
            memory.upsert(pairs(i * {size}, {size}))
            print(i, flush=True)
    """
    with process(tmp_path / "m", code) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= enough:
                writer.kill()
                break
        acknowledged = [int(rest) for rest in writer.stdout.read().split()] or [enough]
    memory = open_memory(tmp_path / "m", FINGERPRINT, create=False)
    written = {str(i) for i in range((max(acknowledged) + 1) * size)}
    assert written <= all_ids(memory)
    assert memory.search(Search(pairs(3, 1).image, by="image", read="text", k=1, where={"n": 3})).ids == [["3"]]
    memory.upsert(pairs(0, 1))
    memory.close()


def test_edge_killed_during_calibration_keeps_the_old_one(tmp_path: Path) -> None:
    code = """
        memory.set_calibration({"old": 1})
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        memory.set_calibration({"new": 1})
    """
    with process(tmp_path / "m", code) as writer:
        assert writer.wait(60) == -signal.SIGKILL
    memory = open_memory(tmp_path / "m", FINGERPRINT)
    assert memory.header.calibration == {"old": 1}
    memory.close()


def test_creation_cut_short_after_the_header(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    open_memory(folder, FINGERPRINT).close()
    (folder / "shard").rename(folder / "shard.partial")  # where it is built
    with pytest.raises(MemoryStoreError, match=r"is missing beside memory\.json.*create=True"):
        open_memory(folder, FINGERPRINT, create=False)
    memory = open_memory(folder, FINGERPRINT)
    memory.upsert(pairs(0, 1))
    memory.close()
    memory = open_memory(folder, FINGERPRINT, create=False)
    assert all_ids(memory) == {"0"}
    memory.close()


def test_pairs_that_are_gone_beside_what_was_learned_are_not_taken_for_none(tmp_path: Path) -> None:
    folder, data = tmp_path / "m", "shard"
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 3))
        memory.set_calibration({"pairs": 3})
    (folder / data).rename(tmp_path / "gone")
    for create in (True, False):
        with pytest.raises(MemoryStoreError, match=r"is missing beside memory\.json, and pairs were there"):
            open_memory(folder, FINGERPRINT, create=create)
    shutil.rmtree(folder / data, ignore_errors=True)
    (tmp_path / "gone").rename(folder / data)
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        assert memory.count() == 3


def test_creation_cut_short_within_the_header(tmp_path: Path) -> None:
    (tmp_path / "memory.json.partial").write_text('{"form')
    memory = open_memory(tmp_path, FINGERPRINT)
    assert memory.count() == 0
    memory.close()


# --- damaged, newer, or something else


def test_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(MemoryStoreError, match=r"holds something else: holiday\.jpg.*choose an empty folder"):
        open_memory(tmp_path, FINGERPRINT)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_location_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    with pytest.raises(MemoryStoreError, match="/m' is a file, and a memory is a folder or the URL of a server"):
        open_memory(tmp_path / "m", FINGERPRINT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "has format 1, and this version of reco-plugin reads 2: build the memory again"),
        ({"format": "one"}, "has format 'one'"),
        ({"fingerprint": {"name": "x"}}, "damaged.*digest"),
        ({"calibration": 1}, "damaged"),
        ({"said": [1]}, "damaged"),
    ],
)
def test_header_of_another_kind(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    open_memory(tmp_path, FINGERPRINT).close()
    path = tmp_path / "memory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(MemoryStoreError, match=message):
        open_memory(tmp_path, FINGERPRINT)


@pytest.mark.parametrize("text", ["", '{"format": 1, ', "[]", "3", "\x00\x00", '"a"'])
def test_damaged_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    with pytest.raises(MemoryStoreError, match=r"memory\.json.*restore it from a backup"):
        open_memory(tmp_path, FINGERPRINT)
    assert (tmp_path / "memory.json").read_text() == text


def test_header_on_disk(tmp_path: Path) -> None:
    open_memory(tmp_path, FINGERPRINT).close()
    assert json.loads((tmp_path / "memory.json").read_text()) == {
        "format": 2,
        "fingerprint": {"name": "mini/clip", "digest": "ab" * 32, "dimension": D},
        "calibration": {},
        "learning": {},
        "said": [],
    }


def test_damaged_edge_shard(tmp_path: Path) -> None:
    open_memory(tmp_path, FINGERPRINT).close()
    for path in (tmp_path / "shard").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(MemoryStoreError, match="cannot open the memory at") as raised:
        open_memory(tmp_path, FINGERPRINT)
    assert str(raised.value) == (
        f"cannot open the memory at {str(tmp_path)!r}: {tmp_path}/shard/edge_config.json is damaged or cut off: "
        f"copy the pairs that can be read: reco memory copy {tmp_path} NEW --damaged"
    )
    assert "Failed to deserialize" in str(raised.value.__cause__)  # the engine's own words


@pytest.mark.parametrize("name", ["segment.json", "chunk_0.mmap", "page_0.dat"])
def test_a_damaged_file_of_an_edge_shard_is_told_in_our_words(tmp_path: Path, name: str) -> None:
    memory = open_memory(tmp_path, FINGERPRINT)
    memory.upsert(pairs(0, 5))
    memory.close()
    for path in (tmp_path / "shard").rglob(name):
        path.write_bytes(b"")
    with pytest.raises(MemoryStoreError, match=r"is damaged or cut off: restore it from a backup, or build") as raised:
        opened = open_memory(tmp_path, FINGERPRINT)
        try:
            opened.search(Search(pairs(0, 1).image, by="image", read="text", k=5, payloads=True))
        finally:
            opened.close()
    assert str(tmp_path) in str(raised.value) and "error:" not in str(raised.value).lower()


@pytest.mark.parametrize("way", ["gone", "empty"])
@pytest.mark.parametrize("name", ["version.info", "mutable_id_tracker.mappings", "mutable_id_tracker.versions"])
def test_pairs_are_not_taken_for_none_where_a_backup_lacks_the_file_that_counts_them(
    tmp_path: Path, name: str, way: str
) -> None:
    memory = open_memory(tmp_path, FINGERPRINT)
    memory.upsert(pairs(0, 6_000))  # more than the log keeps
    memory.close()
    path = next(tmp_path.rglob(name))
    kept = path.read_bytes()
    path.unlink() if way == "gone" else path.write_bytes(b"")
    with pytest.raises(MemoryStoreError, match=rf"{name} is missing or cut off.*restore it from a backup"):
        open_memory(tmp_path, FINGERPRINT)
    with pytest.raises(MemoryStoreError, match=name), open_damaged(tmp_path):
        pass
    path.write_bytes(kept)
    memory = open_memory(tmp_path, FINGERPRINT)
    assert memory.count() == 6_000, "nothing was deleted"
    memory.close()


def test_an_error_of_the_system_is_told_with_its_file() -> None:
    said = Exception("Service runtime error: failed to open m/shard/wal/open-1: Permission denied (os error 13)")
    with (
        pytest.raises(MemoryStoreError, match=r"^cannot open .* 'm': m/shard/wal/open-1: Permission denied$"),
        translate_errors("m", "open"),
    ):
        raise said


# --- servers and packages


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_the_key_is_in_no_message(scheme: str) -> None:
    with pytest.raises(MemoryUnavailable) as caught:
        open_memory(f"{scheme}://127.0.0.1:9", FINGERPRINT, api_key="hush", options=MemoryOptions(timeout_s=2))
    assert "hush" not in str(caught.value) + repr(caught.value.__cause__)


def test_the_key_is_not_shown() -> None:
    from reco_plugin.memory.server import Server

    assert "hush" not in repr(Server.parse("http://x", "hush"))


def test_a_folder_that_cannot_be_written_can_be_read(disk: Path) -> None:
    with closing(open_memory(disk / "memory", FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 20))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with closing(open_memory(disk / "memory", FINGERPRINT)) as memory:
        assert all_ids(memory) == {str(n) for n in range(20)}
        found = memory.search(Search(np.eye(D, dtype=np.float32)[:1], by="image", read="text", k=3))
        assert set(found.ids[0]) == {"0", "8", "16"}
        memory.set_calibration({"a": 1})
        assert memory.header.calibration == {"a": 1}
        for write in (lambda: memory.upsert(pairs(20, 1)), lambda: memory.delete(["1"])):
            with pytest.raises(MemoryStoreError, match="cannot be written"):
                write()
    with closing(open_memory(disk / "memory", FINGERPRINT)) as memory:
        assert (memory.count(), memory.header.calibration) == (20, {})


def test_what_is_being_written_is_not_copied_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_memory(tmp_path, FINGERPRINT)):
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(MemoryLocked, match="open in another process"):
            open_memory(tmp_path, FINGERPRINT)


@pytest.mark.parametrize(("kind", "package"), [("edge", "qdrant_edge"), ("qdrant", "qdrant_client")])
def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    for name in [*sys.modules]:
        if name.startswith("reco_plugin.memory.") and not name.endswith((".opening", ".base")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'reco-plugin\[{kind}\]'"):
        open_memory(tmp_path if kind == "edge" else "grpc://127.0.0.1:9", FINGERPRINT)
