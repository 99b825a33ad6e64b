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


@contextmanager
def silent_page(browser: Any, file: Path, **context: Any) -> Iterator[Any]:
    """A page of a file, in a context with these options; it must not complain."""
    within, complaints = browser.new_context(accept_downloads=True, **context), list[str]()
    opened = within.new_page()
    opened.set_default_timeout(20_000)
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"file://{file}")
    yield opened
    within.close()
    assert complaints == []
