"""Pages of docs whose words people write, and whose blocks commands write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from reco_plugin.files import whole_file


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


def write_blocks(path: Path, blocks: Mapping[str, str]) -> None:
    """Put blocks into a page; everything else of it stays as it is now, since somebody may have edited it."""
    page = filled(path.read_text(encoding="utf-8"), blocks)
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
