"""Pages of docs whose words people write, and whose blocks commands write: blocks, tables, the machine in one line."""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from reco_plugin.files import whole_file

_FAST = ("avx512_vnni", "avx512_bf16", "amx_bf16")
"""What int8 and bf16 are fast with."""


def filled(page: str, blocks: Mapping[str, str]) -> str:
    r"""The page with each block in the place of its name.

    Raises:
        SystemExit: the page has no such place.

    >>> filled("a\n<!-- measured: x -->\nold\n<!-- end -->\nb", {"x": "new"})
    'a\n<!-- measured: x -->\n\nnew\n\n<!-- end -->\nb'
    """
    for name, block in blocks.items():
        place = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not place.search(page):
            raise SystemExit(f"the page has no place for {name}: <!-- measured: {name} --> and <!-- end -->")
        page = place.sub(lambda found, block=block: f"{found[1]}\n{block.strip()}\n\n{found[2]}", page)  # type: ignore[misc]
    return page


def page_file(named: str) -> Path:
    """The page that a flag names: before hours of work it is told that there is none, not after them.

    Raises:
        argparse.ArgumentTypeError: there is no such file.
    """
    if not (page := Path(named)).is_file():
        raise argparse.ArgumentTypeError(f"there is no page {named}: a command fills blocks of one that is there")
    return page


def folder_of(page: str) -> Callable[[str], Path]:
    """What reads the name of a folder that has a page; see :func:`page_file`."""
    return lambda named: page_file(str(Path(named, page))).parent


def write_blocks(path: Path, blocks: Mapping[str, str]) -> None:
    """Put blocks into a page; everything else of it stays as it is now, since somebody may have edited it."""
    page = filled(path.read_text(encoding="utf-8"), blocks)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def tell(page: Path | None, blocks: Mapping[str, str]) -> None:
    """Print blocks, and put them into a page where there is one."""
    print(*blocks.values(), sep="\n\n")
    if page is not None:
        write_blocks(page, blocks)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table whose first columns are aligned to the left, the others to the right.

    >>> print(table(["set", "R@1"], [["emoji", "53.0"]]))
    | set | R@1 |
    |---|--:|
    | emoji | 53.0 |
    """
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * left + "--:|" * (len(head) - left), *lines[1:]])


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
