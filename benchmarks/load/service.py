"""A ``reco serve`` of its own for the load, and how much memory its process takes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..processes import ask, free_port, running

ADMIN_KEY = "load-admin"
_START_S = 120


@dataclass
class Resident:
    """Resident bytes of a process, sampled each second until it is told to stop."""

    pid: int
    bytes_at: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start of the sampling, and bytes."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._began = time.perf_counter()
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.is_set():
            try:
                resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * page
            except OSError:
                return  # it ended
            self.bytes_at.append((time.perf_counter() - self._began, resident))
            self._stop.wait(1.0)


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    pid: int


@contextmanager
def started(
    model: Path, memory: Path | str, log: Path, arguments: Sequence[str] = (), port: int = 0
) -> Iterator[Service]:
    """Run ``reco serve`` until the block ends; it is warm when the block begins.

    Args:
        model: model folder.
        memory: folder or URL of the memory.
        log: file for what it says.
        arguments: further flags of ``reco serve``.
        port: a free one when 0.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message holds the end of its log.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "reco_plugin", "serve", "--port", str(port), "--model", str(model)]
    environment = {**os.environ, "RECO_SERVE_ADMIN_KEY": ADMIN_KEY}
    url = f"http://127.0.0.1:{port}"
    command += ["--memory", str(memory), *arguments]
    ready = partial(ask, f"{url}/readyz")
    with running("reco serve", command, log, ready, _START_S, patience_s=60, must_end=True, env=environment) as pid:
        yield Service(url, pid)
