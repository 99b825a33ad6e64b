"""What `make engines` reads out of the pages, and when it says that a page is wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.engines.entries import ENTRIES, PAGE, TITLES
from benchmarks.engines.pages import ClaimFailed, Page, read_blocks
from benchmarks.engines.run import loss, write_rows
from reco_plugin.sources.indexes import parse_address


def test_the_section_of_each_engine_can_be_run() -> None:
    for name in ENTRIES:
        page = Page(PAGE, TITLES[name], {})
        if name == "chroma":
            assert "def search(query: IndexQuery)" in page.function()
        else:
            assert parse_address(page.address()).vector == "clip", name
        for part in ("Search", "Fill"):
            languages = {block.language for block in page.blocks(f"{part} {TITLES[name]}")}
            assert languages & {"python", "bash", "sql"}, (name, part)


def test_python_and_shell_of_the_page_can_be_read() -> None:
    for block in read_blocks(PAGE.read_text("utf-8")):
        if block.language == "python":
            compile(block.text, str(PAGE), "exec")
        elif block.language == "bash":
            subprocess.run(["bash", "-n", "-c", block.text], check=True)


def test_a_command_that_fails_is_a_wrong_page(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("## A\n```bash\nfalse\necho on\n```\n## B\n```python\n1 / 0\n```\n## C\n```bash\ncat HERE/x\n```\n")
    page = Page(path, "A", {"HERE": str(tmp_path)}, folder=tmp_path)
    with pytest.raises(ClaimFailed, match="'A'"):
        page.run_bash("A")
    with pytest.raises(ClaimFailed, match="ZeroDivisionError"):
        page.run_python("B")
    (tmp_path / "x").write_text("said")
    assert page.run_bash("C") == "said"
    with pytest.raises(ClaimFailed, match="no section 'D'"):
        page.blocks("D")


def row(refined: float, exact: float) -> dict[str, object]:
    split = {"plain": 3.0, "refined": refined, "exact": exact}
    return {
        "engine": "An engine 1.2", "index": "hnsw", "run": "2026-11-28", "kept": {"plain": 1.0, "refined": 0.9},
        "first": {"unseen": split, "seen": {"plain": 50.0, "refined": 60.0, "exact": 60.0}},
    }  # fmt: skip


def test_the_loss_is_of_the_worse_half_and_rows_of_others_stay(tmp_path: Path) -> None:
    assert loss(row(30.0, 33.5)) == pytest.approx(3.5)
    assert loss(row(34.0, 33.5)) == 0
    (file := tmp_path / "page.md").write_text("# A\n\n<!-- measured: engines -->\n<!-- end -->\n")
    (tmp_path / "page").mkdir()
    write_rows({"one": row(33.0, 33.5)}, file)
    write_rows({"two": row(31.0, 33.5)}, file)
    assert sorted(json.loads((tmp_path / "page" / "engines.json").read_text())) == ["one", "two"]
    assert "| 33.0 | 33.5 |" in file.read_text() and "| 31.0 | 33.5 |" in file.read_text()
