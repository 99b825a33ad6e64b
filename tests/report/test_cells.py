"""How figures are written."""

from __future__ import annotations

import pytest

from reco_plugin.evaluate.findings import Column, Table
from reco_plugin.measure.statistics import Interval
from reco_plugin.report.cells import best_cells, direction, format_cell, header


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (None, "percent", "–"),
        ("as it is", "percent", "as it is"),
        (0.62349, "percent", "62.3"),
        (1, "percent", "100.0"),
        (0.02, "points", "+2.0"),
        (-0.0004, "points", "0.0"),
        (0.0, "points", "0.0"),
        (-0.0314, "points", "−3.1"),
        (Interval(0.02, 0.009, 0.031), "points", "+2.0 [+0.9, +3.1]"),
        (Interval(-0.01, -0.02, 0.0), "points", "−1.0 [−2.0, 0.0]"),
        (Interval(0.5, 0.4, 0.6), "percent", "50.0 [40.0, 60.0]"),
        (8756, "count", "8,756"),
        (7, "text", "7"),
        (0.05, "number", "0.05"),
        (0.43215, "number", "0.432"),
        (12345.6, "number", "12,346"),
        (5, "number", "5"),
        (0, "milliseconds", "0 ms"),
        (0.25, "milliseconds", "250 µs"),
        (12.34, "milliseconds", "12.3 ms"),
        (1500, "milliseconds", "1.5 s"),
        (90_000, "milliseconds", "1.5 min"),
        (512, "bytes", "512 B"),
        (1536, "bytes", "1.5 KiB"),
        (500 * 2**20, "bytes", "500 MiB"),
        (3 * 2**40, "bytes", "3.0 TiB"),
    ],
)
def test_a_cell_is_written_as_its_kind_asks(cell, kind, text):
    assert format_cell(cell, kind) == text


def test_a_header_names_the_unit_once():
    assert header(Column(key="a", title="top-1", kind="percent")) == "top-1, %"
    assert header(Column(key="a", title="top-1 in %", kind="percent")) == "top-1 in %"
    assert header(Column(key="a", title="", kind="points")) == "points"
    assert header(Column(key="a", title="latency", kind="milliseconds")) == "latency"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Interval(0.02, 0.009, 0.031), "up"),
        (Interval(-0.02, -0.03, -0.01), "down"),
        (Interval(0.02, -0.001, 0.04), "unsure"),
        (Interval(0.02, 0.0, 0.04), "unsure"),
        (0.01, "up"),
        (-0.01, "down"),
        (0.0, "unsure"),
        (None, None),
        ("none", None),
    ],
)
def test_a_difference_counts_only_where_its_interval_leaves_out_0(cell, expected):
    assert direction(cell, "points") == expected
    assert direction(cell, "percent") is None


def test_the_best_cells_are_the_highest_and_what_is_written_like_them():
    table = Table(
        title="",
        columns=(Column(key="a", title="a", kind="percent"), Column(key="b", title="b", kind="points")),
        rows=(
            {"a": 0.5001, "b": Interval(0.1, -0.5, 0.9)},
            {"a": 0.5004, "b": None},
            {"a": 0.4, "b": Interval(0.2, 0.1, 0.3)},
            {"a": "n/a"},
        ),
        best=("a", "b", "not there"),
    )
    assert best_cells(table) == {(0, "a"), (1, "a"), (2, "b")}
