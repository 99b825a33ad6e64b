"""A figure that stands in two places comes from one generated file, and a generated page is what its figures make."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from benchmarks import alternatives, picture, realclip_gate
from benchmarks import page as pages
from reco_plugin.evaluate.findings import Table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "measurements"
FIGURES: dict[str, Any] = {
    "quickstart": json.loads((DOCS / "quickstart.json").read_text(encoding="utf-8")),
    "realclip": json.loads((DOCS / "realclip.json").read_text(encoding="utf-8")),
    "alternatives": json.loads((DOCS / "alternatives.json").read_text(encoding="utf-8")),
    "finetune": json.loads((DOCS / "finetune.json").read_text(encoding="utf-8")),
}

NEW = "quickstart[lines][reco][unseen]"
REAL = "realclip[gate]"
KNOWN, UNKNOWN = "random halves (3 seeds): known", "random halves (3 seeds): unknown"
QUOTED = {
    "README.md": (
        f"names {{{NEW}[frozen][top1]:.1f}} % of drawings of new things right, "
        f"and {{{NEW}[both][top1]:.1f}} % after their pairs were added",
        "we know exactly what it never saw: {quickstart[entities][unseen]} things",
        f"It names {{{NEW}[frozen][top1]:.1f}} % of these drawings right. After image-text pairs of the things are put "
        f"into the memory, {{{NEW}[both][top1]:.1f}} %",
        f"refined drawings find plain names in {{{NEW}[image][top1]:.1f}} %, refined names as prompts "
        f"{{{NEW}[text][top1]:.1f}} %.",
        f"text queries gain {{{REAL}[text queries: all classes][gate][0]:.1f}} points without any training.",
        f"they gain {{{REAL}[text queries: {KNOWN}][gate][0]:.1f}} for those and lose {{lost:.1f}} for the others",
    ),
    "docs/method.md": (
        "they name {quickstart[lines][search uni, fusion uni][unseen][both][top1]:.1f}, "
        "{quickstart[lines][search cross, fusion uni][unseen][both][top1]:.1f} and "
        "{quickstart[lines][search cross, fusion cross][unseen][both][top1]:.1f} % of the drawings of new things "
        f"right, this one {{{NEW}[both][top1]:.1f}} %, the mini CLIP alone {{{NEW}[frozen][top1]:.1f}} %.",
        "names {quickstart[lines][paper's plain layer][unseen][both][top1]:.1f} % of the drawings of new things right, "
        "and {quickstart[lines][paper's plain layer + rotations][unseen][both][top1]:.1f} % with random rotations in "
        f"training; ours {{{NEW}[both][top1]:.1f}} %.",
        "it gains {unseen_baseline} on new things.",
    ),
}
"""Sentences, with the place of each figure."""

NOT_MEASURED = {"README.md": {"2.3"}, "docs/method.md": set()}
"""Numbers with a decimal point that are no results."""


def test_every_quoted_figure_is_the_generated_one() -> None:
    for page, sentences in QUOTED.items():
        text = plain(page)
        for sentence in filled(sentences):
            assert sentence in text, f"{page} should say: {sentence}"


@pytest.mark.parametrize("page", NOT_MEASURED)
def test_no_figure_stands_there_without_a_source(page: str) -> None:
    text = plain(page)
    for sentence in filled(QUOTED[page]):
        text = text.replace(sentence, "")
    assert set(re.findall(r"(?<![\w.-])\d+\.\d(?!\w)", text)) <= NOT_MEASURED[page]


@pytest.mark.slow
def test_pages_and_charts_are_what_their_figures_make() -> None:
    from benchmarks import quickstart_model  # which imports torch

    page = page_of("quickstart.md")
    assert pages.filled(page, quickstart_model.blocks(FIGURES["quickstart"])) == page, "quickstart_model --page"
    page = page_of("realclip.md")
    assert pages.filled(page, realclip_gate.blocks(FIGURES["realclip"])) == page, "python -m benchmarks.realclip_gate"
    pages.filled(page_of("results.md"), dict.fromkeys(("overview", "sets"), "measured"))
    tables = {name: Table.model_validate(table) for name, table in FIGURES["alternatives"].items()}
    page = page_of("alternatives.md")
    made = {"alternatives": alternatives.block(tables, FIGURES["finetune"])}
    assert pages.filled(page, made) == page, "python -m benchmarks.alternatives --page"
    for chart, (figures, draw) in picture.CHARTS.items():
        made = draw(json.loads((DOCS / figures).read_text(encoding="utf-8")))
        assert made == page_of(chart), "python -m benchmarks.picture"


def test_charts_say_which_clip_it_is() -> None:
    assert "Mini CLIP (2.3 M parameters" in page_of("before-after.svg")
    assert "OpenAI CLIP ViT-B/32" in page_of("realclip.svg")
    for alt in re.findall(r"!\[([^\]]*CLIP[^\]]*)\]", plain("README.md")):
        assert re.search(r"(?i)mini CLIP|OpenAI", alt), f"which CLIP? {alt}"


def test_a_picture_has_room_for_its_words_in_a_wide_font_and_is_dark_where_the_reader_is() -> None:
    for path in sorted(DOCS.rglob("*.svg")):
        assert "prefers-color-scheme" in path.read_text(encoding="utf-8"), path
    for name in picture.CHARTS:
        root = ElementTree.fromstring(page_of(name))
        width, style = float(root.get("width", "")), root.findtext("{*}style") or ""
        sizes = {kind: float(size) for kind, size in re.findall(r"(text|\.[htv]){font-size:(\d+)px}", style)}
        for text in root.iter("{*}text"):
            kind = text.get("class", "")
            font = FontProperties(family="DejaVu Sans", weight="bold" if kind else "normal")
            size = sizes[f".{kind}" if kind else "text"]
            long = TextPath((0, 0), text.text, size=size, prop=font).get_extents().width
            x = float(text.get("x", ""))
            assert (x - long > 0) if text.get("text-anchor") == "end" else (x + long < width), (name, text.text)


def plain(page: str) -> str:
    """Without code, and with single spaces."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("**", "").replace("*", ""))


def page_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def filled(sentences: tuple[str, ...]) -> list[str]:
    gains = {
        f"{group}_{what}": FIGURES["quickstart"]["intervals"][group][name]
        for group in ("unseen", "seen")
        for what, name in (("baseline", "best training-free baseline"),)
    }
    unknown = FIGURES["realclip"]["gate"][f"text queries: {UNKNOWN}"]
    return [
        sentence.format(
            **FIGURES,
            **{name: "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*gain) for name, gain in gains.items()},
            lost=-unknown["gate"][0],
        )
        for sentence in sentences
    ]
