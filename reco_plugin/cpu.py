"""What this process may use of its machine: cores, and threads of products."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from math import ceil
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of the machine, of its own affinity, and of the limits of its control groups.

    Control groups of version 1 are not read: set ``RECO_THREADS`` there.

    Args:
        root: of ``/proc`` and ``/sys``.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = root / "sys/fs/cgroup"
    with suppress(OSError):
        inside = (root / "proc/self/cgroup").read_text().partition("0::/")[2].strip()
        for group in (groups / inside, *(groups / inside).parents):
            with suppress(OSError, ValueError):  # no such group here, as of a container; "max" where there is no limit
                quota, period = map(int, (group / "cpu.max").read_text().split())
                found = min(found, ceil(quota / period))
    return max(1, found)


def fewer_cores() -> int:
    """Cores that this process may use where the machine has more, and 0 where it may use all.

    Libraries that count those of the machine start a thread for each. Under a limit, their threads wait for each other
    while the system holds the process up for the rest of each tenth of a second.
    """
    found = cores()
    return found if found < (os.cpu_count() or 1) else 0


def share_cores(threads: int) -> None:
    """Let numpy and torch take so many threads where they are loaded from now on, unless the environment says how many.

    So it is in processes that this one starts.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


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
