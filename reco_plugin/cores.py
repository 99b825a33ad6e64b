"""How many cores this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from math import ceil
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of the machine, of its own affinity, and of a container's limit."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max" where there is no limit
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
        found = min(found, ceil(int(quota) / int(period)))
    return max(1, found)
