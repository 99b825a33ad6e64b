"""Charts and the headline as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

import reco_plugin.report.charts
from reco_plugin.errors import DataError, MissingExtra
from reco_plugin.evaluate.findings import Chart, Line
from reco_plugin.measure.statistics import Interval
from reco_plugin.report.charts import COLOURS, chart_table, draw, inline, standalone, stylesheet
from reco_plugin.report.headline import Figure, draw_headline, main_figures
from reco_plugin.report.runs import format_cell

SVG = "{http://www.w3.org/2000/svg}"
ONE = Line(name="one", y=(0.1, 0.2, 0.3))


def chart(*lines: Line, x: tuple[float, ...] | tuple[str, ...] = (1.0, 2.0, 3.0), **more: object) -> Chart:
    return Chart(title="t", x_title="the x", y_title="the y", x=x, lines=lines, **more)


def words(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def charts(findings) -> list[Chart]:
    return [chart for section in findings.sections for chart in section.charts]


@pytest.fixture(scope="module")
def drawn(charts) -> list[str]:
    return [draw(chart, f"chart-{number}") for number, chart in enumerate(charts)]


def test_the_same_chart_is_the_same_file(charts, drawn):
    reco_plugin.report.charts._draw.cache_clear()
    assert draw(charts[0], "chart-0") == drawn[0]


def test_charts_of_one_page_share_no_id_and_names_that_look_like_ids_stay():
    names = ('href="#1', "url(#2)", "cat")
    one, other = (draw(chart(ONE, x=names), salt) for salt in ("one", "other"))
    assert set(names) <= set(words(one))
    assert words(one) == words(other)
    ids = [set(re.findall(r'<[^>]* id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_file_is_well_formed_and_stands_alone(drawn):
    for svg in drawn:
        assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
        assert "var(--" not in svg
        assert "metadata" not in svg
        assert re.findall(r"(?:href|src)=\"(?!#)", svg) == []


def test_a_file_of_its_own_has_its_title_and_is_dark_where_the_reader_is(drawn):
    title = "Gain & <harm> of a memory that grows, with a title that is longer than the chart is wide"
    for svg in drawn:
        alone = standalone(svg, title)
        root = ElementTree.fromstring(alone)
        assert root.get("aria-label") == title
        size = float(ElementTree.fromstring(svg).get("height", "")), float(root.get("height", ""))
        box = [float(number) for number in root.get("viewBox", "").split()]
        assert box[1] == size[0] - size[1] < 0  # above the drawing
        above = [text for text in root.iter(f"{SVG}text") if float(text.get("y", "0")) < 0]
        assert " ".join("".join(text.itertext()) for text in above) == title
        rules = alone.partition("@media (prefers-color-scheme: dark)")[2]
        used = {(what, colour) for what, colour in re.findall(r"(fill|stroke): (#[0-9a-f]{6})", svg)}
        known = {shade.light: shade.dark for shade in COLOURS.values()}
        assert {colour for _, colour in used} <= set(known)
        for what, colour in used:
            assert f'[style*="{what}: {colour}"]{{{what}:{known[colour]} !important}}' in rules


def test_text_stays_text_with_names_units_and_the_baseline(drawn):
    assert {"top-1", "k, neighbours per query", "both sides", "images", "prompts", "baseline 33.4 %"} <= set(
        words(drawn[0])
    )
    assert {"1", "2", "5", "10", "20", "50"} <= set(words(drawn[0]))
    assert any(word.endswith(" %") for word in words(drawn[0]))
    assert {"gate on", "gate off", "baseline 0.0 points", "empty"} <= set(words(drawn[1]))


def test_hostile_names_are_shown_and_change_nothing(drawn, hostile):
    assert [word for word in words(drawn[3]) if word.startswith("_<script>")] == [f"_{hostile} {n}" for n in range(9)]
    assert "<script" not in drawn[3]
    assert "<script" not in inline(drawn[3], hostile)


def test_sixty_names_have_a_row_each(drawn):
    found = [word for word in words(drawn[2]) if word.startswith("class ")]
    assert {word.split()[1] for word in found} == {str(number) for number in range(60)}
    height = float(ElementTree.fromstring(drawn[2]).get("height", ""))
    assert height > 60 * 20


def test_in_a_page_colours_are_variables_that_the_page_defines(drawn):
    for svg in drawn:
        placed = inline(svg, 'a "label" & <more>')
        assert re.findall(r"#[0-9a-f]{6}\b", placed) == []
        assert set(re.findall(r"var\(--([\w-]+)\)", placed)) <= set(COLOURS)
        assert ElementTree.fromstring(placed).get("aria-label") == 'a "label" & <more>'
    for name in COLOURS:
        assert stylesheet().count(f"--{name}:#") == 2


def test_no_two_colours_are_equal():
    assert len({shade.light for shade in COLOURS.values()}) == len(COLOURS)


def test_charts_of_one_page_share_no_ids(charts, drawn):
    again = [*drawn, draw(charts[0], "another")]
    ids = [found for svg in again for found in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "odd",
    [
        chart(),
        chart(x=()),
        chart(Line(name="none", y=()), x=()),
        chart(Line(name="gaps", y=(None, None, None))),
        chart(Line(name="one", y=(0.5,)), x=(3.0,)),
        chart(ONE, x=(0.0, 10.0, 1000.0), x_log=True),
        chart(ONE, x=(1.0, 1.01, 500.0)),
        chart(ONE, x=(5.0, 5.0, 5.0), baseline=0.2),
        chart(ONE, x=("a", "b", "c" * 300)),
        chart(Line(name="", y=(1.0, 2.0, 3.0), low=(None, 1.0, None), high=(2.0, None, 4.0)), y_kind="bytes"),
        chart(*[ONE] * 40),
    ],
    ids=lambda value: f"{len(value.lines)} lines, x {str(value.x)[:20]}",
)
def test_odd_charts_are_drawn_too(odd):
    assert {"the x", "the y"} <= set(words(draw(odd, "odd")))


def test_x_that_begins_at_0_has_its_own_tick_though_it_grows_by_factors():
    assert {"0", "10", "1,000"} <= set(words(draw(chart(ONE, x=(0.0, 10.0, 1000.0), x_log=True), "zero")))


@pytest.mark.parametrize("wrong", [Line(name="short", y=(0.1,)), Line(name="short", y=ONE.y, low=(0.0,), high=ONE.y)])
def test_a_line_of_another_length_is_an_error(wrong):
    with pytest.raises(DataError, match="line 'short' has 1 values for 3 x"):
        draw(chart(wrong), "wrong")


def test_the_values_of_a_chart_are_a_table_with_bounds(charts):
    table = chart_table(charts[1])
    cells = [[format_cell(row.get(column.key), column.kind) for column in table.columns] for row in table.rows]
    assert [column.title for column in table.columns] == ["memory", "gate on", "gate off"]
    assert cells[3] == ["50 % wrong captions", "+21.0 [+18.0, +24.0]", "+5.0"]
    assert cells[4][1] == "–"


def test_the_headline_shows_shares_and_gains_of_every_group(findings):
    shown = words(draw_headline(main_figures(findings), "head"))
    assert {"top-1", "top-1, seen", "top-1, unseen"} <= set(shown)
    assert {"6.4 %", "49.0 %", "+42.6", "−2.3", "frozen CLIP", "both refined"} <= set(shown)


@pytest.mark.parametrize("drawing", [lambda: draw(chart(ONE), "none"), lambda: draw_headline([], "none")])
def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, drawing):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'reco-plugin\[report\]'"):
        drawing()


def test_the_names_beside_the_bars_of_the_headline_are_whole():
    name = "reco, k=5, gate on: images and names refined, one more than a line takes"
    figures = [
        Figure("", "frozen CLIP", 0.1, None, frozen=True),
        Figure("", name, 0.3, Interval(0.2, 0.1, 0.3), frozen=False),
    ]
    svg = draw_headline(figures, "salt")
    assert "…" not in svg
    assert name in " ".join(words(svg))
    short = draw_headline([figures[0], figures[0]], "salt")
    assert float(ElementTree.fromstring(svg).get("height", "")) > float(ElementTree.fromstring(short).get("height", ""))
