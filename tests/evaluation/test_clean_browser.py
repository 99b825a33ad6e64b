"""The page of `reco clean` in a real browser: decisions by keys alone, saved as corrections.csv."""

from __future__ import annotations

import pytest
from chromium_started import silent_page

from reco_plugin.evaluation.clean_report import CaptionCard, CleanRecord, write_clean
from reco_plugin.ingest.corrections import Correction, read_corrections

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

HOSTILE = '"><img src=x onerror="document.title=1">, a fox'
WRONG = [HOSTILE, "a wolf", "an owl", "a wren", "a crow"]


@pytest.fixture
def page(browser, tmp_path):
    cards = [
        CaptionCard([(f"p{n}", text)], f"p{n}", text, f"better {n}" if n != 3 else "", "because", 0.5)
        for n, text in enumerate(WRONG)
    ]
    many = CaptionCard(
        [("q1", "a"), ("q2", "b, c"), ("q3", "d")], "3 pairs", "a; b, c; d", "", "the same picture", None
    )
    record = CleanRecord("Captions", "reco clean", "k", {}, ["Some.", "Not known."], [many], cards, {}, (), ())
    file, phone = write_clean(record, tmp_path), {"width": 400, "height": 800}
    with silent_page(browser, file, viewport=phone, has_touch=True) as opened:
        yield opened


def saved(page, tmp_path):
    with page.expect_download() as download:
        page.keyboard.press("s")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return read_corrections(path)


def test_thirty_keys_decide_and_the_file_is_what_a_sync_reads(page, tmp_path):
    for key in ("d", "y", "n", "e"):
        page.keyboard.press(key)
    page.keyboard.type("a barn owl")
    page.keyboard.press("Enter")
    page.keyboard.press("y")  # has no suggestion: nothing happens
    page.keyboard.press("n")
    page.keyboard.press("u")
    page.keyboard.press("d")
    assert saved(page, tmp_path) == {
        "q1": Correction("a", "", "leave out"),
        "q2": Correction("b, c", "", "leave out"),
        "q3": Correction("d", "", "leave out"),
        "p0": Correction(HOSTILE, "better 0", "replace"),
        "p1": Correction("a wolf", "", "right"),
        "p2": Correction("an owl", "a barn owl", "replace"),
        "p3": Correction("a wren", "", "leave out"),
    }


def test_arrows_go_back_a_decision_is_changed_and_a_reload_keeps_it(page, tmp_path):
    for key in ("n", "n", "ArrowUp", "ArrowLeft", "ArrowRight", "y"):
        page.keyboard.press(key)
    page.reload()
    assert page.locator("#progress").inner_text() == "Caption 3 of 6, 2 decided"
    assert saved(page, tmp_path)["p0"].decision == "replace"
    page.keyboard.press("e")
    page.keyboard.press("Escape")
    assert page.locator("#edit").is_hidden()
    assert page.locator(".caption.decided").count() == 2


def test_a_finger_decides_too_and_the_page_fits_a_phone(page):
    page.locator(".caption").nth(2).tap()
    page.get_by_role("button", name="n it is right").tap()
    assert page.locator(".caption").nth(2).locator(".decision").inner_text() == "right"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
