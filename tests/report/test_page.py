"""The page: self-contained, escaped and complete."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from reco_plugin.evaluate.findings import Findings
from reco_plugin.report import render_page
from reco_plugin.report.cells import format_cell

VOID = {"meta", "img", "br", "link", "input", "hr"}
LOADS = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.in_cell = True
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data

    def having(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(findings) -> str:
    return render_page(findings, "What refinement changes")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def bare(**more: object) -> Findings:
    return Findings.model_validate({"name": "x", "command": "", "setup": {}, "summary": (), "sections": ()} | more)


def test_nothing_is_loaded_from_anywhere(page, text):
    for _, attrs in page.tags:
        for name, value in attrs.items():
            if name in LOADS:
                assert (value or "").startswith(("#", "data:image/webp;base64,")), (name, value)
    assert page.named("link") == page.named("iframe") == page.named("object") == []
    assert re.findall(r"@import|url\((?!#)", text) == []
    assert [attrs for attrs in page.named("script") if "src" in attrs] == []
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, never loaded


def test_the_policy_forbids_loads_and_every_script_but_our_own(page):
    policy = next(attrs["content"] or "" for attrs in page.named("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='$", policy)


def test_hostile_words_are_shown_and_run_nowhere(page, text, hostile):
    assert len(page.named("script")) == 1
    assert text.count("<script") == 1
    assert hostile in [attrs.get("title") for attrs in page.named("span")] or hostile in unescape(text)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_anchors_lead_somewhere_and_ids_are_unique(page):
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    targets = [value.removeprefix("#") for value in page.having("href") if value.startswith("#")]
    assert len(targets) > 4
    assert set(targets) <= set(ids)


def test_headings_go_down_by_one_and_tables_have_scopes_and_all_figures(page, findings):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert max(levels[n] - levels[n - 1] for n in range(1, len(levels))) == 1
    assert {attrs.get("scope") for attrs in page.named("th")} == {"col", "row"}
    for table in (table for section in findings.sections for table in section.tables):
        for row in table.rows:
            assert [format_cell(row.get(column.key), column.kind) for column in table.columns] in page.rows


def test_an_interval_that_holds_0_is_neither_green_nor_red(text):
    assert re.search(r'class="points short unsure" data-sort="0.028">\+2.8 <span class="bounds">\[−0.4, \+6.0\]', text)
    assert re.search(r'class="points short down" data-sort="-0.023">−2.3', text)


def test_summary_setup_and_command_stand_at_the_top(text):
    top = text[: text.index('id="main"')]
    assert "<b>+42.6 points</b> [+38.6, +46.7]" in top
    assert "top-1 on" in top
    assert "<b>+2.5 points</b>" in top and "<b>−0.3 ± 0.1 points</b>" in top
    assert "<dt>classes</dt><dd>1,309</dd>" in top
    assert "<summary>versions</summary>" in top
    assert "<dt>numpy</dt><dd>2.4.6</dd>" in top
    assert "<dt>seeds</dt><dd>0, 1, 2</dd>" in top
    assert "reco fit drawings.csv" in top


def test_findings_with_nothing_in_them_are_a_page_too():
    assert len(Page(render_page(bare(), "title")).named("h1")) == 1
