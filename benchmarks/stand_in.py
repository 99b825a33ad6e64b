"""The tests' stand-in for a Qdrant server, in a process of its own, so that its time does not count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"
SERVER = """
import sys
from qdrant_stand_in import serving
with serving() as server:
    print(server.url(sys.argv[1]), flush=True)
    sys.stdin.read()
"""


@contextmanager
def server(scheme: Literal["grpc", "http"]) -> Iterator[str]:
    """The URL of a stand-in that runs while the block does."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, scheme],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SUPPORT)},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
