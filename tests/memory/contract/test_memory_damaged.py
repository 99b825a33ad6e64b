"""A folder that no longer opens is copied as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_records import D, axis, everything, records
from typer.testing import CliRunner

from reco_plugin.cli.app import app
from reco_plugin.errors import MemoryStoreError
from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.points import point_id
from reco_plugin.memory.transfer import all_pairs, copy
from reco_plugin.types import Records, Search

pytestmark = pytest.mark.slow

MINE = Fingerprint("mini/clip", "ab" * 32, D)
GOOD = [f"good-{i}" for i in range(30)]


def reco(*words: str) -> Any:
    return CliRunner().invoke(app, [*words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "memory"
    with closing(open_memory(place, MINE)) as memory:
        memory.upsert(records(GOOD, payloads=[{"n": i} for i in range(len(GOOD))]))
        memory.set_calibration({"pairs": 30})
    return place


def copied(folder: Path, target: Path) -> tuple[str, dict[str, Any]]:
    result = reco("memory", "copy", str(folder), str(target), "--damaged")
    assert result.exit_code == 0, result.output
    with closing(open_memory(target, MINE, create=False)) as memory:
        assert memory.header.calibration == {"pairs": 30}
        memory.upsert(records(["another"]))
        return result.stdout, everything(memory)


def damage(folder: Path, pattern: str, *, delete: bool) -> Path:
    """Delete or empty the one file of a pattern; returns its path."""
    (file,) = folder.glob(pattern)
    file.unlink() if delete else file.write_bytes(b"")
    return file


@pytest.mark.parametrize("pattern", ["shard/wal/first-index", "shard/wal/open-1", "shard/edge_config.json"])
def test_a_memory_is_copied_without_a_file_that_pairs_can_spare(folder: Path, tmp_path: Path, pattern: str) -> None:
    damage(folder, pattern, delete=False)
    with pytest.raises(MemoryStoreError, match=rf"reco memory copy {folder} NEW --damaged"):
        open_memory(folder, MINE)
    told, pairs = copied(folder, tmp_path / "new")
    assert "copied 30 pairs" in told and set(pairs) == {*GOOD, "another"}


def test_a_side_whose_vectors_are_gone_is_an_error_where_it_is_read(folder: Path, tmp_path: Path) -> None:
    damage(folder, "shard/segments/*/vector_storage-image/vectors/status.dat", delete=True)
    asked = Search(axis(0)[None], by="text", read="image", k=3)
    with closing(open_memory(folder, MINE)) as memory:
        for read in (lambda: list(memory.scroll()), lambda: memory.search(asked)):
            with pytest.raises(MemoryStoreError, match=r"cannot \w+ the memory .*--damaged\), or restore"):
                read()
    result = reco("memory", "copy", str(folder), str(tmp_path / "new"), "--damaged")
    assert "copied 0 pairs" in result.stdout and "30 could not be read" in result.stdout
    assert f"{point_id('good-3')}: its image vector cannot be read" in result.stdout


def test_a_copy_that_cannot_begin_makes_no_target(folder: Path, tmp_path: Path) -> None:
    damage(folder, "shard/segments/*/segment.json", delete=False)
    result = reco("memory", "copy", str(folder), str(tmp_path / "new"), "--damaged")
    assert result.exit_code == 1 and "cannot open the memory" in result.stderr
    assert not (tmp_path / "new").exists()


def test_what_is_no_embedded_memory_is_not_copied(folder: Path, tmp_path: Path) -> None:
    result = reco("memory", "copy", str(tmp_path / "none"), str(tmp_path / "new"), "--damaged")
    assert result.exit_code == 1 and "there is no memory" in result.stderr
    assert "name another target" in reco("memory", "copy", str(folder), str(folder), "--damaged").stderr
    with closing(open_memory(folder, MINE)):
        assert "open in another" in reco("memory", "copy", str(folder), str(tmp_path / "new"), "--damaged").stderr


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
            with pytest.raises(MemoryStoreError, match=r"holds 30 pairs, and 29 could be read.*copy --damaged"):
                read()
        assert target.header.calibration == {}
