"""What a figure was measured on, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

_FAST = ("avx512_vnni", "avx512_bf16", "amx_bf16")
"""What int8 and bf16 are fast with."""


def machine(*packages: str, load: bool = True) -> str:
    """Processor, cores, load, Python, and the versions of these packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = [flag for flag in _FAST if any(f" {flag}" in line for line in lines)]
    parts = [
        f"{name or platform.processor() or 'unknown processor'} ({', '.join(flags) or platform.machine()})",
        f"{os.cpu_count()} cores",
        *([f"load {os.getloadavg()[0]:.1f} at the end"] if load else []),
        f"{platform.system()}, Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in packages),
    ]
    return ", ".join(parts)
