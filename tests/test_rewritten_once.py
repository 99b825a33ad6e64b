"""Test modules that one process has rewritten are found by the others, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rewritten_once
from rewritten_once import rewrite_in_turn


@pytest.fixture
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One of two processes that test; a test that runs it reads what pytest itself would find."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    told = {"workerid": "gw1", "workercount": 2}
    return SimpleNamespace(workerinput=told, stash=request.config.stash, getini=request.config.getini)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three modules; the second one does not parse."""
    files = [tmp_path / f"test_{name}.py" for name in ("first", "second", "third")]
    for file, text in zip(files, ("def test(): assert 1 == 2\n", "def test(:\n", "def test(): pass\n"), strict=True):
        file.write_text(text)
    return files


def found(file: Path) -> Any:
    """The code that pytest takes in place of rewriting a module, if any."""
    rewrite = pytest.importorskip("_pytest.assertion.rewrite")
    return rewrite._read_pyc(file, rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}")


def test_what_is_rewritten_is_found_and_what_does_not_parse_is_left_to_pytest(worker: Any, files: list[Path]) -> None:
    rewrite_in_turn(worker, files)
    assert [found(file) is not None for file in files] == [True, False, True]
    names: dict[str, Any] = {}
    exec(found(files[0]), names)
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        names["test"]()


def test_what_was_edited_is_rewritten_again(worker: Any, files: list[Path]) -> None:
    rewrite_in_turn(worker, files)
    files[0].write_text("def other(): assert 'longer than it was'\n")
    assert found(files[0]) is None
    rewrite_in_turn(worker, files)
    assert "other" in found(files[0]).co_names


@pytest.mark.parametrize("missing", ["assertstate_key", "_rewrite_test", "the state"])
def test_another_pytest_or_plain_asserts_change_nothing(
    worker: Any, files: list[Path], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "the state":
        worker.stash = pytest.Stash()
    else:
        monkeypatch.setattr(rewritten_once, missing, None)
    rewrite_in_turn(worker, files)
    assert not any(map(found, files))
