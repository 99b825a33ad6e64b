"""Photograph the playground for docs/playground.md: python -m benchmarks.playground (needs Chromium and extra dev).

The memory holds drawings of Apache-2.0 and MIT licence only, so that the pictures may be kept here.
"""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

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

Scheme = Literal["light", "dark"]
ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "measurements" / "playground"
CHROMIUM = "/usr/bin/chromium"
STYLES, ASKED = ("noto", "fluent-emoji", "fluent-emoji-flat"), "noto-v1"  # Apache-2.0 and MIT
KEY = "for-the-pictures"
LATER = "dragon"  # left out at first, and added on the page
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)


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


def keep(page: Page, name: str, *, whole: bool = True) -> None:
    """A picture of the page, in few colours."""
    page.mouse.move(0, 0)
    page.wait_for_selector("#answer[aria-busy=false]")
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
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
        scenes = Scenes(data, Path(folder))
        with service(reco) as base:
            for look, viewport, scheme, scale in scenes.all():
                page = chromium.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=scale)
                page.goto(base)
                page.wait_for_selector("#fact-memory")
                page.wait_for_selector("#example-pictures img")
                look(page)
                page.close()
        chromium.close()


class Scenes:
    """What is on the pictures; one method each."""

    def __init__(self, data: Quickstart, folder: Path) -> None:
        self._data, self._folder = data, folder

    def all(self) -> Iterator[tuple[Callable[[Page], None], ViewportSize, Scheme, float]]:
        """What is done on the page, and how it is seen."""
        yield (lambda page: keep(page, "start", whole=False)), DESKTOP, "light", 1
        yield (lambda page: self.text(page, "text")), DESKTOP, "light", 1
        yield self.image, DESKTOP, "dark", 1
        yield self.adding, DESKTOP, "light", 1
        yield (lambda page: self.text(page, "phone")), PHONE, "dark", 1.5
        yield self.degraded, DESKTOP, "light", 1

    def text(self, page: Page, name: str) -> None:
        """A text query."""
        ask(page, "pizza")
        keep(page, name)

    def image(self, page: Page) -> None:
        """An image query, the captions refined too."""
        page.set_input_files("#file", self._file("cloud with lightning"))
        page.wait_for_selector("#query img.asked")
        page.check("#refine-ranked")
        page.wait_for_selector("#refined-title:text('Both refined')")
        keep(page, "image")

    def adding(self, page: Page) -> None:
        """Before and after a pair is added."""
        ask(page, LATER)
        keep(page, "add-before")
        page.click("#memory > summary")
        page.set_input_files("#pair-file", self._file(LATER))
        page.fill("#caption", LATER)
        page.fill("#admin", KEY)
        page.press("#admin", "Enter")
        page.wait_for_selector("#retrieved .fresh")
        keep(page, "add-after")
        page.click("#added-list button")
        page.wait_for_selector("#added", state="hidden")

    def degraded(self, page: Page) -> None:
        """The answer of a service whose memory is too slow."""
        away = {"degraded": "memory_timeout", "refined": False, "moved": 0, "used": []}

        def answer(route: Any) -> None:
            body = route.fetch().json()
            ranking = [pair | {"rank_refined": pair["rank_plain"]} for pair in body["plain_ranking"]]
            route.fulfill(json=body | away | {"plain_ranking": ranking, "refined_ranking": ranking})

        page.route("**/page/compare", answer)
        ask(page, "pizza")
        keep(page, "degraded", whole=False)
        page.unroute_all()

    def _file(self, label: str) -> Path:
        """A drawing to ask by, in a style that is not in the memory."""
        items, path = self._data.items, self._folder / f"{label}.png"
        rows: list[int] = self._data.rows(styles=[ASKED]).tolist()
        row = next(row for row in rows if self._data.by_key[items[row].entity].label == label)
        drawing(self._data, row).save(path)
        return path


if __name__ == "__main__":
    main()
