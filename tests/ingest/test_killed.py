"""Builds that are killed: what benchmarks/kill_build.py does 20 times, here three times."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.kill_build import kill_rounds


def test_a_killed_build_goes_on_to_the_same_memory(tmp_path: Path) -> None:
    rounds = kill_rounds(tmp_path, 3, random.Random(7), lambda _: None, rows=200)
    assert [each.equal for each in rounds] == [True] * 3
    assert [each.swap for each in rounds] == [False, True, False]
