"""Blocks of docs/measurements.md, tables, and a description of the machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from reco_plugin.files import whole_file

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measurements.md"
FIGURES = PAGE.with_suffix("")
"""Folder of the page's figures and charts."""
_FAST = ("avx512_vnni", "avx512_bf16", "amx_bf16")
"""Processor flags that speed up int8 and bf16."""


def filled(page: str, blocks: Mapping[str, str]) -> str:
    r"""Replace each named block of a page; exits if the page has no such block.

    >>> filled("a\n<!-- measured: x -->\nold\n<!-- end -->\nb", {"x": "new"})
    'a\n<!-- measured: x -->\n\nnew\n\n<!-- end -->\nb'
    """
    for name, block in blocks.items():
        place = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(page):
            raise SystemExit(f"the page has no place for {name}: <!-- measured: {name} --> and <!-- end -->")
        page = place.sub(lambda found, block=block: f"{found[1]}\n{block.strip()}\n\n{found[2]}", page)  # type: ignore[misc]
    return page


def write_blocks(blocks: Mapping[str, str], path: Path = PAGE) -> None:
    """Replace blocks of the page; all other text stays."""
    page = filled(path.read_text(encoding="utf-8"), blocks)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Format a table; the first ``left`` columns are aligned to the left, the others to the right.

    >>> print(table(["set", "R@1"], [["emoji", "53.0"]]))
    | set | R@1 |
    |---|--:|
    | emoji | 53.0 |
    """
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * left + "--:|" * (len(head) - left), *lines[1:]])


def machine(*packages: str) -> str:
    """Describe processor, cores, Python, and versions of packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = [flag for flag in _FAST if any(f" {flag}" in line for line in lines)]
    parts = [
        f"{name or platform.processor() or 'unknown processor'} ({', '.join(flags) or platform.machine()})",
        f"{os.cpu_count()} cores",
        f"{platform.system()}, Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in packages),
    ]
    return ", ".join(parts)
