"""The asserts of a test module are rewritten once for all processes that test, not by each at the same time.

Where no compiled test is kept yet, as after a clone, that is more than half of what a process takes to collect: five
seconds of a core. All collect in the same order, so none would find what another one has written; here each begins at
another place.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

try:
    from _pytest.assertion.rewrite import (
        PYC_TAIL,
        _rewrite_test,
        _write_pyc,
        assertstate_key,
        get_cache_dir,
        try_makedirs,
    )
except ImportError:  # a pytest that names its own parts otherwise: each process rewrites what it imports
    assertstate_key = None  # type: ignore[assignment]


def rewrite_in_turn(config: pytest.Config, files: Sequence[Path]) -> None:
    """Rewrite and keep what no process has kept so far, as pytest does when it imports a module, and as it finds it.

    What cannot be rewritten here, as it does not parse, is left to pytest, which tells of it where it is imported.
    """
    told = getattr(config, "workerinput", None)  # of pytest-xdist
    state = config.stash.get(assertstate_key, None) if assertstate_key else None  # none with `--assert=plain`
    if told is None or state is None or sys.dont_write_bytecode:
        return
    first = len(files) * int(told["workerid"].removeprefix("gw")) // told["workercount"]
    for file in (*files[first:], *files[:first]):
        with suppress(Exception):
            _rewrite(config, state, file)


def _rewrite(config: pytest.Config, state: Any, file: Path) -> None:
    kept = get_cache_dir(file) / f"{file.stem}{PYC_TAIL}"
    if kept.is_file() and kept.stat().st_mtime > file.stat().st_mtime:
        return
    if try_makedirs(kept.parent):
        stat, code = _rewrite_test(file, config)
        _write_pyc(state, code, stat, kept)
