"""Versions of a memory in folders: built beside, swapped by a link, rolled back, pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reco_plugin.errors import ConfigError, FingerprintMismatch, MemoryLocked, MemoryStoreError
from reco_plugin.memory import Memory, open_memory
from reco_plugin.memory.versions import FolderVersions
from reco_plugin.types import Fingerprint, Records

pytestmark = pytest.mark.slow

MINE, OTHER = Fingerprint("mine", "a" * 64, 4), Fingerprint("other", "b" * 64, 4)


def pairs(count: int) -> Records:
    unit = np.eye(4, dtype=np.float32)[np.arange(count) % 4]
    return Records([f"pair-{row}" for row in range(count)], unit, unit, [{}] * count)


def opened(place: Path, count: int = 0, fingerprint: Fingerprint = MINE) -> Memory:
    memory = open_memory(place, fingerprint)
    if count:
        memory.upsert(pairs(count))
    return memory


def build(versions: FolderVersions, count: int, *, finish: bool = True) -> str:
    name = versions.begin(MINE)
    opened(versions.folder(name), count).close()
    if finish:
        versions.finish(name, count)
    return name


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def versions(place: Path) -> FolderVersions:
    return FolderVersions(place)


def shown(versions: FolderVersions) -> dict[str, tuple[int | None, bool, bool]]:
    return {each.name: (each.pairs, each.live, each.finished) for each in versions.all()}


def count(place: Path) -> int:
    memory = open_memory(place, MINE, create=False)
    try:
        return memory.count()
    finally:
        memory.close()


def test_none_yet(versions: FolderVersions) -> None:
    assert versions.all() == []
    with pytest.raises(MemoryStoreError, match="no finished version"):
        versions.rollback()


def test_first_version_swap_rollback_prune(versions: FolderVersions, place: Path) -> None:
    assert build(versions, 3) == "memory--v1"
    assert not place.exists()
    assert versions.use("memory--v1").pairs == 3
    assert build(versions, 5) == "memory--v2"
    assert count(place) == 3  # until it is swapped
    versions.use("memory--v2")
    assert count(place) == 5
    assert shown(versions) == {"memory--v1": (3, False, True), "memory--v2": (5, True, True)}
    assert versions.rollback().name == "memory--v1"
    assert count(place) == 3
    build(versions, 7)
    assert versions.prune() == ["memory--v2"], "the newest one is kept"
    assert shown(versions) == {"memory--v1": (3, True, True), "memory--v3": (7, False, True)}
    assert sorted(path.name for path in place.parent.iterdir()) == ["memory", "memory--v1", "memory--v3"]


def test_who_has_it_open_goes_on_with_its_version(versions: FolderVersions, place: Path) -> None:
    versions.use(build(versions, 3))
    with_link = open_memory(place, MINE, create=False)
    for size in (5, 6):
        versions.use(build(versions, size))
    with_link.upsert(Records(["late"], *(np.eye(4, dtype=np.float32)[:1],) * 2, [{}]))
    with_link.flush()
    assert (with_link.count(), count(place)) == (4, 6)
    assert shown(versions)["memory--v1"] == (None, False, True)  # how many, only its holder can say
    assert versions.prune() == []  # it is open
    with_link.close()
    assert versions.prune() == ["memory--v1"]


def test_a_plain_folder_becomes_version_1(versions: FolderVersions, place: Path) -> None:
    opened(place, 2).close()
    assert shown(versions) == {"memory": (2, True, True)}
    assert build(versions, 5) == "memory--v2"
    assert versions.use("memory--v2").pairs == 5
    assert place.is_symlink()
    assert shown(versions) == {"memory--v1": (2, False, True), "memory--v2": (5, True, True)}
    assert versions.rollback().pairs == 2


def test_a_plain_folder_that_is_open_stays(versions: FolderVersions, place: Path) -> None:
    held = opened(place, 2)
    name = build(versions, 5)
    with pytest.raises(MemoryLocked, match="Only the first swap needs it closed"):
        versions.use(name)
    held.close()
    assert count(place) == 2
    assert versions.use(name).pairs == 5


def test_versions_lie_beside_the_folder_that_a_link_leads_to(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "memory"
    opened(folder, 2).close()
    (tmp_path / "shop").symlink_to(folder)
    versions = FolderVersions(tmp_path / "shop")
    versions.use(build(versions, 5))
    assert count(tmp_path / "shop") == count(folder) == 5
    assert sorted(path.name for path in folder.parent.iterdir()) == ["memory", "memory--v1", "memory--v2"]


def test_an_unfinished_version_is_not_used_and_goes_on(versions: FolderVersions, place: Path) -> None:
    versions.use(build(versions, 3))
    name = build(versions, 5, finish=False)
    assert shown(versions)[name] == (5, False, False)
    with pytest.raises(MemoryStoreError, match=r"was not finished.*versions --prune"):
        versions.use(name)
    found = versions.find_unfinished(MINE)
    assert found is not None
    assert (found.name, versions.find_unfinished(OTHER)) == (name, None)
    with pytest.raises(MemoryStoreError, match="holds 5 pairs, expected 6"):
        versions.finish(name, 6)
    assert versions.begin(MINE) == "memory--v3"
    assert versions.finish(name, 5).finished
    assert versions.use(name).pairs == 5


def test_another_encoder_is_refused(versions: FolderVersions, place: Path) -> None:
    opened(place, 2, OTHER).close()
    with pytest.raises(FingerprintMismatch, match=r"mine.*--memory"):
        versions.begin(MINE)
    opened(place.with_name("memory--v2"), 2, MINE).close()
    with pytest.raises(FingerprintMismatch):
        versions.use("memory--v2")


def test_unknown_and_missing_versions(versions: FolderVersions, place: Path) -> None:
    versions.use(build(versions, 3))
    with pytest.raises(ConfigError, match="no version 'memory--v9'"):
        versions.use("memory--v9")
    place.with_name("memory--v1").rename(place.with_name("elsewhere"))
    with pytest.raises(MemoryStoreError, match="stands for 'memory--v1', which is gone"):
        open_memory(place, MINE)


def test_other_folders_beside_it_are_left_alone(versions: FolderVersions, place: Path) -> None:
    for name in ("memory--vx", "other--v1", "memory--v7"):  # the last one holds no memory
        place.with_name(name).mkdir()
    for size in (3, 4, 5):
        versions.use(build(versions, size))
    assert versions.prune() == ["memory--v1"]
    assert {"memory--vx", "other--v1", "memory--v7"} <= {path.name for path in place.parent.iterdir()}
