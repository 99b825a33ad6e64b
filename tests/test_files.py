"""Files that are written atomically."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reco_plugin.files import whole_file

WRITES = """
import sys
from pathlib import Path
from reco_plugin.files import whole_file

with whole_file(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_what_a_killed_process_left_goes_with_the_next_and_what_one_writes_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "pairs [1].npz", tmp_path / ".pairs.0123abcd.part.npz"
    other.write_text("of another file")
    command = [sys.executable, "-c", WRITES, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        with whole_file(path) as part:
            part.write_text("whole")
        begun = set(tmp_path.iterdir()) - {path, other}
        assert len(begun) == 1, "it is still being written"
        process.kill()
    assert begun.pop().read_text() == "half"
    with whole_file(path) as part:
        part.write_text("again")
    assert set(tmp_path.iterdir()) == {path, other} and path.read_text() == "again"
