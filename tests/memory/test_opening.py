"""How much of an embedded memory is read when it is opened."""

from __future__ import annotations

import errno
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.errors import MemoryLocked
from reco_plugin.memory import Fingerprint, disk, open_memory
from reco_plugin.types import Records, Search

FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, 8)
SIDE = np.eye(8, dtype=np.float32)
WHOLE = 32 << 10  # kB that a file of vectors holds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what was read")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pairs."""
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        memory.upsert(Records(list("abcdefgh"), SIDE, SIDE, [{}] * 8))
    return tmp_path / "m"


def read_kb(folder: Path) -> list[int]:
    """Of each file of vectors that this process has mapped, what is in its memory."""
    read: list[int] = []
    ours = False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if line.count("-") and not line.split()[0].endswith(":"):
            ours = str(folder) in line and ".mmap" in line
        elif ours and line.startswith("Rss:"):
            read.append(int(line.split()[1]))
    return read


def grow(folder: Path) -> None:
    """As a memory whose first files of vectors are full: the next ones are there, with nothing in them yet."""
    for first in folder.glob("shard/segments/*/vector_storage-*/vectors/chunk_0.mmap"):
        with first.with_name("chunk_1.mmap").open("wb") as file:
            file.truncate(first.stat().st_size)


def test_of_a_few_pairs_what_is_asked_for_is_read_and_no_hole(folder):
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        assert memory.count() == 8
        found = memory.search(Search(SIDE, "image", "text", 1))
        assert [ids[0] for ids in found.ids] == list("abcdefgh")
        assert read_kb(folder)
        assert max(read_kb(folder)) < WHOLE // 16


def test_of_many_all_is_read_at_once(folder):
    grow(folder)
    for _ in range(2):  # it stays so
        with closing(open_memory(folder, FINGERPRINT)) as memory:
            assert max(read_kb(folder)) == WHOLE
            assert memory.count() == 8
            found = memory.search(Search(SIDE, "image", "text", 1))
            assert [ids[0] for ids in found.ids] == list("abcdefgh")


def test_many_on_a_full_disk_are_opened_as_they_are(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    grow(folder)
    monkeypatch.setattr(disk, "write_whole", fail)
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        assert memory.count() == 8
        assert memory.search(Search(SIDE, "image", "text", 1)).ids == [[name] for name in "abcdefgh"]


def test_many_that_another_has_open_are_left_as_they_are(folder):
    with closing(open_memory(folder, FINGERPRINT)):
        grow(folder)
        before = [path.read_bytes() for path in folder.glob("shard/segments/*/segment.json")]
        with pytest.raises(MemoryLocked):
            open_memory(folder, FINGERPRINT)
        assert [path.read_bytes() for path in folder.glob("shard/segments/*/segment.json")] == before


def test_a_large_folder_names_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reco_plugin.memory.edge._MANY", 2)
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        memory.upsert(Records(["a", "b"], SIDE[:2], SIDE[:2], [{}, {}]))
    with pytest.warns(UserWarning, match=r"holds 2 pairs.*Qdrant server.*grpc://"):
        open_memory(tmp_path / "m", FINGERPRINT).close()
