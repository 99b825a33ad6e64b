"""Run a command whose stderr is a terminal, where progress is shown as bars."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
import threading
from collections.abc import Sequence
from typing import Any


def run_on_a_terminal(
    command: Sequence[str], *, timeout: float, answer: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As ``subprocess.run`` with captured output; what the command and its children draw on the terminal is stderr.

    ``answer`` is typed there, for commands that ask.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))  # of a new one it is 0, where no bar finds room
    drawn: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 65536):
                drawn.append(part)
        except OSError:  # how Linux says that nobody has the other end open any more
            return

    reader = threading.Thread(target=read, daemon=True)
    try:
        if answer is not None:
            options["stdin"] = theirs
            os.write(ours, answer.encode())
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, **options) as process:
            os.close(theirs)
            reader.start()
            try:
                stdout, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        reader.join(10)
    finally:
        os.close(ours)
    return subprocess.CompletedProcess(command, process.returncode, stdout, b"".join(drawn).decode("utf-8", "replace"))
