"""The page: self-contained, escaped, complete, and with the figures of document and data."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reco_plugin.errors import DataError
from reco_plugin.evaluate.findings import Case, Findings, RetrievedPair
from reco_plugin.measure.statistics import Interval
from reco_plugin.report import read_runs, write_report
from reco_plugin.report.runs import format_cell
from reco_plugin.report.write import render_page

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
def folder(tmp_path_factory, make_run, findings) -> Path:
    """A run with its report."""
    run = make_run(tmp_path_factory.mktemp("report") / "drawings", findings)
    write_report(read_runs([run]), run)
    return run


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def render(findings: Findings, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    findings.write(folder)
    return render_page(read_runs([folder]), "title")


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
    assert len(targets) > 6
    assert set(targets) <= set(ids)


def test_pictures_and_charts_have_words_and_tables_have_scopes(page):
    assert all(attrs.get("alt") for attrs in page.named("img"))
    assert len(page.named("img")) == 8 * (1 + 3) + 4 * 3 + 3 * (1 + 3) + 3
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in page.named("svg"))
    assert len(page.named("svg")) == 1 + 4
    assert {attrs.get("scope") for attrs in page.named("th")} == {"col", "row"}


def test_headings_go_down_by_one_and_what_is_named_has_a_role(page, tmp_path, make_run, findings):
    runs = [make_run(tmp_path / name, findings) for name in ("one", "two")]
    write_report(read_runs(runs), tmp_path)
    for one in (page, Page((tmp_path / "report.html").read_text(encoding="utf-8"))):
        levels = [int(tag[1]) for tag, _ in one.tags if re.fullmatch(r"h\d", tag)]
        assert max(levels[n] - levels[n - 1] for n in range(1, len(levels))) == 1
        named = [attrs for tag in ("span", "div", "pre") for attrs in one.named(tag) if "aria-label" in attrs]
        assert named
        assert all("role" in attrs for attrs in named)


def test_what_is_relevant_is_told_by_colour_sign_and_words(text):
    first = text[text.index('id="run-1-gains"') :].split('class="found"')[1]
    frames = re.findall(r'<figure class="(\w+)">.*?aria-label="([^"]+)" title="[^"]+">(.)</span>', first, re.DOTALL)[:5]
    assert frames == [
        ("relevant", "shows the same", "✓"),
        ("relevant", "shows the same", "✓"),
        ("other", "shows something else", "✗"),
        ("unknown", "not known what it shows", "?"),
        ("other", "shows something else", "✗"),
    ]
    assert first.count('class="blank"') >= 2  # one file is not there, one neighbour has no picture


def test_gains_stand_before_harms_in_the_same_form(text):
    gains, harms = text.index('id="run-1-gains"'), text.index('id="run-1-harms"')
    assert gains < harms
    assert text[gains:harms].count('<article class="card case">') == 8
    assert text[harms:].count('<article class="card case">') == 3
    assert "rank 37 → <b" in text[gains:harms]
    assert re.search(r'rank 1 → <b class="down">1,205 ▼</b>', text[harms:])


def test_the_true_candidate_is_marked_and_told_when_it_is_far_down(text):
    first = text[text.index('id="run-1-gains"') :].split("<article")[1]
    assert '<li class="true"><span class="name">red fox' in first
    assert '<li class="true far" value="37">' in first


def test_page_document_and_data_have_the_same_figures(folder, page, findings):
    stored = Findings.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))
    assert stored == findings
    document = (folder / "report.md").read_text(encoding="utf-8")
    lines = [
        [unescape(re.sub(r"\\(.)", r"\1", cell.strip().strip("*"))) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in document.splitlines()
        if line.startswith("| ")
    ]
    for section in stored.sections:
        for table in section.tables:
            for row in table.rows:
                cells = [format_cell(row.get(column.key), column.kind) for column in table.columns]
                assert cells in page.rows
                assert cells in lines


def test_the_values_of_charts_are_there_to_read(page):
    assert ["5", "47.1 [45.0, 49.2]", "39.1", "42.3"] in page.rows
    assert ["20", "46.2 [44.0, 48.4]", "–", "41.5"] in page.rows


def test_an_interval_that_holds_0_is_neither_green_nor_red(text):
    assert re.search(r'class="points short unsure" data-sort="0.028">\+2.8 <span class="bounds">\[−0.4, \+6.0\]', text)
    assert re.search(r'class="points short down" data-sort="-0.023">−2.3', text)


def test_summary_setup_and_command_stand_at_the_top(text):
    top = text[: text.index('id="run-1-main"')]
    assert "<b>+42.6 points</b> [+38.6, +46.7]" in top
    assert "top-1 on" in top
    assert "<b>+2.5 points</b>" in top and "<b>−0.3 ± 0.1 points</b>" in top
    assert "<dt>classes</dt><dd>1,309</dd>" in top
    assert "<summary>versions</summary>" in top
    assert "<dt>numpy</dt><dd>2.4.6</dd>" in top
    assert "<dt>seeds</dt><dd>0, 1, 2</dd>" in top
    assert "reco fit drawings.csv" in top


def test_findings_with_nothing_in_them_are_a_page_too(tmp_path):
    assert len(Page(render(bare(), tmp_path / "run")).named("h1")) == 1


def test_a_run_without_harms_says_so(tmp_path, findings):
    text = render(findings.model_copy(update={"harms": ()}), tmp_path / "run")
    assert "There was none." in text[text.index('id="run-1-harms"') :]


def test_without_any_picture_cases_are_shown_in_words(tmp_path, findings):
    text = render(bare(gains=findings.gains), tmp_path / "run")  # no folder of pictures there
    assert "no picture" not in text
    assert text.count('<div class="found words">') == 12
    assert ">a drawing of a fox</span>" in text


@pytest.mark.parametrize("name", ["../secret.webp", "/etc/passwd.png", "sub/p.webp", "p.svg", "..", ""])
def test_a_picture_from_elsewhere_is_refused(tmp_path, name):
    shown = RetrievedPair(caption="c", picture=name, similarity=0.1, reliability=0.1, relevant=None)
    case = Case(name="n", picture=None, rank_before=1, rank_after=0, before=(), after=(), neighbours=(shown,))
    with pytest.raises(DataError, match="a picture is called"):
        render(bare(gains=(case,)), tmp_path / "run")


def test_several_runs_are_compared_first_and_then_shown_in_full(tmp_path, make_run, findings):
    one, two = (make_run(tmp_path / side / "drawings", findings) for side in "ab")
    other = make_run(tmp_path / "birds", findings.model_copy(update={"name": "Birds"}))
    write_report(read_runs([one, two, other]), tmp_path, title="Three")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    rows = [row for row in page.rows if row[0] == "Birds"]
    gain = format_cell(Interval(0.426, 0.386, 0.467), "points")
    assert rows[2] == ["Birds", "top-1, unseen", "both refined", "6.4", "49.0", gain]
    assert [f"Drawings ({folder})" in text for folder in (one, two)] == [True, True]
    assert {"run-1", "run-2", "run-3", "run-3-gains"} <= set(page.having("id"))
    ids = page.having("id")
    assert len(ids) == len(set(ids))
    assert len(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))) == 3
    document = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| Birds | top-1, unseen | both refined | 6.4 | 49.0 | {gain} |" in document
    assert 'src="birds/pictures/p0.webp"' in document
    assert 'src="a/drawings/pictures/p0.webp"' in document
    for name in re.findall(r"!\[[^\n]*\]\(([^)]+)\)", document):
        assert (tmp_path / name).is_file(), name


def test_sections_of_one_key_are_refused(tmp_path, findings):
    twice = findings.model_copy(update={"sections": (findings.sections[0],) * 2})
    twice.write(tmp_path)
    with pytest.raises(DataError, match="two sections have the key 'main'"):
        read_runs([tmp_path])


def test_the_same_findings_are_the_same_page(folder, text):
    assert render_page(read_runs([folder]), "What refinement changes: Drawings") == text
