"""The benchmark of batches across callers: one short round, all ways."""

from __future__ import annotations

import pytest

from benchmarks.batching import KINDS, main


def test_every_way_is_measured(model, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", str(model), "--pairs", "50", "--rounds", "1", "--seconds", "0.1", "--kinds", "8 texts"])
    head, _, row = (line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    assert len(head) == len(row)
    assert row[1].strip() == KINDS[1].name
    assert all(float(cell.strip(" ×").replace(",", "")) > 0 for cell in row[2:-1])
