"""Sections and cases as Markdown, for the report and for documents composed elsewhere."""

from __future__ import annotations

import re

from reco_plugin.evaluate.findings import Chart, Column, Line, Section, Table
from reco_plugin.measure.statistics import Interval
from reco_plugin.report import markdown_cases, markdown_section, write_charts

SECTION = Section(
    key="Harm & more",
    title="Does a *wrong* memory harm?",
    about="`frozen` is\nthe <baseline>.",
    tables=(
        Table(
            title="Memories",
            columns=(
                Column(key="memory", title="memory"),
                Column(key="top1", title="top-1", kind="percent"),
                Column(key="gain", title="gain", kind="points"),
            ),
            rows=(
                {"memory": "a|b [x](y)", "top1": 0.5},
                {"memory": "irrelevant", "top1": 0.62, "gain": Interval(0.12, -0.01, 0.2)},
            ),
            best=("top1",),
        ),
    ),
    charts=(Chart(title="Curve", x_title="k", y_title="top-1", x=(1.0, 2.0), lines=(Line(name="a", y=(0.1, 0.2)),)),),
)


def test_a_section_is_written_as_a_person_would():
    assert markdown_section(SECTION, prefix="results/birds", level=3).splitlines() == [
        "### Does a \\*wrong\\* memory harm?",
        "",
        "`frozen` is the &lt;baseline&gt;.",
        "",
        "**Memories**",
        "",
        "| memory | top-1, % | gain, points |",
        "| --- | ---: | ---: |",
        "| a\\|b \\[x\\](y) | 50.0 | – |",
        "| irrelevant | **62.0** | +12.0 [−1.0, +20.0] |",
        "",
        "![Curve](results/birds-harm-more-1.svg)",
        "",
        "*Curve*",
    ]


def test_charts_are_written_where_the_section_links_them(tmp_path):
    (tmp_path / "results").mkdir()
    written = write_charts(SECTION, tmp_path / "results", "birds")
    linked = re.findall(r"\]\((results/[^)]+)\)", markdown_section(SECTION, prefix="results/birds"))
    assert [tmp_path / name for name in linked] == written
    assert all(path.read_text(encoding="utf-8").startswith("<svg") for path in written)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["birds-harm-more-1.svg"]


def test_a_section_can_do_without_charts():
    assert "svg" not in markdown_section(SECTION, prefix=None)


def test_cases_are_a_table_with_pictures_where_there_are_some(findings, hostile):
    plain = markdown_cases(findings.harms)
    assert "<img" not in plain
    assert "| corgi | 1 → 1,205 | **1. corgi 0.31** ✓<br>2. shiba inu 0.30<br>" in plain
    assert "✓ a drawing of a red fox in snow (0.91, caption fits by 0.90)" in plain
    assert "✗ a drawing of a shiba inu" in plain
    assert "? a drawing of a wolf (0.70, caption fits by 0.08)" in plain
    assert hostile not in plain
    assert {line.count(" | ") for line in plain.splitlines()} == {4}
    linked = markdown_cases(findings.harms, lambda name: name and f"run/pictures/{name}")
    assert '<img src="run/pictures/p0.webp" width="72" alt="corgi"><br>corgi' in linked
    assert {line.count(" | ") for line in linked.splitlines()} == {4}
    assert "<script" not in linked
