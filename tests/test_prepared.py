"""Processes that fork those of the tests: one each for what is imported and how it starts, none that has threads."""

from __future__ import annotations

from pathlib import Path

import prepared
import pytest

pytestmark = pytest.mark.skipif(not prepared.CAN_FORK, reason="here no test's process is forked")


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that the process may import."""
    monkeypatch.setattr(prepared, "_ways", {})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_each_start_has_its_own_and_the_same_is_used_again(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepared._way(("json",))
    assert one is not None and prepared._way(("json",)) is one
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # is read while libraries are loaded
    assert prepared._way(("json",)) not in (None, one)
    prepared.let_go()


def test_where_what_is_imported_runs_threads_processes_start_from_nothing(on_path: Path) -> None:
    lines = ["import threading", "threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()"]
    (on_path / "with_threads.py").write_text("\n".join(lines))
    assert prepared._way(("with_threads",)) is None
    prepared.let_go()


def test_what_cannot_be_imported_is_not_hidden(on_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="the process that forks others has failed"):
        prepared._way(("not_there",))
    assert "No module named 'not_there'" in capfd.readouterr().err
