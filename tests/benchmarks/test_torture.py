"""A short round of benchmarks/torture; tests/ingest kills builds and syncs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture.target import Outcome

pytestmark = pytest.mark.slow


def test_a_short_round_writes_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "page" / "reliability.json"
    kept.parent.mkdir()
    page.write_text("# Words\n<!-- measured: torture -->\n<!-- end -->\n")
    assert torture.main(["kill-service", "--count", "1", "--write"], page) == 0, capsys.readouterr().out
    rows = json.loads(kept.read_text())
    assert list(rows) == ["kill-service"]
    assert rows["kill-service"]["answers"] == {"all acknowledged pairs there": 1}
    assert "| kill-service | service × 1 |" in page.read_text() and page.read_text().startswith("# Words\n")


def test_a_fault_is_told_and_ends_in_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(torture.CLASSES, "overload", lambda _: Outcome(faults=["500: b'boom'"]))
    assert torture.main(["overload"]) == 1
    assert "| 1\n  500: b'boom'" in capsys.readouterr().out
