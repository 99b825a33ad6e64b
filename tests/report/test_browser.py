"""The page in a real browser, without network: it looks like something, its script works, it fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from chromium_started import chromium as started_chromium
from PIL import Image

from reco_plugin.evaluate.findings import Findings
from reco_plugin.report import render_page

pytestmark = pytest.mark.xdist_group("browser")  # one browser at a time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = """<!doctype html><body style="margin:0">
<iframe src="{page}" width="400" height="3000" style="border:0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument;
  const table = [...page.querySelectorAll("table")].find((one) => one.rows.length > 50);
  const first = () => table.tBodies[0].rows[0].cells[0].textContent;
  const told = {{ width: page.documentElement.scrollWidth, first: [first()] }};
  for (let time = 0; time < 2; time++) {{
    table.querySelector("th:last-child button").click();
    told.first.push(first());
  }}
  told.sorted = table.querySelector("th:last-child").getAttribute("aria-sort");
  told.pictures = [...page.images].filter((one) => one.complete && !one.naturalWidth && one.loading !== "lazy").length;
  document.title = JSON.stringify(told);
}});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed, so the page cannot be opened")
    return CHROMIUM


@pytest.fixture(scope="module")
def folder(tmp_path_factory, findings) -> Path:
    made = tmp_path_factory.mktemp("browser")
    (made / "report.html").write_text(render_page(findings, "title"), encoding="utf-8")
    return made


def chromium(browser: str, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
    return subprocess.run([browser, *flags, *arguments], capture_output=True, text=True, check=True, timeout=120)


def complaints(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(("scheme", "ground"), [("light", (245, 246, 248)), ("dark", (17, 21, 26))])
def test_it_is_drawn_in_light_and_dark_without_a_complaint(browser, folder, tmp_path, scheme, ground):
    picture = tmp_path / f"{scheme}.png"
    preference = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    page = f"file://{folder / 'report.html'}"
    ran = chromium(
        browser, tmp_path / "profile", preference, "--window-size=1280,1600", f"--screenshot={picture}", page
    )
    assert complaints(ran) == []
    with Image.open(picture) as shown:
        assert shown.getpixel((3, 3))[:3] == ground
        colours = shown.convert("RGB").getcolors(maxcolors=1 << 20)
    assert len(colours) > 50
    assert max(count for count, _ in colours) < 0.8 * 1280 * 1600


def test_on_a_phone_it_does_not_scroll_sideways_and_its_script_sorts(browser, folder, tmp_path):
    (folder / "phone.html").write_text(PHONE.format(page="report.html"), encoding="utf-8")
    ran = chromium(
        browser,
        tmp_path / "profile",
        "--allow-file-access-from-files",  # so that the frame's content can be asked
        "--dump-dom",
        f"file://{folder / 'phone.html'}",
    )
    assert complaints(ran) == []
    told = json.loads(unescape(re.search(r"<title>(.*?)</title>", ran.stdout).group(1)))
    assert told["width"] <= 400
    assert told["first"] == ["class 0", "class 59", "class 0"]
    assert told["sorted"] == "ascending"
    assert told["pictures"] == 0


def test_on_paper_a_wide_table_is_whole_and_the_text_is_not_shrunk_for_it(tmp_path):
    columns = [
        {"key": str(n), "title": "ln τ, sharpness of the neighbours' shares", "kind": "points"} for n in range(1, 8)
    ]
    rows = [{"0": "image queries, balanced"} | {str(n): (0.2, 0.157, 0.245) for n in range(1, 8)}]
    table = {"title": "", "columns": [{"key": "0", "title": "", "kind": "text"}, *columns], "rows": rows}
    section = {"key": "gate", "title": "What has it learned?", "about": "", "tables": [table]}
    findings = Findings.model_validate(
        {"name": "x", "command": "", "setup": {}, "summary": ("it " * 900,), "sections": [section]}
    )
    (tmp_path / "report.html").write_text(render_page(findings, "title"), encoding="utf-8")
    with started_chromium() as browser:
        page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 without the browser's margins
        page.goto((tmp_path / "report.html").as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 718
