"""Findings of every kind of cell, chart and case, made by hand, in a run folder with pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from reco_plugin.evaluate.findings import (
    Case,
    Chart,
    Column,
    Findings,
    Line,
    RankedCandidate,
    RetrievedPair,
    Section,
    Table,
)
from reco_plugin.measure.statistics import Interval

HOSTILE = '<script>alert("x")</script> | `a` & *b* $\\frac$ ]]>'
UNICODE = "Ünïcode · 猫 · 🦊 · עברית"
COLOURS = ("#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#f39c12")

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

K = Chart(
    title="More neighbours help until they are strangers",
    x_title="k, neighbours per query",
    y_title="top-1",
    x=(1, 2, 5, 10, 20, 50),
    x_log=True,
    baseline=0.334,
    lines=(
        Line(
            name="both sides",
            y=(0.41, 0.44, 0.471, 0.474, 0.462, 0.43),
            low=(0.39, 0.42, 0.45, 0.452, 0.44, 0.405),
            high=(0.43, 0.46, 0.492, 0.495, 0.484, 0.455),
        ),
        Line(name="images", y=(0.36, 0.375, 0.391, 0.393, None, 0.37)),
        Line(name="prompts", y=(0.39, 0.41, 0.423, 0.42, 0.415, 0.40)),
    ),
)
NAMED = Chart(
    title="Harm stays within half a point",
    x_title="memory",
    y_title="gain in top-1, points",
    x=("empty", "irrelevant: another domain", "classes outside the memory", "50 % wrong captions", HOSTILE),
    y_kind="points",
    baseline=0.0,
    lines=(
        Line(
            name="gate on",
            y=(0.0, -0.003, -0.002, 0.21, None),
            low=(0.0, -0.006, -0.007, 0.18, None),
            high=(0.0, 0.001, 0.003, 0.24, None),
        ),
        Line(name="gate off", y=(0.0, -0.2, -0.31, 0.05, 0.1), low=(0.0, -0.23, -0.35, 0.02, 0.07)),
    ),
)
SIXTY = Chart(
    title="Top-1 of each class",
    x_title="class",
    y_title="top-1",
    x=tuple(f"class {n} {'with a long name ' * (n % 3)}" for n in range(60)),
    lines=(Line(name="both", y=tuple(n / 59 for n in range(60))),),
)
NUMBERS = Chart(
    title=HOSTILE,
    x_title="share of wrong captions",
    y_title="milliseconds $x",
    x=(0.0, 0.1, 0.5, 0.9),
    y_kind="milliseconds",
    lines=tuple(Line(name=f"_{HOSTILE} {n}", y=(n + 1.0, n + 2.0, n + 3.0, n + 2.5)) for n in range(9)),
)


def ranked(true: int | None, *names: str) -> tuple[RankedCandidate, ...]:
    return tuple(RankedCandidate(name=name, similarity=0.31 - 0.01 * n, true=n == true) for n, name in enumerate(names))


def case(number: int, *, rose: bool = True, name: str = "red fox") -> Case:
    found = tuple(
        RetrievedPair(
            caption=f"a drawing of a {word}",
            picture=picture,
            similarity=0.91 - 0.07 * n,
            reliability=(0.9, 0.62, 0.4, 0.08, 0.0)[n],
            relevant=relevant,
        )
        for n, (word, picture, relevant) in enumerate(
            (
                ("red fox in snow", "p0.webp", True),
                ("fox", "p1.webp", True),
                ("shiba inu that sits beside a very long fence of wood", "p2.webp", False),
                ("wolf", "gone.webp", None),
                (HOSTILE, None, False),
            )
        )
    )
    before = ranked(None, "shiba inu", "wolf", "orange", "corgi", "pumpkin")
    after = ranked(0, name, "shiba inu", "wolf", "corgi", "coyote")
    return Case(
        name=name,
        picture=f"p{number % 5}.webp",
        rank_before=36 + number if rose else 0,
        rank_after=0 if rose else 1204,
        before=before if rose else after,
        after=after if rose else before,
        neighbours=found,
        prompt_neighbours=found[:3] if number % 2 else (),
    )


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
            Section(key="ablations", title="How many neighbours?", about="k from 1 to 50.", charts=(K, NAMED)),
            Section(key="classes", title="Which classes?", about="", tables=(CLASSES, EMPTY), charts=(SIXTY,)),
            Section(key="Cost & more", title=HOSTILE, about=HOSTILE, tables=(KINDS,), charts=(NUMBERS,)),
        ),
        gains=tuple(case(n) for n in range(8)),
        harms=(case(0, rose=False, name="corgi"), case(1, rose=False, name=HOSTILE), case(2, rose=False, name=UNICODE)),
    )


def write_run(folder: Path, findings: Findings) -> Path:
    """A run folder with five pictures."""
    (folder / "pictures").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        image = Image.new("RGB", (96, 96), "#f4f1ea")
        ImageDraw.Draw(image).ellipse((14, 14 + 4 * number, 82, 82), fill=colour)
        image.save(folder / "pictures" / f"p{number}.webp")
    findings.write(folder)
    return folder


@pytest.fixture(scope="session")
def hostile() -> str:
    """Words that break out of whatever does not escape them."""
    return HOSTILE


@pytest.fixture(scope="session")
def findings() -> Findings:
    """Every kind of cell, chart and case."""
    return study()


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path, Findings], Path]:
    """Writes findings and five pictures into a folder, and returns it."""
    return write_run


@pytest.fixture
def run_folder(tmp_path: Path, findings: Findings) -> Path:
    """The findings in a run folder."""
    return write_run(tmp_path / "runs" / "drawings", findings)
