"""The playground in a real browser: headless Chromium over a real socket, with the shipped model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reco_plugin import Pair, Reco
from reco_plugin.encoders.preprocess.image import thumbnail
from reco_plugin.errors import MemoryUnavailable

from .conftest import encoded

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]  # one browser at a time is enough for two cores

PATIENCE_MS = 20_000  # until a test is given up; nothing waits that long when all is well


@dataclass
class Seen:
    """What a page did while it was open."""

    page: Any
    base: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def ask(self, text: str) -> None:
        """Search by a text and wait for the answer."""
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")
        self.settled()
        self.page.wait_for_selector("#query .shown-query")

    def settled(self) -> None:
        """Wait until nothing is being asked any more."""
        self.page.wait_for_timeout(250)  # the slider's rest
        self.page.wait_for_selector("#answer[aria-busy=false]")

    def captions(self, ranking: str) -> list[str]:
        """Captions of a ranking, in order."""
        texts: list[str] = self.page.locator(f"#{ranking} li .caption").all_inner_texts()
        return texts

    def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


Opens = Callable[..., Any]


@pytest.fixture
def opens(browser: Any, live: Any) -> Opens:
    """Open the page of a service: ``with opens(reco, api_keys=["k"]) as seen``; it must be silent unless ``noisy``."""

    @contextmanager
    def start(
        reco: Reco, *, noisy: bool = False, window: dict[str, Any] | None = None, **settings: Any
    ) -> Iterator[Seen]:
        with live(reco, page=True, **settings) as (base, _):
            context = browser.new_context(**{"viewport": {"width": 1240, "height": 900}, **(window or {})})
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            seen = Seen(page, base)
            page.on(
                "console",
                lambda message: seen.errors.append(message.text) if message.type in ("error", "warning") else None,
            )
            page.on("pageerror", lambda error: seen.errors.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    seen.foreign.append(request.url) if not request.url.startswith((base, "data:", "blob:")) else None
                ),
            )
            page.goto(base)
            if "api_keys" not in settings:
                page.wait_for_selector("#fact-memory")
            yield seen
            context.close()
            assert seen.foreign == []
            assert noisy or seen.errors == []

    return start


@pytest.fixture
def shown(reco: Reco, drawings: list[Pair]) -> Reco:
    """The shipped model with the drawings in its memory, captions and pictures included."""
    reco.memory.add(
        [
            Pair(pair.id, pair.image, pair.text, {"caption": pair.text, "thumbnail": thumbnail(pair.image)})  # type: ignore[arg-type]
            for pair in drawings
        ]
    )
    return reco


@pytest.fixture
def drawing(tmp_path: Path, drawings: list[Pair]) -> Path:
    """A large blue circle as a file."""
    path = tmp_path / "query.png"
    next(pair.image for pair in drawings if pair.id == "large-blue-circle").save(path)  # type: ignore[union-attr]
    return path


def transfer(seen: Seen, *files: str, kind: str = "image/png", text: str = "") -> Any:
    """Files in the hand of the pointer or the clipboard; bytes come by hand, since the page may fetch no data URI."""
    return seen.page.evaluate_handle(
        """([files, kind, text]) => {
            const transfer = new DataTransfer();
            for (const data of files) {
                const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
                transfer.items.add(new File([bytes], "dropped.png", { type: kind }));
            }
            if (text) transfer.setData("text/plain", text);
            return transfer;
        }""",
        [files, kind, text],
    )


PASTE = """([where, held]) => {
    const paste = new ClipboardEvent("paste", { clipboardData: held, bubbles: true, cancelable: true });
    return document.querySelector(where).dispatchEvent(paste);
}"""
"""Pastes into an element; whether the page left it to the browser."""


def test_a_text_shows_what_the_service_answers(shown: Reco, opens: Opens) -> None:
    with opens(shown) as seen:
        seen.ask("a large red square")
        answer = seen.page.request.post(
            f"{seen.base}/page/compare", data={"input": {"text": "a large red square"}}
        ).json()
        for ranking in ("plain", "refined"):
            assert seen.captions(ranking) == [pair["caption"] for pair in answer[f"{ranking}_ranking"]]
        assert seen.captions("retrieved") == [used["caption"] for used in answer["used"]]
        weight = seen.page.locator("#retrieved .weight b").first.inner_text()
        assert (
            weight
            == f"{round(100 * answer['used'][0]['weight'] / sum(one['weight'] for one in answer['used']))}\u00a0%"
        )
        assert seen.page.locator("#retrieved img").count() == len(answer["used"])
        assert answer["refined_ranking"][0]["caption"] in seen.page.inner_text("#status")
        marks = seen.page.locator("#refined .mark").all_inner_texts()
        assert len(marks) == len(answer["refined_ranking"])
        for pair, mark in zip(answer["refined_ranking"], marks, strict=True):
            symbol = (
                "="
                if pair["rank_plain"] == pair["rank_refined"]
                else "▲"
                if pair["rank_plain"] > pair["rank_refined"]
                else "▼"
            )
            assert symbol in mark
        assert seen.page.locator("#moves path").count() >= len(marks)


def test_an_image_can_be_dropped_pasted_and_chosen(shown: Reco, opens: Opens, drawing: Path) -> None:
    data = encoded(Image.open(drawing))
    with opens(shown) as seen:
        page = seen.page
        held = transfer(seen, data)
        page.dispatch_event("body", "dragenter", {"dataTransfer": held})
        assert page.is_visible("#veil")
        page.dispatch_event("body", "drop", {"dataTransfer": held})
        page.wait_for_selector("#query img.shown-query")
        assert not page.is_visible("#veil")
        dropped = seen.captions("refined")
        assert len(dropped) == 10
        assert seen.captions("retrieved")[0] == "a large blue circle"

        page.click("#chosen-remove")
        assert page.evaluate("document.activeElement.id") == "text"
        seen.ask("a small green triangle")
        assert page.locator("#query img.shown-query").count() == 0
        held = transfer(seen, data)
        assert not page.evaluate(PASTE, ["body", held])
        page.wait_for_selector("#query img.shown-query")
        assert seen.captions("refined") == dropped

        page.click("#chosen-remove")
        page.set_input_files("#file", drawing)
        page.wait_for_selector("#query img[alt='Query: query.png']")
        seen.settled()
        assert seen.captions("refined") == dropped


def test_switches_ask_again_at_once(shown: Reco, opens: Opens) -> None:
    with opens(shown) as seen:
        page = seen.page
        seen.ask("a small orange circle")
        page.focus("#k")
        page.press("#k", "Home")
        seen.settled()
        assert (page.inner_text("#k-shown"), page.locator("#retrieved li").count()) == ("1", 1)
        for _ in range(3):
            page.press("#k", "ArrowRight")
        seen.settled()
        assert page.locator("#retrieved li").count() == 4

        page.check("input[name=gate][value=off]")
        seen.settled()
        assert all("agrees by 1.00" in text for text in page.locator("#retrieved .figures").all_inner_texts())
        assert not page.is_visible("#why")
        page.check("input[name=gate][value=on]")
        seen.settled()
        assert "What was found counts" in page.inner_text("#why")
        assert not all("agrees by 1.00" in text for text in page.locator("#retrieved .figures").all_inner_texts())

        page.check("input[name=refine][value=off]")
        seen.settled()
        assert page.inner_text("#refined-title") == "Not refined"
        assert "switched off" in page.inner_text("#retrieved-none")
        assert seen.captions("plain") == seen.captions("refined")

        page.check("input[name=refine][value='']")
        page.check("input[name=side][value=document]")
        seen.settled()
        assert "By default this stays plain" in page.inner_text("#retrieved-none")


def test_a_whole_run_by_keyboard(shown: Reco, opens: Opens) -> None:
    with opens(shown) as seen:
        page = seen.page
        keys = page.keyboard
        where = "(document.activeElement.id || document.activeElement.className || document.activeElement.tagName)"
        keys.press("Tab")
        assert page.evaluate(where) == "skip"
        keys.press("Tab")
        assert page.evaluate(where) == "text"
        keys.type("a large green triangle")
        keys.press("Enter")
        page.wait_for_selector("#refined li")
        seen.settled()
        assert seen.captions("refined")[0] in page.inner_text("[role=status]")
        assert page.evaluate(where) == "text"  # the focus stays where one types

        order = []
        for _ in range(60):
            keys.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            order.append(page.evaluate(where))
        else:
            pytest.fail(f"no way out of the page by Tab: {order}")
        assert order[:2] == ["file", "go"]
        assert order.index("go") < order.index("k") < order.index("by") < len(order) - 1

        page.focus("#k")
        keys.press("Home")
        seen.settled()
        assert page.locator("#retrieved li").count() == 1
        page.focus("input[name=gate]:checked")
        keys.press("ArrowRight")
        assert page.evaluate("document.activeElement.value") == "on"
        page.focus("#memory > summary")
        keys.press("Enter")
        keys.press("Tab")
        assert page.evaluate(where) == "pair-file"
        keys.press("Tab")
        assert page.evaluate(where) == "caption"


def test_a_phone_needs_no_scrolling_sideways(shown: Reco, opens: Opens, drawing: Path) -> None:
    shown.memory.add([Pair("long", drawing, "red", {"caption": "Donaudampfschifffahrtsgesellschaft" * 6})])
    with opens(shown, window={"viewport": {"width": 400, "height": 800}, "has_touch": True}) as seen:
        page = seen.page
        assert seen.sideways() <= 0
        seen.ask("a large red square " + "x" * 300)
        assert seen.sideways() <= 0
        assert page.evaluate("document.querySelector('#answer').getBoundingClientRect().top") < 100  # it went there
        page.set_input_files("#file", drawing)
        page.wait_for_selector("#query img.shown-query")
        for summary in page.locator("summary").all():
            summary.click()
        assert page.locator("details:not([open])").count() == 0
        assert seen.sideways() <= 0
        page.set_viewport_size({"width": 320, "height": 700})
        assert seen.sideways() <= 0


def test_every_control_has_a_name(shown: Reco, opens: Opens, drawing: Path) -> None:
    with opens(shown) as seen:
        page = seen.page
        page.set_input_files("#file", drawing)
        page.wait_for_selector("#query img.shown-query")
        page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        controls = {
            "button",
            "textbox",
            "searchbox",
            "slider",
            "radio",
            "checkbox",
            "combobox",
            "image",
            "img",
            "link",
            "list",
        }
        named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
        found = [(role, name) for role, name in named if role in controls - {"list"}]
        assert {"button", "searchbox", "slider", "radio", "combobox", "link"} <= {role for role, _ in found}
        assert [role for role, name in found if not name.strip()] == []


@pytest.mark.filterwarnings("ignore:answering with frozen CLIP vectors")
def test_a_degraded_answer_is_marked_as_one(troubled: Any, opens: Opens) -> None:
    made = troubled()

    def fail() -> None:
        raise MemoryUnavailable("the memory is down")

    with opens(made.reco) as seen:
        seen.page.wait_for_load_state("networkidle")  # the examples are read from the memory, too
        made.seam.trouble = fail
        seen.ask("red")
        assert "Degraded: the memory failed" in seen.page.inner_text("#degraded")
        assert "the memory is down" in seen.page.inner_text("#rankings-none")
        made.seam.trouble = None
        seen.page.press("#text", "Enter")
        seen.page.wait_for_selector("#degraded", state="hidden")
        assert len(seen.captions("refined")) == 10


def test_errors_are_words_and_the_page_goes_on(shown: Reco, opens: Opens, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    with opens(shown, noisy=True) as seen:
        page = seen.page
        page.press("#text", "Enter")
        assert "Write a text" in page.inner_text("#problem")
        page.set_input_files("#file", broken)
        page.wait_for_selector("#problem:has-text('cannot be read')")
        assert page.inner_text("#problem").startswith("An image (16 bytes)")  # which of them, the API says
        page.route("**/page/compare", lambda route: route.abort())
        page.fill("#text", "red")
        page.press("#text", "Enter")
        page.wait_for_selector("#problem:has-text('does not answer')")
        page.unroute_all()
        seen.ask("red")
        assert page.is_hidden("#problem")


def test_captions_are_text_and_never_markup(reco: Reco, opens: Opens, drawing: Path) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    reco.memory.add([Pair("evil", drawing, "red", {"caption": evil})])
    with opens(reco) as seen:
        seen.ask("red")
        assert seen.captions("refined") == [evil]
        assert seen.page.title() == "reco-plugin playground"


def test_one_key_opens_what_it_has_the_right_for(shown: Reco, opens: Opens, drawing: Path, tmp_path: Path) -> None:
    """A wrong key is called wrong, and one without a right is told which; the field keeps the focus."""
    (tmp_path / "keys.toml").write_text(
        '[reader]\nkey = "reader-1"\nrights = ["embed", "read"]\n'
        '[curator]\nkey = "curator-1"\nrights = ["embed", "read", "write"]\n'
    )
    caption = "the harbour of Antananarivo"
    with opens(shown, noisy=True, api_keys=[], keys_file=tmp_path / "keys.toml") as seen:
        page = seen.page
        page.wait_for_selector("#key:visible")
        assert "This needs a key" in page.inner_text("#problem")
        for wrong in ("wrong-key", "\u201creader-1\u201d"):  # the latter no header can hold
            page.fill("#key", wrong)
            page.press("#key", "Tab")
            page.wait_for_selector("#problem:has-text('does not know that key')")
            assert page.evaluate("document.activeElement.id") == "key"
        page.fill("#key", "reader-1")
        page.press("#key", "Tab")
        page.wait_for_selector("#fact-memory")
        seen.ask(caption)
        page.locator("#retrieved .not-this").first.click()
        page.wait_for_selector("#feedback-problem:has-text('lacks the right write')")
        page.click("#memory > summary")
        page.set_input_files("#pair-file", drawing)
        page.fill("#caption", caption)
        page.click("#add button[type=submit]")
        page.wait_for_selector("#add-problem:has-text('lacks the right write')")
        page.fill("#key", "curator-1")
        page.click("#add button[type=submit]")
        page.wait_for_selector("#added-list li")
        page.wait_for_selector("#retrieved .fresh")
        assert seen.captions("retrieved")[0] == caption
        page.wait_for_selector("#fact-memory:has-text('25 pairs')")
        assert len(shown.memory) == 25
        page.click("#added-list button")
        page.wait_for_selector("#added", state="hidden")
        assert len(shown.memory) == 24
        page.locator("#retrieved .not-this").first.click()
        page.wait_for_selector("#retrieved .not-this[aria-pressed=true]")
        assert [(one.modality, one.by) for one in shown.memory.opinions] == [("text", "playground")]
        page.click("#retrieved .not-this[aria-pressed=true]")
        page.wait_for_selector("#retrieved .not-this[aria-pressed=true]", state="detached")
        assert shown.memory.opinions == ()
