"""Start programs, such as ``reco serve``, on free ports, and wait until they answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ADMIN_KEY = "benchmarks-admin"
_START_S = 120


def free_port() -> int:
    """Find a port that no process listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(url: str, **how: Any) -> None:
    """Get a URL; raise OSError if that fails."""
    with urllib.request.urlopen(url, timeout=10, **how):
        pass


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    answers: Callable[[], object],
    wait_s: float,
    *,
    patience_s: float = 0.0,
    must_end: bool = False,
    stdin: bytes = b"",
    fails: type[Exception] = RuntimeError,
    **how: Any,
) -> Iterator[int]:
    """Run a program until the block ends, and wait until it answers.

    Args:
        name: for messages.
        command: that starts it.
        log: file of its output.
        answers: raises OSError as long as the program does not answer.
        wait_s: seconds until it must answer.
        patience_s: seconds between SIGTERM and SIGKILL; 0: it is killed at once.
        must_end: whether SIGKILL is an error.
        stdin: for its input, which stays open.
        fails: raised with the end of the log if the program ends, or does not answer in time.
        how: arguments of :class:`subprocess.Popen`.

    Yields:
        The process id.

    Raises:
        subprocess.TimeoutExpired: it had to be killed.
    """
    with log.open("wb") as output:
        pipe = subprocess.PIPE if stdin else None
        process = subprocess.Popen(command, stdin=pipe, stdout=output, stderr=subprocess.STDOUT, **how)
    try:
        if process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.flush()
        end = time.monotonic() + wait_s
        while not _succeeds(answers):
            if process.poll() is not None or time.monotonic() > end:
                raise fails(f"{name} does not start:\n{log.read_text('utf-8', errors='replace')[-3000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        if patience_s:
            process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            if must_end:
                raise
        finally:
            process.communicate()


def _succeeds(answers: Callable[[], object]) -> bool:
    try:
        answers()
    except OSError:
        return False
    return True


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
