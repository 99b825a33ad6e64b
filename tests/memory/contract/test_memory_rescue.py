"""An embedded memory with a payload that Qdrant Edge takes and cannot read again, as earlier versions stored them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qe
from small_records import D, axis, everything, records
from typer.testing import CliRunner

from reco_plugin.cli.app import app
from reco_plugin.errors import MemoryStoreError
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.edge import SHARD_NAME
from reco_plugin.memory.points import point_id, stored_payload
from reco_plugin.memory.transfer import all_pairs, copy
from reco_plugin.types import Records, Search

MINE = Fingerprint("mini/clip", "ab" * 32, D)
GOOD = [f"good-{i}" for i in range(30)]


def reco(*words: str) -> Any:
    return CliRunner().invoke(app, [*words])


def poison(folder: Path, *, kill: bool) -> None:
    """Store a pair with 130 levels below our own checks; killed, the process leaves it in the log."""
    payload: dict[str, Any] = {}
    for _ in range(130):
        payload = {"a": payload}
    vector = axis(0).tolist()
    shard = qe.EdgeShard.load(str(folder / SHARD_NAME))
    point = qe.Point(point_id("bad"), {"image": vector, "text": vector}, stored_payload("bad", payload))
    shard.update(qe.UpdateOperation.upsert_points([point]))
    if kill:
        os.kill(os.getpid(), 9)
    good = qe.Point(point_id("good-0"), point.vector, stored_payload("good-0", {"n": 0}))
    shard.update(qe.UpdateOperation.upsert_points([good]))
    shard.flush()  # the log keeps its last entry alone
    shard.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "memory"
    with closing(open_memory(place, MINE)) as memory:
        memory.upsert(records(GOOD, payloads=[{"n": i} for i in range(len(GOOD))]))
        memory.set_calibration({"pairs": 30})
    return place


def rescued(folder: Path, target: Path) -> tuple[str, dict[str, Any]]:
    result = reco("memory", "rescue", str(target), "--memory", str(folder))
    assert result.exit_code == 0, result.output
    with closing(open_memory(target, MINE, create=False)) as memory:
        assert memory.header.calibration == {"pairs": 30}
        memory.upsert(records(["another"]))
        return result.stdout, everything(memory)


def test_a_memory_whose_log_cannot_be_read_is_rescued(folder: Path, tmp_path: Path) -> None:
    code = f"from test_memory_rescue import *; poison(Path({str(folder)!r}), kill=True)"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}).returncode == -9
    with pytest.raises(MemoryStoreError, match=rf"reco memory rescue NEW --memory {folder}"):
        open_memory(folder, MINE)
    told, pairs = rescued(folder, tmp_path / "new")
    assert "copied 30 pairs" in told and "what was added last may be missing" in told
    assert set(pairs) == {*GOOD, "another"} and pairs["good-7"][2] == {"n": 7}


def test_a_memory_with_a_pair_that_cannot_be_read_is_rescued(folder: Path, tmp_path: Path) -> None:
    poison(folder, kill=False)
    exported = reco("memory", "export", str(tmp_path / "pairs.parquet"), "--memory", str(folder))
    assert exported.exit_code == 1 and "reco memory rescue" in exported.stderr
    assert not (tmp_path / "pairs.parquet").exists()
    told, pairs = rescued(folder, tmp_path / "new")
    assert f"1 could not be\n  {point_id('bad')}: " in told and "added last" not in told
    assert set(pairs) == {*GOOD, "another"}


def damage(folder: Path, pattern: str, *, delete: bool) -> Path:
    """Delete or empty the one file of a pattern; returns its path."""
    (file,) = folder.glob(pattern)
    file.unlink() if delete else file.write_bytes(b"")
    return file


@pytest.mark.parametrize("pattern", ["shard/wal/first-index", "shard/wal/open-1", "shard/edge_config.json"])
def test_a_memory_is_rescued_without_a_file_that_pairs_can_spare(folder: Path, tmp_path: Path, pattern: str) -> None:
    damage(folder, pattern, delete=False)
    with pytest.raises(MemoryStoreError, match=rf"is damaged or cut off\. Copy.* rescue NEW --memory {folder}"):
        open_memory(folder, MINE)
    told, pairs = rescued(folder, tmp_path / "new")
    assert "copied 30 pairs" in told and set(pairs) == {*GOOD, "another"}


def test_a_file_at_which_the_engine_gives_up_is_an_error_like_others(folder: Path, tmp_path: Path) -> None:
    damage(folder, "shard/segments/*/vector_storage-text/vectors/status.dat", delete=False)
    with pytest.raises(MemoryStoreError, match=r"cannot open the memory .*damaged or cut off: restore it"):
        open_memory(folder, MINE)
    result = reco("memory", "rescue", str(tmp_path / "new"), "--memory", str(folder))
    assert result.exit_code == 1 and "damaged or cut off" in result.stderr


def test_a_side_whose_vectors_are_gone_is_an_error_where_it_is_read(folder: Path, tmp_path: Path) -> None:
    damage(folder, "shard/segments/*/vector_storage-image/vectors/status.dat", delete=True)
    asked = Search(axis(0)[None], by="text", read="image", k=3)
    with closing(open_memory(folder, MINE)) as memory:
        for read in (lambda: list(memory.scroll()), lambda: memory.search(asked)):
            with pytest.raises(MemoryStoreError, match=r"cannot \w+ the memory .*damaged or cut off: restore"):
                read()
    result = reco("memory", "rescue", str(tmp_path / "new"), "--memory", str(folder))
    assert "copied 0 pairs" in result.stdout and "; 30 could not be" in result.stdout
    assert f"{point_id('good-3')}: its image vector cannot be read" in result.stdout


def test_a_rescue_that_cannot_begin_names_the_file(folder: Path, tmp_path: Path) -> None:
    file = damage(folder, "shard/segments/*/segment.json", delete=False)
    damage(folder, "shard/edge_config.json", delete=False)
    result = reco("memory", "rescue", str(tmp_path / "new"), "--memory", str(folder))
    assert result.exit_code == 1 and f"{file} is damaged or cut off: restore it" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_memory_without_its_header_is_known_as_one(folder: Path) -> None:
    kept = (folder / "memory.json").read_bytes()
    damage(folder, "memory.json", delete=True)
    with pytest.raises(MemoryStoreError, match=r"holds a memory without its memory\.json.* restore that file"):
        open_memory(folder, MINE)
    (folder / "memory.json").write_bytes(kept)
    with closing(open_memory(folder, MINE)) as memory:
        assert memory.count() == 30


def test_what_is_no_embedded_memory_is_not_rescued(folder: Path, tmp_path: Path) -> None:
    result = reco("memory", "rescue", str(tmp_path / "new"), "--memory", str(tmp_path / "none"))
    assert result.exit_code == 1 and "no folder with an embedded memory" in result.stderr
    assert "name another target" in reco("memory", "rescue", str(folder), "--memory", str(folder)).stderr
    with closing(open_memory(folder, MINE)):
        assert "open in another" in reco("memory", "rescue", str(tmp_path / "new"), "--memory", str(folder)).stderr


class Lossy:
    """A memory that gives out one pair less than it holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def scroll(self, batch_size: int = 1024, ids: Any = None) -> Iterator[Records]:
        for batch in self._memory.scroll(batch_size, ids):
            yield batch.take(np.array([name != "good-3" for name in batch.ids]))


def test_pairs_that_are_left_out_do_not_go_unnoticed(folder: Path) -> None:
    with closing(open_memory(folder, MINE)) as memory, closing(open_memory(None, MINE)) as target:
        lossy: Any = Lossy(memory)
        assert sum(len(batch) for batch in all_pairs(memory)) == 30
        for read in (lambda: list(all_pairs(lossy)), lambda: copy(lossy, target)):
            with pytest.raises(MemoryStoreError, match=r"holds 30 pairs, and 29 could be read.*reco memory rescue"):
                read()
        assert target.header.calibration == {}
