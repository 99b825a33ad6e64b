"""A ``reco serve`` to measure or attack."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .processes import ask, free_port, running

ADMIN_KEY = "benchmarks-admin"
_START_S = 120


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    pid: int


@contextmanager
def started(model: Path, memory: Path | str, log: Path, arguments: Sequence[str] = ()) -> Iterator[Service]:
    """Run ``reco serve`` until the block ends, and wait until it is ready.

    Args:
        model: model folder.
        memory: folder or URL of the memory.
        log: file of its output.
        arguments: further flags of ``reco serve``.

    Raises:
        RuntimeError: it was not ready in time; the message holds the end of its log.
    """
    port = free_port()
    command = [sys.executable, "-m", "reco_plugin", "serve", "--port", str(port), "--model", str(model)]
    environment = {**os.environ, "RECO_SERVE_ADMIN_KEY": ADMIN_KEY}
    url = f"http://127.0.0.1:{port}"
    command += ["--memory", str(memory), *arguments]
    ready = partial(ask, f"{url}/readyz")
    with running("reco serve", command, log, ready, _START_S, patience_s=60, must_end=True, env=environment) as pid:
        yield Service(url, pid)
