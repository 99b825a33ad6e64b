"""Jobs that are killed: what benchmarks/torture does for as long as one likes, here a few times."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.torture.jobs import builds, syncs

pytestmark = pytest.mark.slow

KINDS = {builds: ["build", "build beside one in use"], syncs: ["sync"]}


@pytest.mark.parametrize("jobs", KINDS)
def test_a_killed_job_goes_on_to_the_same_memory(tmp_path: Path, jobs) -> None:  # type: ignore[no-untyped-def]
    done = list(islice(jobs(tmp_path, random.Random(7), 160), len(KINDS[jobs])))
    assert [each.kind for each in done] == KINDS[jobs]
    assert all(each.equal and each.kills for each in done)
