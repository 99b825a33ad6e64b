"""Photograph the playground for docs/playground.md: python -m benchmarks.playground (needs Chromium and extra dev).

The memory holds drawings of Apache-2.0 and MIT licence only, so that the pictures may be kept here.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from reco_plugin import Pair, Reco
from reco_plugin.demo.tasks import drawing
from reco_plugin.quickstart.dataset import Quickstart, load
from reco_plugin.serve.app import create_app
from reco_plugin.serve.page import thumbnail
from reco_plugin.serve.run import server_options
from reco_plugin.serve.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "measurements" / "playground"
CHROMIUM = "/usr/bin/chromium"
STYLES, ASKED = ("noto", "fluent-emoji", "fluent-emoji-flat"), "noto-v1"  # Apache-2.0 and MIT
KEY = "for-the-pictures"
LATER = "dragon"  # left out at first, and added on the page
DESKTOP = ViewportSize(width=1280, height=900)


def pairs(data: Quickstart) -> list[Pair]:
    """Captions and drawings, without those of the entity that is added later."""
    chosen = [
        row for row in data.rows(splits=("seen", "unseen"), styles=STYLES) if LATER not in data.items[row].caption
    ]
    return [
        Pair(
            data.items[row].key,
            drawing(data, row),
            data.items[row].caption,
            {"caption": data.items[row].caption, "thumbnail": thumbnail(drawing(data, row))},
        )
        for row in chosen
    ]


@contextmanager
def service(reco: Reco) -> Iterator[str]:
    """Serve on a free port."""
    settings = ServeSettings(admin_key=KEY, show_pairs=True, port=0, log_level="warning")
    app = create_app(settings, reco)
    server = uvicorn.Server(uvicorn.Config(app, host=settings.host, port=settings.port, **server_options(settings)))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def keep(page: Page, name: str) -> None:
    """A picture of the page, in few colours."""
    page.mouse.move(0, 0)
    page.wait_for_selector("#answer[aria-busy=false]")
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    shot.quantize(256, Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE).save(
        OUT / f"{name}.png", optimize=True
    )


def ask(page: Page, text: str) -> None:
    """Search by a text."""
    page.fill("#text", text)
    page.press("#text", "Enter")
    page.wait_for_selector("#refined li")
    page.wait_for_timeout(300)


def main() -> None:
    """Make all pictures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    OUT.mkdir(exist_ok=True)
    data = load()
    with (
        Reco.open(ROOT / "triton_models", memory=":memory:") as reco,
        sync_playwright() as started,
        TemporaryDirectory() as folder,
    ):
        reco.memory.add(pairs(data), progress=True)
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with service(reco) as base:
            page = chromium.new_page(viewport=DESKTOP, color_scheme="light")
            page.goto(base)
            page.wait_for_selector("#example-pictures img")
            ask(page, "pizza")
            keep(page, "text")
            ask(page, LATER)
            keep(page, "add-before")
            add(page, data, Path(folder) / f"{LATER}.png")
            keep(page, "add-after")
        chromium.close()


def add(page: Page, data: Quickstart, path: Path) -> None:
    """Add a pair by a drawing in a style that is not in the memory."""
    rows: list[int] = data.rows(styles=[ASKED]).tolist()
    row = next(row for row in rows if data.by_key[data.items[row].entity].label == LATER)
    drawing(data, row).save(path)
    page.click("#memory > summary")
    page.set_input_files("#pair-file", path)
    page.fill("#caption", LATER)
    page.fill("#admin", KEY)
    page.press("#admin", "Enter")
    page.wait_for_selector("#retrieved .fresh")


if __name__ == "__main__":
    main()
