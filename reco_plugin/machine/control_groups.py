"""The control groups of Linux that hold this process: limits of a container, a pod, or a service of systemd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def groups_of(kind: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Folders of each group that limits this process, from the innermost on, and their version, 1 or 2.

    Some of them may not exist: in a container, the path may be one of the host.

    Args:
        kind: what they limit, as version 1 names it: ``memory``, ``cpu``.
        root: of ``/proc`` and ``/sys``.
    """
    groups = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, kinds, path = line.split(":", 2)
            if kind in kinds.split(","):
                base, version = groups / kind, 1
            elif number == "0" and not kinds:
                base, version = groups, 2
            else:
                continue
            place = base / path.strip("/")
            for inside in [place, *(up for up in place.parents if up.is_relative_to(base))]:
                yield inside, version
