"""The asserts of a test module are rewritten once for all processes that test, not by each at the same time.

Where no compiled test is kept yet, as after a clone, that is more than half of what a process takes to collect: five
seconds of a core. All collect in the same order, so none would find what another one has written; here each begins at
another place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir, try_makedirs


def rewrite_in_turn(config: pytest.Config, files: Sequence[Path]) -> None:
    """Rewrite and keep what no process has kept so far, as pytest does when it imports a module, and as it finds it."""
    told = getattr(config, "workerinput", None)  # of pytest-xdist
    if told is None or sys.dont_write_bytecode:
        return
    first = len(files) * int(told["workerid"].removeprefix("gw")) // told["workercount"]
    for file in (*files[first:], *files[:first]):
        kept = get_cache_dir(file) / f"{file.stem}{PYC_TAIL}"
        if kept.is_file() and kept.stat().st_mtime > file.stat().st_mtime:
            continue
        if try_makedirs(kept.parent):
            stat, code = _rewrite_test(file, config)
            _write_pyc(config.stash[assertstate_key], code, stat, kept)
