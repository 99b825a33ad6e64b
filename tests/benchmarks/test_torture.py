"""The rounds of benchmarks/torture, a short one of some classes; tests/ingest kills builds and syncs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.torture import __main__ as torture
from benchmarks.torture.bodies import fault
from benchmarks.torture.target import Answer, Outcome

pytestmark = pytest.mark.slow


def test_a_short_round_writes_what_it_saw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "page" / "reliability.json"
    kept.parent.mkdir()
    page.write_text("# Words\n<!-- measured: torture -->\n<!-- end -->\n")
    assert torture.main(["kill-service", "--count", "1", "--write"], page) == 0, capsys.readouterr().out
    assert torture.main(["bodies", "--count", "40", "--write"], page) == 0, capsys.readouterr().out
    rows = json.loads(kept.read_text())
    assert list(rows) == ["kill-service", "bodies"]
    assert sum(rows["bodies"]["tried"].values()) >= 40
    assert rows["kill-service"]["answers"] == {"all acknowledged pairs there": 1}
    assert "| kill-service | service × 1 |" in page.read_text() and page.read_text().startswith("# Words\n")


def test_a_fault_is_told_and_ends_in_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(torture.CLASSES, "bodies", lambda _: Outcome(faults=["500: b'boom'"]))
    assert torture.main(["bodies"]) == 1
    assert "| 1\n  500: b'boom'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200, 0, b"content-type: application/json", b"{}"), None),
        (Answer(422, 0, b"content-type: application/json", b"{"), "422 with what is no JSON"),
        (Answer(-1, 60), "no answer in time"),
    ],
)
def test_what_counts_as_a_fault(answer: Answer, expected: str | None) -> None:
    assert fault(answer) == expected
