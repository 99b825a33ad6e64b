"""Programs that are started to be measured: a port, waiting until one answers, and what its processes take."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(url: str, **how: Any) -> None:
    """Get something, which must succeed.

    Raises:
        OSError: it does not.
    """
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
    told: bytes = b"",
    fails: type[Exception] = RuntimeError,
    **how: Any,
) -> Iterator[int]:
    """Run a program until the block ends; it answers when the block begins.

    Args:
        name: of it, for the message.
        command: that starts it.
        log: file for what it says.
        answers: asks it, and raises an OSError as long as it does not answer.
        wait_s: seconds until it must.
        patience_s: that it has to end in order, before it is killed; 0: it is killed at once.
        must_end: whether it is an error where it has to be killed.
        told: for its input, which stays open.
        fails: what is raised where it ends, or does not answer in time, with the end of its log.
        how: as :class:`subprocess.Popen` takes it.

    Yields:
        Its process's number.

    Raises:
        subprocess.TimeoutExpired: it must end, and did not.
    """
    with log.open("wb") as output:
        stdin = subprocess.PIPE if told else None
        process = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, **how)
    try:
        if process.stdin is not None:
            process.stdin.write(told)
            process.stdin.flush()
        end = time.monotonic() + wait_s
        while not _does(answers):
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


def _does(answers: Callable[[], object]) -> bool:
    try:
        answers()
    except OSError:
        return False
    return True
