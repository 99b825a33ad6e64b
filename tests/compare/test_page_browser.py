"""The page in a real browser: marks by keys alone, blind until the end, saved and read in again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reco_plugin.compare import (
    CompareOptions,
    Comparison,
    SearchHow,
    compare_runs,
    read_judgments,
    read_marks,
    read_queries,
)
from reco_plugin.compare.page import SHOWN, side_by_side, write_page
from reco_plugin.compare.page import _Pictures as Pictures

pytestmark = pytest.mark.xdist_group("browser")

QUERIES = 40
HOSTILE = '<img src=x onerror="document.title=1">'


def compared(out: Path, names: list[str], top: str = "right") -> Comparison:
    """A page of queries, of which nine in ten change; the refined run has the right document on top, or another."""
    (out / "q.jsonl").write_text(
        "".join(json.dumps({"id": f"q{n}", "text": name}) + "\n" for n, name in enumerate(names)), encoding="utf-8"
    )
    plain, refined, qrels = "", "", ""
    for n in range(len(names)):
        right, wrong = f"{top}-{n}", f"wrong-{n}"
        first = (wrong, right) if n % 10 else (right, wrong)
        plain += "".join(f"q{n} Q0 {id_} {place} {9 - place} p\n" for place, id_ in enumerate(first))
        refined += f"q{n} Q0 {right} 0 2.5 r\nq{n} Q0 {wrong} 1 1.5 r\n"
        qrels += f"q{n} 0 right-{n} 1\n"
    for name, text in (("plain", plain), ("refined", refined), ("qrels", qrels)):
        (out / name).write_text(text, encoding="utf-8")
    options = CompareOptions(SearchHow(), judgments=read_judgments(out / "qrels"))
    runs = {"plain": out / "plain", "refined": out / "refined"}
    found = compare_runs(read_queries(str(out / "q.jsonl")), runs, options)
    write_page(found, out, "reco compare …", out)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A page of 40 queries, of which 36 change."""
    out = tmp_path_factory.mktemp("compared")
    found = compared(out, [HOSTILE, *(f"thing {n}" for n in range(1, QUERIES))])
    assert found.verdict.decision == "switch"
    assert len(side_by_side(found, Pictures(out))) == SHOWN
    return out


@pytest.fixture
def page(browser, folder) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1240, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(f"file://{folder / 'compare.html'}")
    yield opened
    context.close()
    assert complaints == []


def test_all_is_marked_by_keys_and_the_sides_are_told_at_the_end(page, tmp_path):
    assert page.locator("h1").inner_text() == "Plain and refined queries in this index"
    assert page.locator(".pair:visible").count() == 1
    assert page.locator(".label:visible").count() == 0
    for _ in range(SHOWN):  # marks what has the right document on top, by what is seen
        left = page.locator(".pair.now .side").nth(0).locator("li").nth(0).inner_text()
        assert "✓" not in left or not page.locator(".pair.now .judged").first.is_visible()
        page.keyboard.press("1" if left.startswith("right") else "3")
    assert page.locator(".pair:visible").count() == SHOWN
    assert page.locator(".label:visible").count() == 2 * SHOWN
    assert page.locator("#counted").inner_text().startswith("Refined better 30, plain better 0, the same 0")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="save marks").click()
    waiting.value.save_as(tmp_path / "marks.json")
    marks = read_marks([tmp_path / "marks.json"])
    assert (marks.refined, marks.plain, marks.same) == (SHOWN, 0, 0)
    assert marks.chance == pytest.approx(2 / 2**SHOWN)


def test_one_can_go_back_change_ones_mind_and_finish_early(page):
    page.keyboard.press("2")
    assert "Query 2 of 30, 1 marked" in page.locator("#progress").inner_text()
    page.keyboard.press("k")
    assert "this one: the same" in page.locator("#progress").inner_text()
    page.keyboard.press("1")
    page.keyboard.press("j")
    assert "Query 3 of 30, 1 marked" in page.locator("#progress").inner_text()
    page.reload()  # what was marked is kept
    assert "1 marked" in page.locator("#progress").inner_text()
    page.keyboard.press("f")
    page.keyboard.press("3")  # changes nothing any more
    assert page.locator("#progress").inner_text() == "1 of 30 marked"
    assert page.locator(".reason:visible").count() == SHOWN


def test_sides_are_shuffled_and_nothing_is_run_that_a_query_says(page):
    sides = [page.locator(".pair").nth(n).get_attribute("data-left") for n in range(SHOWN)]
    assert 5 < sides.count("plain") < 25
    assert page.title() == "Plain and refined queries in this index"


def test_marks_are_of_the_results_that_were_shown(browser, tmp_path):
    context = browser.new_context()
    opened = context.new_page()
    names = [f"thing {n}" for n in range(5)]
    progress = opened.locator("#progress")
    page = (tmp_path / "compare.html").as_uri()
    compared(tmp_path, names)
    opened.goto(page)
    opened.keyboard.press("2")
    assert "1 marked" in progress.inner_text()
    compared(tmp_path, names, top="other")  # the memory was filled, and the command run again
    opened.goto(page)
    assert "0 marked" in progress.inner_text()
    context.close()


def test_a_long_text_leaves_the_others_in_sight(browser, tmp_path):
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    compared(tmp_path, ["thing", "word " * 1000], top="x" * 3000)
    opened.goto((tmp_path / "compare.html").as_uri())
    assert max(one.bounding_box()["height"] for one in opened.locator(".pair:visible").all()) < 800
    opened.close()


def test_it_fits_a_phone(browser, folder):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    opened = context.new_page()
    opened.goto(f"file://{folder / 'compare.html'}")
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pictures = Pictures(tmp_path)
    good = pictures.of("good.png")
    assert good is not None
    assert good.startswith("data:image/webp;base64,")
    assert pictures.of((tmp_path / "good.png").read_bytes()) == good
    assert [pictures.of(name) for name in ("bad.png", "missing.png", "ftp://x/y.png", None)] == [None] * 4
    pictures.until = 0.0  # the time for pictures that have to be fetched is over
    assert pictures.of("http://127.0.0.1:9/x.png") is None
