"""Standard streams that are closed when a process begins."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, subprocess, sys
from reco_plugin.machine.streams import open_closed_streams
open_closed_streams()
print("to nobody"), print("to nobody", file=sys.stderr), sys.stdin.read()
null = os.stat(os.devnull).st_rdev
child = "import os, sys; print([os.fstat(one).st_rdev for one in (0, 2)] , file=open(sys.argv[1] + '.child', 'w'))"
subprocess.run([sys.executable, "-c", child, sys.argv[1]], check=True)
with open(sys.argv[1], "w") as file:
    json.dump({"number": file.fileno(), "null": [os.fstat(one).st_rdev == null for one in range(3)]}, file)
"""


@pytest.mark.parametrize(
    ("closed", "null"),
    [("<&- >&- 2>&-", [True] * 3), ("2>&-", [None, None, True]), (">&-", [None, True, None])],
)
def test_closed_streams_become_null_and_no_file_takes_their_place(tmp_path, closed, null):
    out = tmp_path / "out.json"
    run = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", SCRIPT, str(out)]
    said = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(out.read_text())
    assert found["number"] > 2
    assert all(expected is None or is_null == expected for is_null, expected in zip(found["null"], null, strict=True))
    assert "to nobody" in said.stdout + said.stderr or closed.startswith("<")


def test_open_streams_stay_as_they_are(tmp_path):
    run = [sys.executable, "-c", SCRIPT, str(tmp_path / "out.json")]
    said = subprocess.run(run, input="", capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("to nobody\n", "to nobody\n")
