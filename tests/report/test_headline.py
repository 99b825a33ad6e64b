"""Which figures stand at the top."""

from __future__ import annotations

from reco_plugin.evaluate.findings import Column, Findings, Section, Table
from reco_plugin.measure.statistics import Interval
from reco_plugin.report.headline import choose_bars, choose_refined, group_figures, main_figures, summary_table

NAME = Column(key="name", title="")
TOP1 = Column(key="top1", title="top-1", kind="percent")
TOP5 = Column(key="top5", title="top-5", kind="percent")
GAIN = Column(key="gain", title="gain in top-1", kind="points")


def found(*tables: Table, key: str = "main") -> Findings:
    section = Section(key=key, title="", about="", tables=tables)
    return Findings(name="x", command="", setup={}, summary=(), sections=(section,))


def classes(title: str, frozen: float, both: float) -> Table:
    rows = ({"name": "frozen CLIP", "top1": frozen}, {"name": "both refined", "top1": both, "gain": both - frozen})
    return Table(title=title, columns=(NAME, TOP1, TOP5, GAIN), rows=rows)


def told(findings: Findings) -> list[tuple[str, str, float]]:
    return [(figure.group, figure.refined, figure.mean) for figure in main_figures(findings)]


def test_each_table_with_a_frozen_row_is_a_group():
    assert told(found(classes("seen", 0.5, 0.6), classes("unseen", 0.1, 0.4))) == [
        ("top-1 · seen", "frozen CLIP", 0.5),
        ("top-1 · seen", "both refined", 0.6),
        ("top-1 · unseen", "frozen CLIP", 0.1),
        ("top-1 · unseen", "both refined", 0.4),
    ]


def test_a_gain_belongs_to_the_column_that_its_title_names():
    harmonic = Table(
        title="together",
        columns=(
            NAME,
            Column(key="seen", title="top-1, seen", kind="percent"),
            Column(key="mean", title="harmonic mean", kind="percent"),
            Column(key="gain", title="gain in harmonic mean", kind="points"),
        ),
        rows=({"name": "frozen", "seen": 0.6, "mean": 0.1}, {"name": "both", "seen": 0.5, "mean": 0.3, "gain": 0.2}),
    )
    assert told(found(harmonic)) == [("harmonic mean", "frozen", 0.1), ("harmonic mean", "both", 0.3)]


def test_columns_with_gains_of_their_own_are_groups(findings):
    assert list(group_figures(main_figures(findings))) == ["top-1", "top-1, seen", "top-1, unseen"]
    seen = group_figures(main_figures(findings))["top-1, seen"]
    assert [figure.mean for figure in seen] == [0.584, 0.612, 0.561, 0.609]
    assert seen[1].gain == Interval(0.028, -0.004, 0.06)


def test_words_in_further_columns_tell_groups_apart():
    table = Table(
        title="t",
        columns=(Column(key="labels", title="labels"), NAME, TOP1),
        rows=(
            {"labels": "dogs", "name": "Frozen", "top1": 0.1},
            {"labels": "dogs", "name": "both", "top1": 0.2},
            {"labels": "cats", "name": "Frozen", "top1": 0.3},
        ),
    )
    assert [group for group, *_ in told(found(table))] == ["top-1 · dogs", "top-1 · dogs", "top-1 · cats"]


def test_nothing_stands_at_the_top_without_a_frozen_row_or_a_main_section():
    nameless = Table(title="", columns=(NAME, TOP1), rows=({"name": "both", "top1": 0.2},))
    assert main_figures(found(nameless)) == ()
    assert main_figures(found(classes("", 0.1, 0.2), key="harm")) == ()
    assert main_figures(found(Table(title="", columns=(NAME, TOP1), rows=()))) == ()


def test_bounds_are_of_the_share_or_else_of_its_gain():
    rows = (
        {"name": "frozen", "top1": Interval(0.3, 0.2, 0.4)},
        {"name": "image", "top1": 0.5, "gain": Interval(0.2, 0.125, 0.25)},
        {"name": "text", "top1": 0.5},
    )
    figures = main_figures(found(Table(title="", columns=(NAME, TOP1, GAIN), rows=rows)))
    assert [figure.bounds for figure in figures] == [(0.2, 0.4), (0.425, 0.55), None]


def test_both_sides_stand_for_refinement_and_else_the_last_variant(findings):
    members = group_figures(main_figures(findings))["top-1"]
    assert choose_refined(members).refined == "both refined"
    assert choose_refined(members[:3]).refined == "prompts refined"
    assert choose_refined(members[:1]) is None


def test_many_figures_are_pictured_as_frozen_and_refined_only(findings):
    few = main_figures(findings)
    assert choose_bars(few) == list(few)
    many = main_figures(found(*(classes(f"set {n}", 0.1, 0.2) for n in range(8)), *findings.sections[0].tables))
    assert [figure.refined for figure in choose_bars(many)][-2:] == ["frozen CLIP", "both refined"]
    assert {figure.refined for figure in choose_bars(many)} == {"frozen CLIP", "both refined"}


def test_the_summary_has_a_row_for_each_run_and_group_and_for_runs_without_figures(findings):
    bare = Findings(name="bare", command="", setup={}, summary=(), sections=())
    table = summary_table([findings, bare], ["a", "b"])
    assert [(row["run"], row.get("group"), row.get("frozen"), row.get("refined")) for row in table.rows] == [
        ("a", "top-1", 0.334, 0.471),
        ("a", "top-1, seen", 0.584, 0.609),
        ("a", "top-1, unseen", 0.064, 0.49),
        ("b", None, None, None),
    ]
    assert table.rows[2]["gain"] == Interval(0.426, 0.386, 0.467)
