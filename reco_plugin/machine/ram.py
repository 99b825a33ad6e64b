"""How much memory (RAM) this process may still take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .control_groups import groups_of

_UNLIMITED = 2**60  # cgroup v1 says a little less than 2**63
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that the limits of the container, of the process and of the machine leave; None where none is known.

    What a container has read from files counts as free: the kernel drops it first.

    Args:
        root: of ``/proc`` and ``/sys``.
    """
    left = [*_left_in_groups(root), *_left_of_process(root), *_left_of_machine(root)]
    return max(0, min(left)) if left else None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Of each control group that holds this process, from the innermost on; a limit of any of them kills."""
    for group, version in groups_of("memory", root):
        with suppress(OSError, ValueError):
            yield _left_in(group, *(_V1 if version == 1 else _V2))


def _left_in(group: Path, limit: str, used: str, dropped: str) -> int:
    """Raises ValueError where there is no limit."""
    most = int((group / limit).read_text())  # "max" where there is none
    if most >= _UNLIMITED:
        raise ValueError("no limit")
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return most - int((group / used).read_text()) + int(stat.get(dropped, 0))


def _left_of_process(root: Path) -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            yield most - int((root / "proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _left_of_machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
