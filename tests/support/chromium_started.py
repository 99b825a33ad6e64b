"""Chromium, for the tests of a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's own, else the system's; meanwhile its loop is in the way of what starts one in this process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        path = own if own.is_file() else Path("/usr/bin/chromium")
        if not path.is_file():
            pytest.skip("there is no Chromium: neither Playwright's (playwright install chromium) nor the system's")
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
