"""A disk that gets full while a memory is filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_disk import MB, fill_up

from reco_plugin import Reco
from reco_plugin.memory import open_memory

from .conftest import MANY, assert_equal, held

pytestmark = pytest.mark.slow

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(model: Path) -> Run:
    """``reco memory …`` in a process that may die of it."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reco_plugin", "memory", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RECO_MODEL": str(model)})

    return call


def assert_refused(done: subprocess.CompletedProcess[str], place: Path) -> str:
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.startswith("error: cannot ")
    assert done.stderr.count("\n") == 1
    assert str(place) in done.stderr
    return done.stderr


def test_a_build_onto_a_full_disk_ends_clearly_and_goes_on_when_there_is_room(
    many: Path, disk: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    place = disk / "memory"
    fingerprint = Reco.open(model, ":memory:").manifest.fingerprint
    for each in (place, tmp_path / "alone"):
        open_memory(each, fingerprint).close()
    build = ("build", many, "--batch-size", 20, "--as", "shop", "--memory")
    filler = fill_up(disk, 80 * MB)
    said = assert_refused(run(*build, place), place)
    assert "Make room" in said
    assert not list(place.rglob("*.partial"))
    written = len(held(place, model))
    assert 0 < written < MANY

    filler.unlink()
    done = run(*build, place, "--json")
    assert json.loads(done.stdout)["unchanged"] == written, done.stderr
    assert run(*build, tmp_path / "alone").returncode == 0
    assert_equal(held(place, model), held(tmp_path / "alone", model))


def test_where_no_list_can_be_written_good_rows_are_kept_and_a_bad_one_says_how(
    many: Path, disk: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    """As in a container: the memory is a volume, and what lies beside it can only be read."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    place, rejected = tmp_path / "memory", ("--rejected", disk / "rejected.jsonl")
    assert run("build", many, "--memory", place, *rejected).returncode == 0
    (tmp_path / "bad.csv").write_text("id,image,text\nbad,gone.png,a fox\n")
    said = run("build", tmp_path / "bad.csv", "--memory", place, *rejected).stderr
    assert f"{disk}/rejected.jsonl cannot be written: Read-only file system. Name another file" in said
    assert said.endswith("--rejected FILE\n")
    assert len(held(place, model)) == MANY
