"""Jobs that are killed: what benchmarks/torture does for as long as one likes, here a few times."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.torture.builds import builds, syncs


@pytest.mark.parametrize("jobs", [builds, syncs])
def test_a_killed_job_goes_on_to_the_same_memory(tmp_path: Path, jobs) -> None:  # type: ignore[no-untyped-def]
    done = list(islice(jobs(tmp_path, random.Random(7), 160), 2))
    assert [each.equal for each in done] == [True] * 2
    assert all(each.kills for each in done)
