"""What this process may use of its machine: cores, and threads of products."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of the machine, of its own affinity, and of a container's limit.

    Args:
        root: of ``/proc`` and ``/sys``.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group, version in _groups(root):
        with suppress(OSError, ValueError):  # "max" where there is no limit
            if version == 1:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                quota, period = (group / "cpu.max").read_text().split()
            if int(quota) > 0:  # -1 in version 1
                found = min(found, ceil(int(quota) / int(period)))
    return max(1, found)


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders of each control group of Linux that limits the cores of this process, and their version, 1 or 2.

    Some of them may not exist: in a container, the path may be one of the host.
    """
    groups = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, kinds, path = line.split(":", 2)
            if "cpu" in kinds.split(","):
                base, version = groups / "cpu", 1
            elif number == "0" and not kinds:
                base, version = groups, 2
            else:
                continue
            place = base / path.strip("/")
            for inside in [place, *(up for up in place.parents if up.is_relative_to(base))]:
                yield inside, version


def fewer_cores() -> int:
    """Cores that this process may use where the machine has more, and 0 where it may use all.

    Libraries that count those of the machine start a thread for each. Under a limit, their threads wait for each other
    while the system holds the process up for the rest of each tenth of a second.
    """
    found = cores()
    return found if found < (os.cpu_count() or 1) else 0


_shared: set[str] = set()  # variables that were set here, and may be set anew


def share_cores(threads: int) -> None:
    """Let numpy and torch take so many threads where they are loaded from now on, unless the environment says how many.

    So it is in processes that this one starts.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if name in _shared or name not in os.environ:
            _shared.add(name)
            os.environ[name] = str(threads)


def open_closed_streams() -> None:
    """Open ``/dev/null`` in the place of each that is closed.

    Python has None there, which nothing can be written to. And the next file or socket would take its number, to which
    libraries write what they complain of: into a file of a memory.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, so this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as it runs
