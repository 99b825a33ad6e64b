"""A folder under two threads, on a disk that is full or gone, and read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from reco_plugin.errors import MemoryFull, MemoryReadOnly, MemoryStoreError
from reco_plugin.memory import Fingerprint, disk, open_memory
from reco_plugin.memory.header import write_error
from reco_plugin.types import Records

FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, 8)
SIDE = np.eye(8, dtype=np.float32)
PAIRS = Records(list("abcdefgh"), SIDE, SIDE, [{}] * 8)


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
            memory.upsert(PAIRS)
        memory.close()
        for thread in threads:
            thread.join()
        assert all("is closed" in message for message in failed), failed


def test_a_folder_that_is_gone_takes_no_pair(tmp_path: Path) -> None:
    with closing(open_memory(tmp_path / "m", FINGERPRINT)) as memory:
        memory.upsert(PAIRS.take(range(4)))
        memory.flush()
        shutil.move(tmp_path / "m", tmp_path / "elsewhere")
        for write in (lambda: memory.upsert(PAIRS), lambda: memory.delete(["a"]), lambda: memory.set_calibration({})):
            with pytest.raises(MemoryReadOnly, match=str(tmp_path / "m")):
                write()
        assert memory.count() == 4
        shutil.move(tmp_path / "elsewhere", tmp_path / "m")


@pytest.mark.parametrize(("number", "kind"), [(28, MemoryFull), (30, MemoryReadOnly), (5, MemoryStoreError)])
def test_an_error_of_the_disk_says_which(number: int, kind: type[Exception]) -> None:
    assert type(write_error(Path("memory.json"), OSError(number, os.strerror(number)))) is kind


COPIES = """
import os, signal, sys
os.access = lambda *_: False
from reco_plugin.memory import Fingerprint, open_memory
memory = open_memory(sys.argv[1], None, create=False)
print("open", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_copy_of_a_killed_process_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, copies = tmp_path / "m", tmp_path / "copies"
    copies.mkdir()
    with closing(open_memory(folder, FINGERPRINT)) as memory:
        memory.upsert(PAIRS)
    subprocess.run([sys.executable, "-c", COPIES, folder], env={**os.environ, "TMPDIR": str(copies)}, check=False)
    assert len(list(copies.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    with disk.ShardCopy(folder / "shard") as first, disk.ShardCopy(folder / "shard") as second:
        assert sorted(copies.iterdir()) == sorted([Path(first), Path(second)])
    assert not list(copies.iterdir())
