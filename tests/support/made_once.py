"""What tests make again and again, each time the same to the last bit, is made once by a process.

A session of ONNX Runtime takes 10 ms and a service opens six: most tests do less than that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.settings import Settings

open_session = OrtSession.__init__  # for tests of sessions themselves


def sessions_of(model: Path) -> Callable[..., None]:
    """In place of ``OrtSession.__init__``: graphs of this folder are opened once for each set of options."""
    opened: dict[Any, OrtSession] = {}

    def once(self: OrtSession, path: Path, settings: Settings, **more: bool) -> None:
        if model not in Path(path).parents:
            open_session(self, path, settings, **more)
            return
        options = sorted(settings.provider_options.items())
        key = (path, settings.provider, settings.threads, repr(options), repr(more))
        if key not in opened:
            made = OrtSession.__new__(OrtSession)
            open_session(made, path, settings, **more)
            opened[key] = made
        vars(self).update(vars(opened[key]))

    return once


def digests_of(model: Path, sha256_file: Callable[[Path], str]) -> Callable[[Path], str]:
    """In place of ``sha256_file``: files of this folder are read once, while they stay."""
    known: dict[Any, str] = {}

    def once(path: Path) -> str:
        if model not in path.parents:
            return sha256_file(path)
        now = path.stat()
        key = (path, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        if key not in known:
            known[key] = sha256_file(path)
        return known[key]

    return once
