"""What a process may still take: the limits of containers, of the process and of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reco_plugin.machine.ram import free_bytes

MIB = 2**20


def place(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def group(path: str, limit: object, used: int, cached: int = 0) -> dict[str, object]:
    """A control group of version 2."""
    base = f"sys/fs/cgroup/{path}"
    stat = f"anon {used - cached}\ninactive_file {cached}"
    return {f"{base}/memory.max": limit, f"{base}/memory.current": used, f"{base}/memory.stat": stat}


def old_group(path: str, limit: int, used: int, cached: int = 0) -> dict[str, object]:
    """One of version 1."""
    base = f"sys/fs/cgroup/memory/{path}"
    stat = f"cache {cached}\ntotal_inactive_file {cached}"
    return {f"{base}/memory.limit_in_bytes": limit, f"{base}/memory.usage_in_bytes": used, f"{base}/memory.stat": stat}


MACHINE = {"proc/meminfo": f"MemTotal: {64 * 2**20} kB\nMemAvailable: {16 * 2**20} kB"}
IN_V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (MACHINE, 16 * 1024),
        (MACHINE | {"proc/self/cgroup": "0::/"} | group("", 2048 * MIB, 500 * MIB), 1548),  # as in a container
        (MACHINE | {"proc/self/cgroup": "0::/"} | group("", 2048 * MIB, 500 * MIB, 100 * MIB), 1648),  # files go first
        (MACHINE | {"proc/self/cgroup": "0::/"} | group("", "max", 500 * MIB), 16 * 1024),
        (MACHINE | {"proc/self/cgroup": "0::/a/b"} | group("a", 900 * MIB, 800 * MIB) | group("a/b", "max", 5), 100),
        (MACHINE | IN_V1 | old_group("docker/abc", 700 * MIB, 300 * MIB, 50 * MIB), 450),
        (MACHINE | IN_V1 | old_group("", 700 * MIB, 300 * MIB), 400),  # the path is one of the host
        (MACHINE | IN_V1 | old_group("", 9223372036854771712, 300 * MIB), 16 * 1024),
        (MACHINE | {"proc/self/cgroup": "0::/"} | group("", 100 * MIB, 120 * MIB), 0),
        (MACHINE | {"proc/self/cgroup": "0::/"} | group("", "nonsense", 1), 16 * 1024),
    ],
)
def test_the_narrowest_limit_counts(files: dict[str, object], free: int, tmp_path: Path) -> None:
    assert free_bytes(place(tmp_path, files)) == free * MIB


def test_nothing_is_known_where_there_is_no_proc(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_limit_of_the_process_itself_counts() -> None:
    code = """
import os, resource
from reco_plugin.machine.ram import free_bytes
now = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 2**20, now + 200 * 2**20))
first = free_bytes()
taken = bytearray(80 * 2**20)
print(first // 2**20, free_bytes() // 2**20)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = map(int, run.stdout.split())
    assert 190 <= first <= 200
    assert 75 <= first - second <= 85
