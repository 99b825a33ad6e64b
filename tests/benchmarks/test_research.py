"""What commands that measure the method share: what was measured is kept, whole lines only."""

from __future__ import annotations

from pathlib import Path

from benchmarks.research import Kept


def test_a_line_that_a_kill_cut_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "kept.jsonl"
    for key in ("ä", "b"):
        Kept(file).get(key, lambda: [1, 2])
    whole = file.read_bytes()
    for cut in (3, 1):  # also where only the end of the line is missing
        file.write_bytes(whole[:-cut])
        kept = Kept(file)
        assert (kept.get("ä", lambda: 0), kept.get("b", lambda: [1, 2])) == ([1, 2], [1, 2])
        assert file.read_bytes() == whole
    assert Kept(None).get("a", lambda: 3) == 3
