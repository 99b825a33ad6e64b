"""``reco serve`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RECO_")} | variables


def command(*flags: str, program: Sequence[str] = ("-m", "reco_plugin")) -> list[str]:
    return [sys.executable, *program, "serve", *flags]


@contextmanager
def process(
    folder: Path, model: Path | str, *flags: str, program: Sequence[str] = ("-m", "reco_plugin"), **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, and its URL."""
    started = subprocess.Popen(
        command("--model", str(model), "--port", "0", *flags, program=program),
        cwd=folder,
        env=environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in typing.cast(typing.IO[str], started.stderr):
            if found := re.search(r"http://[\d.]+:\d+", json.loads(line)["message"]):
                yield started, found[0]
                break
    finally:
        started.kill()
        started.communicate()
