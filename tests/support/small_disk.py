"""A file system of its own, small enough to be filled: ext4, whose files have holes as those of most disks do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MB = 2**20


@contextmanager
def mounted(folder: Path, size: int = 160 * MB) -> Iterator[Path]:
    """Mount it below a folder; where that cannot be done, the test is skipped."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here, which wants root, mkfs.ext4 and a loop device: {error}")
    try:
        yield place
    finally:  # lazily: after a failure, this process may still have a file of it open
        subprocess.run(["umount", "--lazy", place], check=True)


def fill_up(disk: Path, left: int) -> Path:
    """A file that takes all bytes but those."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        usage = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, usage.f_bavail * usage.f_frsize - left)
    os.sync()
    return filler
