"""Findings of every kind of cell, made by hand."""

from __future__ import annotations

import pytest

from reco_plugin.evaluate.findings import Column, Findings, Section, Table
from reco_plugin.measure.statistics import Interval

HOSTILE = '<script>alert("x")</script> | `a` & *b* $\\frac$ ]]>'
UNICODE = "Ünïcode · 猫 · 🦊 · עברית"

MAIN = Table(
    title="Top-1 by what was refined",
    columns=(
        Column(key="name", title="refined"),
        Column(key="top1", title="top-1", kind="percent"),
        Column(key="top5", title="top-5", kind="percent"),
        Column(key="gain", title="gain in top-1", kind="points"),
        Column(key="seen", title="top-1, seen", kind="percent"),
        Column(key="seen_gain", title="gain, seen", kind="points"),
        Column(key="unseen", title="top-1, unseen", kind="percent"),
        Column(key="unseen_gain", title="gain, unseen", kind="points"),
    ),
    rows=(
        {"name": "frozen CLIP", "top1": 0.334, "top5": 0.511, "seen": 0.584, "unseen": 0.064},
        {
            "name": "images refined",
            "top1": 0.391,
            "top5": 0.564,
            "gain": Interval(0.057, 0.041, 0.073),
            "seen": 0.612,
            "seen_gain": Interval(0.028, -0.004, 0.06),
            "unseen": 0.167,
            "unseen_gain": Interval(0.103, 0.08, 0.126),
        },
        {
            "name": "prompts refined",
            "top1": 0.423,
            "top5": 0.674,
            "gain": Interval(0.089, 0.07, 0.108),
            "seen": 0.561,
            "seen_gain": Interval(-0.023, -0.04, -0.006),
            "unseen": 0.44,
            "unseen_gain": Interval(0.376, 0.34, 0.41),
        },
        {
            "name": "both refined",
            "top1": 0.471,
            "top5": 0.701,
            "gain": Interval(0.137, 0.115, 0.16),
            "seen": 0.609,
            "seen_gain": Interval(0.025, 0.001, 0.049),
            "unseen": 0.49,
            "unseen_gain": Interval(0.426, 0.386, 0.467),
        },
    ),
    best=("top1", "top5", "gain", "seen", "unseen"),
)

KINDS = Table(
    title="",
    columns=(
        Column(key="what", title=HOSTILE),
        Column(key="count", title="pairs", kind="count"),
        Column(key="time", title="per query", kind="milliseconds"),
        Column(key="size", title="memory", kind="bytes"),
        Column(key="number", title="nDCG@10", kind="number"),
        Column(key="interval", title="gain, points", kind="points"),
    ),
    rows=(
        {"what": HOSTILE, "count": 8756, "time": 0.25, "size": 1536, "number": 0.4321, "interval": None},
        {"what": UNICODE, "count": 10, "time": 12.34, "size": 5 * 2**30, "interval": Interval(0.02, 0.009, 0.031)},
        {"what": "in words", "count": "many", "time": 65000.0, "size": 12, "interval": Interval(-0.01, -0.02, 0.0)},
    ),
    best=("number", "count"),
)
CLASSES = Table(
    title="Every class",
    columns=(Column(key="class", title="class"), Column(key="top1", title="top-1", kind="percent")),
    rows=tuple({"class": f"class {n}", "top1": n / 59} for n in range(60)),
    best=("top1",),
)
EMPTY = Table(title="Nothing was measured", columns=CLASSES.columns, rows=())


def study(name: str = "Drawings") -> Findings:
    return Findings(
        name=name,
        command="reco fit drawings.csv --seed 3 --out runs/drawings",
        setup={
            "queries": 2043,
            "classes": 1309,
            "model": "mini CLIP, 256 dimensions",
            "memory pairs": 8756,
            "seeds": [0, 1, 2],
            "versions": {"python": "3.11.7", "numpy": "2.4.6"},
            "gate": True,
            "hostile": HOSTILE,
        },
        summary=(
            "Refining both sides lifts top-1 on unseen classes from 6.4 % to 49.0 %, by +42.6 points [+38.6, +46.7].",
            "Seen classes gain +2.5 points; an irrelevant memory costs -0.3 ± 0.1 points.",
            HOSTILE,
        ),
        sections=(
            Section(
                key="main",
                title="What does refinement change?",
                about="Frozen and refined on the same queries; `both` refines images and prompts.",
                tables=(MAIN,),
            ),
            Section(key="ablations", title="How many neighbours?", about="k from 1 to 50."),
            Section(key="classes", title="Which classes?", about="", tables=(CLASSES, EMPTY)),
            Section(key="Cost & more", title=HOSTILE, about=HOSTILE, tables=(KINDS,)),
        ),
    )


@pytest.fixture(scope="session")
def hostile() -> str:
    """Words that break out of whatever does not escape them."""
    return HOSTILE


@pytest.fixture(scope="session")
def findings() -> Findings:
    """Every kind of cell."""
    return study()
