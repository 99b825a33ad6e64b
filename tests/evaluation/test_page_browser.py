"""The page in a real browser: marks by keys alone, blind until the end, saved and read in again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium_started import silent_page
from PIL import Image

from reco_plugin.evaluation import CompareOptions, QueryLog, Record, SearchOptions, SearchQuery
from reco_plugin.evaluation.compare import make_record
from reco_plugin.evaluation.judgments import read_marks
from reco_plugin.evaluation.record import MARKED as SHOWN
from reco_plugin.evaluation.report import Thumbnails, write_record
from reco_plugin.evaluation.search import SearchResults
from reco_plugin.sources.indexes import IndexHit

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

QUERIES = 50
HOSTILE = '<img src=x onerror="document.title=1">'


NAMES = [HOSTILE, *(f"thing {n}" for n in range(1, QUERIES))]


def compared(out: Path, *, marks: Sequence[Path] = (), judged: bool = True) -> Record:
    """A page of queries; nine in ten change, and their refined results have the right document on top."""
    queries = tuple(SearchQuery(f"q{n}", name) for n, name in enumerate(NAMES))
    better = [[IndexHit(f"right-{n}", 2.0), IndexHit(f"wrong-{n}", 1.0)] for n in range(QUERIES)]
    plain = [hits[::-1] if n % 10 else hits for n, hits in enumerate(better)]
    grades = [{f"right-{n}": 1.0} for n in range(QUERIES)] if judged else None
    moved, hits = np.ones(QUERIES), {"plain": plain, "refined": better}
    kinds, reasons = ["names"] * QUERIES, [""] * QUERIES
    results = SearchResults(queries, kinds, moved, hits, SearchOptions(), reasons, grades)
    options = CompareOptions(marks=marks, command="reco compare …")
    record = make_record(results, options, QueryLog(queries, QUERIES), {}, (), "an index")
    write_record(record, out, "compare")
    return record


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A page of 50 queries, of which 45 change."""
    out = tmp_path_factory.mktemp("compared")
    found = compared(out)
    assert found.verdicts[0].decision == "refine"
    assert len(found.to_mark) == SHOWN
    return out


@pytest.fixture
def page(browser, folder) -> Iterator[Any]:
    with silent_page(browser, folder / "compare.html", viewport={"width": 1240, "height": 900}) as opened:
        yield opened


def test_it_shows_what_gains_most_and_one_key_opens_the_marks(page):
    assert page.locator("h1").inner_text() == "Plain and refined queries in this index"
    assert page.locator(".sentence").inner_text().startswith("Refine text queries: ")
    assert page.locator("#examples .pair:visible").count() == 5, "five gain most, and none loses"
    assert page.locator("#pairs .pair:visible").count() == 0
    page.keyboard.press("m")
    assert page.locator(".pair:visible").count() == 1
    assert page.locator(".label:visible").count() == page.locator(".judged:visible").count() == 0


def test_all_is_marked_by_keys_and_read_again(page, folder, tmp_path):
    page.keyboard.press("m")
    for _ in range(SHOWN):  # marks what has the right document on top, by what is seen
        left = page.locator("#pairs .pair.now .side").nth(0).locator("li").nth(0).inner_text()
        page.keyboard.press("1" if left.startswith("right") else "3")
    assert page.locator("#pairs .label:visible").count() == 2 * SHOWN
    assert page.locator("#counted").inner_text().startswith("Refined better 30, plain better 0, the same 0")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="save marks").click()
    waiting.value.save_as(tmp_path / "marks.json")
    marks = read_marks([tmp_path / "marks.json"], json.loads((folder / "compare.json").read_text())["key"])
    assert (marks.count("refined"), marks.people) == (SHOWN, 1)
    found = compared(tmp_path, marks=[tmp_path / "marks.json"], judged=False)
    assert (found.verdicts[0].decision, found.verdicts[0].basis) == ("refine", "marks")


def test_one_can_go_back_change_ones_mind_and_finish_early(page):
    page.get_by_role("button", name="Mark 30 queries").click()
    progress = page.locator("#progress")
    page.keyboard.press("2")
    assert "Query 2 of 30, 1 marked" in progress.inner_text()
    page.keyboard.press("k")
    assert "this one: the same" in progress.inner_text()
    page.keyboard.press("1")
    page.keyboard.press("j")
    assert "Query 3 of 30, 1 marked" in progress.inner_text()
    page.reload()  # what was marked is kept
    page.keyboard.press("m")
    assert "1 marked" in progress.inner_text()
    page.keyboard.press("f")
    page.keyboard.press("3")  # changes nothing any more
    assert progress.inner_text() == "1 of 30 marked"


def test_sides_are_shuffled_and_nothing_runs_that_a_query_holds(page):
    sides = [page.locator("#pairs .pair").nth(n).get_attribute("data-left") for n in range(SHOWN)]
    assert 5 < sides.count("plain") < 25
    assert page.title() == "Plain and refined queries in this index"


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    thumbnails = Thumbnails()
    assert str(thumbnails.of("good", tmp_path / "good.png")).startswith("data:image/webp;base64,")
    assert [thumbnails.of(name, tmp_path / name) for name in ("bad.png", "missing.png")] == [None] * 2
