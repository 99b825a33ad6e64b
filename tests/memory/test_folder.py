"""A memory in a folder when processes die or meet, and the disk is full, gone, damaged or holds something else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_records import records

from reco_plugin.errors import (
    MemoryFull,
    MemoryLocked,
    MemoryReadOnly,
    MemoryStoreError,
    MissingExtra,
)
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.base import copy
from reco_plugin.memory.header import write_error
from reco_plugin.types import Records, Search

pytestmark = pytest.mark.slow

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
        with pytest.raises(MemoryLocked, match=r"another process.*a Qdrant server and give its URL: --memory grpc:"):
            open_memory(tmp_path / "m", FINGERPRINT)
        held.kill()
        held.wait()
    memory = open_memory(tmp_path / "m", FINGERPRINT)  # a lock dies with its holder
    with pytest.raises(MemoryLocked):
        open_memory(tmp_path / "m", FINGERPRINT)
    assert memory.count() == 3  # the holder is not disturbed
    memory.close()


def test_flushes_of_two_threads_and_a_close_wait_for_one_another(tmp_path: Path) -> None:
    for _ in range(3):
        memory, failed = open_memory(tmp_path, FINGERPRINT), list[str]()

        def flush(memory=memory, failed=failed) -> None:  # type: ignore[no-untyped-def]
            try:
                while True:
                    memory.flush()
            except MemoryStoreError as error:
                failed.append(str(error))

        threads = [threading.Thread(target=flush) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            memory.upsert(pairs(0, 8))
        memory.close()
        for thread in threads:
            thread.join()
        assert all("is closed" in message for message in failed), failed


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


def test_creation_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    open_memory(folder, FINGERPRINT).close()
    (folder / "memory.json.partial").write_text('{"form')
    (folder / "shard").rename(folder / "shard.partial")  # where it is built
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 1))
        memory.set_calibration({"pairs": 1})
    shutil.rmtree(folder / "shard")
    with pytest.raises(MemoryStoreError, match=r"shard is missing"):  # pairs were there
        open_memory(folder, FINGERPRINT)


def test_a_process_that_is_killed_between_the_count_and_the_deletion_loses_nothing(tmp_path: Path) -> None:
    code = """
        memory.upsert(pairs(0, 100))
        memory.set_calibration({})
        memory.upsert(pairs(100, 50))
        memory.delete([str(i) for i in range(80)])
        import reco_plugin.memory.edge as edge
        write = edge.write_header
        edge.write_header = lambda *args: (write(*args), os.kill(os.getpid(), signal.SIGKILL))
        memory.delete(["90", "91"])
    """
    with process(tmp_path / "m", code) as writer:
        assert writer.wait(60) == -signal.SIGKILL
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        assert (memory.count(), memory.header.pairs, memory.missing) == (70, 68, 0)


# --- damaged, newer, or something else


def test_a_cut_off_file_that_the_engine_opens_is_noticed_by_the_count(tmp_path: Path) -> None:
    with closing(open_memory(tmp_path, FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 300))
        memory.delete(["0", "1"])
    assert json.loads((tmp_path / "memory.json").read_text())["pairs"] == 298
    (ids,) = tmp_path.rglob("mutable_id_tracker.mappings")
    os.truncate(ids, ids.stat().st_size // 2)
    with (
        pytest.warns(UserWarning, match="pairs of the memory are lost"),
        closing(open_memory(tmp_path, None)) as memory,
    ):
        lost = memory.missing
        assert lost == 298 - memory.count() > 50
        left = sorted(all_ids(memory), key=int)
        memory.delete(left[:5])
        memory.set_calibration({})
        assert memory.missing == lost  # what is deleted is not lost, and a loss is not forgotten
    with pytest.warns(UserWarning), closing(open_memory(tmp_path, FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 300))  # the source anew
        assert memory.missing == 0
    with closing(open_memory(tmp_path, None)) as memory:
        assert memory.missing == 0


def test_a_closed_memory_writes_nothing_into_another_one_in_its_place(tmp_path: Path) -> None:
    memory = open_memory(tmp_path / "m", FINGERPRINT)
    memory.upsert(pairs(0, 10))
    memory.flush()
    (tmp_path / "m").rename(tmp_path / "before")
    open_memory(tmp_path / "m", FINGERPRINT).close()
    with pytest.raises(MemoryStoreError):
        memory.close()
    assert json.loads((tmp_path / "m" / "memory.json").read_text())["pairs"] == 0


def test_what_is_no_folder_of_a_memory(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    for place, why in ((tmp_path, "choose an empty folder"), (tmp_path / "holiday.jpg", "it is a file")):
        with pytest.raises(MemoryStoreError, match=rf"holiday\.jpg.*{why}"):
            open_memory(place, FINGERPRINT)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "has format 1, .*build the memory again"),
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


@pytest.mark.parametrize("text", ["", '{"format": 1, ', "[]", "\x00\x00"])
def test_damaged_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    with pytest.raises(MemoryStoreError, match=r"memory\.json.*restore it from a backup"):
        open_memory(tmp_path, FINGERPRINT)
    assert (tmp_path / "memory.json").read_text() == text


@pytest.mark.parametrize("name", ["segment.json", "chunk_0.mmap", "page_0.dat", "first-index", "edge_config.json"])
def test_a_damaged_shard_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    memory = open_memory(tmp_path, FINGERPRINT)
    memory.upsert(pairs(0, 5))
    memory.close()
    for path in (tmp_path / "shard").rglob(name):
        path.write_bytes(b"")
    with (
        pytest.raises(MemoryStoreError, match="restore it from a backup, or build"),
        closing(open_memory(tmp_path, FINGERPRINT)) as opened,
    ):
        opened.search(Search(pairs(0, 1).image, by="image", read="text", k=5, payloads=True))


class Lossy:
    """A memory that gives out one pair less than it holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def scroll(self, batch_size: int = 1024) -> Iterator[Records]:
        for batch in self._memory.scroll(batch_size):
            yield batch.take([name != "3" for name in batch.ids])


def test_pairs_that_are_left_out_do_not_go_unnoticed() -> None:
    with closing(open_memory(None, FINGERPRINT)) as memory, closing(open_memory(None, FINGERPRINT)) as target:
        memory.upsert(pairs(0, 30))
        memory.set_calibration({"pairs": 30})
        lossy: Any = Lossy(memory)
        with pytest.raises(MemoryStoreError, match="holds 30 pairs, and 29 could be read"):
            copy(lossy, target)
        assert target.header.calibration == {}


# --- disks and packages


def test_a_folder_that_is_gone_takes_no_pair(tmp_path: Path) -> None:
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 4))
        memory.flush()
        shutil.move(tmp_path / "m", tmp_path / "elsewhere")
        for write in (lambda: memory.upsert(pairs(4, 4)), lambda: memory.delete(["1"])):
            with pytest.raises(MemoryReadOnly, match=str(tmp_path / "m")):
                write()
        with pytest.raises(MemoryReadOnly):
            memory.set_calibration({})
        assert memory.count() == 4
        shutil.move(tmp_path / "elsewhere", tmp_path / "m")


def test_a_full_disk_refuses_a_write_and_kills_nobody(disk: Path) -> None:
    """Without the check, Edge's memory-mapped files end the process by SIGBUS."""
    with closing(open_memory(disk / "memory", FINGERPRINT)) as memory:
        memory.upsert(pairs(0, 10))
        (disk / "other").write_bytes(bytes(30 * 2**20))
        with pytest.raises(MemoryFull, match="Make room there"):
            for start in range(10, 1_000_000, 5_000):
                memory.upsert(pairs(start, 5_000))
        written = memory.count()
        assert memory.search(Search(pairs(3, 1).image, by="image", read="text", k=1)).ids[0]
        (disk / "other").unlink()
        memory.upsert(pairs(2_000_000, 1))
        assert memory.count() == written + 1


def test_a_folder_that_cannot_be_written_is_refused(disk: Path) -> None:
    open_memory(disk / "memory", FINGERPRINT).close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(MemoryReadOnly, match="copy the folder to a place that can be written"):
        open_memory(disk / "memory", FINGERPRINT)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, MemoryFull), (errno.EROFS, MemoryReadOnly), (errno.EIO, MemoryStoreError)]
)
def test_an_error_of_the_disk_says_which(number: int, kind: type[Exception]) -> None:
    assert type(write_error(Path("memory.json"), OSError(number, os.strerror(number)))) is kind


@pytest.mark.parametrize(("kind", "package"), [("edge", "qdrant_edge"), ("qdrant", "qdrant_client")])
def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    for name in [*sys.modules]:
        if name.startswith("reco_plugin.memory.") and not name.endswith((".opening", ".base")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'reco-plugin\[{kind}\]'"):
        open_memory(tmp_path if kind == "edge" else "grpc://127.0.0.1:9", FINGERPRINT)


def test_flushed_pairs_do_not_need_the_log_of_writes(tmp_path):
    with closing(open_memory(str(tmp_path / "memory"), Fingerprint("mini/clip", "ab" * 32, 8))) as memory:
        memory.upsert(records([f"p{number}" for number in range(200)]))
        memory.flush()
        shutil.copytree(tmp_path / "memory", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "shard" / "wal")
    with closing(open_memory(str(tmp_path / "copy"), None)) as copy:
        assert copy.count() == 200
