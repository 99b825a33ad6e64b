"""``python -m benchmarks.picture``: draw the charts of the README from the stored figures."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any, NamedTuple

from .page import FIGURES

_ROW = 26


class Shade(NamedTuple):
    """One colour in both schemes."""

    light: str
    dark: str


_INK = Shade("#1d232b", "#e7ebf0")
_COLOURS = {
    "paper": Shade("#ffffff", "#1a2028"),
    "frozen": Shade("#9aa5b1", "#77838f"),
    "before": Shade("#8fb8de", "#3f6c9c"),
    "gain": Shade("#2f6db5", "#6cabf2"),
    "loss": Shade("#b5362b", "#f0857b"),
}
_SIZES = {"": 13, "h": 15, "t": 14, "v": 13}

_BARS = (
    ("plain mini CLIP", "reco", "frozen", "frozen"),
    ("refined, before pairs of new things", "reco, without the unseen entities", "both", "before"),
    ("refined, after pairs of new things", "reco", "both", "gain"),
)
_GROUPS = (("unseen", "new things, which this mini CLIP never saw"), ("seen", "things that it was trained on"))

_BOTH = "both sides"
_CHANGES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "A text searches among images (R@1; plain CLIP: {recall1:.1f} %)",
        (
            ("memory has all classes", "text queries: all classes"),
            ("memory has half of them, this one too", "text queries: random halves: known"),
            ("memory has half of them, not this one", "text queries: random halves: unknown"),
            ("half of the captions are wrong", "text queries: all classes, 50% shuffled"),
        ),
    ),
    (
        "An image is named by its class, exact scores (top-1; plain CLIP: {top1:.1f} %)",
        (
            ("memory has all classes", f"{_BOTH}: all classes"),
            ("memory has half of them, this one too", f"{_BOTH}: random halves: known"),
            ("memory has half of them, not this one", f"{_BOTH}: random halves: unknown"),
            ("a dog's breed, memory without dogs", f"{_BOTH}: no dogs, among dogs"),
        ),
    ),
)


def mini_clip(results: dict[str, Any]) -> str:
    """Draw the top-1 accuracy of the mini CLIP for each group, plain and refined."""
    left, scale, y = 28 + max(_width(name) for name, *_ in _BARS), 5.6, 28
    parts = [_text(16, y, "Mini CLIP (2.3 M parameters, trained here on drawings): drawings named right, in %", "h")]
    for group, title in _GROUPS:
        y += 32
        parts.append(_text(16, y, f"{title} ({results['counts'][group]:,} drawings)", "t"))
        for name, line, side, colour in _BARS:
            y += _ROW
            value = results["lines"][line][group][side]["top1"]
            parts.append(_text(left - 10, y, name, anchor="end"))
            parts.append(_bar(left, y, value * scale, colour))
            parts.append(_text(left + value * scale + 8, y, f"{value:.1f} %", "v"))
    return _svg(parts, y + 20, "Share of drawings that a mini CLIP names right, before and after refinement")


def real_clip(found: dict[str, Any]) -> str:
    """Draw gains and losses of a real CLIP with their intervals."""
    labels = max(_width(name) for _, rows in _CHANGES for name, _ in rows)
    lowest = min(found["gains"][protocol][1] for _, rows in _CHANGES for _, protocol in rows)
    scale, y = 30.0, 28
    zero = 28 + labels + max(0.0, -lowest) * scale
    parts = [_text(16, y, "OpenAI CLIP ViT-B/32 on ImageNet: points gained or lost by refinement", "h")]
    y += 20
    parts.append(_text(16, y, "The thin line is the 95 % interval."))
    for heading, rows in _CHANGES:
        y += 32
        parts.append(_text(16, y, heading.format(**found["frozen"]), "t"))
        parts.append(_line(zero, y + 8, zero, y + 8 + _ROW * len(rows)))
        for name, protocol in rows:
            y += _ROW
            mean, low, high = found["gains"][protocol]
            start, length = zero + min(0.0, mean) * scale, abs(mean) * scale
            parts.append(_text(16 + labels, y, name, anchor="end"))
            parts.append(_bar(start, y, length, "gain" if mean >= 0 else "loss"))
            parts.append(_line(zero + low * scale, y - 5, zero + high * scale, y - 5))
            parts.append(_text(zero + max(high, 0.0) * scale + 8, y, _points(mean), "v"))
    return _svg(parts, y + 20, "Points that refinement gains or loses with OpenAI CLIP ViT-B/32 on ImageNet")


def _points(gain: float) -> str:
    """Format a gain with its sign: ``+2.1``, ``−1.0``, ``0.0``."""
    return f"{gain:+.1f}".replace("-", "−") if abs(gain) >= 0.05 else "0.0"


class _Part(NamedTuple):
    """An SVG element and its right edge."""

    svg: str
    right: float


def _width(words: str, kind: str = "") -> float:
    """Width in pixels in DejaVu Sans, the widest of the usual fonts."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold" if kind else "normal")
    return float(TextPath((0, 0), words, size=_SIZES[kind], prop=font).get_extents().width)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> _Part:
    right = x + (_width(words, kind) if anchor == "start" else 0.0)
    return _Part(f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>', right)


def _bar(x: float, y: float, length: float, kind: str) -> _Part:
    box = f'x="{x:.1f}" y="{y - 14}" width="{length:.1f}" height="18" rx="2"'
    return _Part(f'<rect {box} fill="{_COLOURS[kind].light}" class="{kind}"/>', x + length)


def _line(x1: float, y1: float, x2: float, y2: float) -> _Part:
    return _Part(f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" stroke="{_INK.light}"/>', max(x1, x2))


def _svg(parts: list[_Part], height: int, label: str) -> str:
    """Format an SVG that fits its text and follows the reader's colour scheme."""
    width = math.ceil(max(part.right for part in parts)) + 16
    fonts = "".join(f"{f'.{kind}' if kind else 'text'}{{font-size:{size}px}}" for kind, size in _SIZES.items())
    dark = "".join(f".{kind}{{fill:{shade.dark}}}" for kind, shade in _COLOURS.items())
    style = (
        f"text{{font-family:system-ui,sans-serif;fill:{_INK.light}}}{fonts}.h,.t,.v{{font-weight:600}}"
        f"@media (prefers-color-scheme:dark){{text{{fill:{_INK.dark}}}line{{stroke:{_INK.dark}}}{dark}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{label}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="{_COLOURS["paper"].light}" class="paper"/>'
        f"{''.join(part.svg for part in parts)}</svg>\n"
    )


CHARTS = {
    "before-after.svg": ("quickstart.json", mini_clip),
    "realclip.svg": ("realclip.json", real_clip),
}
"""Chart -> file of its figures, and the function that draws it."""

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for chart, (figures, draw) in CHARTS.items():
        (FIGURES / chart).write_text(draw(json.loads((FIGURES / figures).read_text())), encoding="utf-8")
