"""Draw the two charts of the README from the figures in docs: python -m benchmarks.picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_WIDTH, _ROW = 760, 26
_GREY, _PALE, _BLUE, _RED = "#9aa5b1", "#8fb8de", "#2f6db5", "#c0504d"

_BARS = (
    ("plain mini CLIP", "reco", "frozen", _GREY),
    ("refined, before pairs of new things", "reco, without the unseen entities", "both", _PALE),
    ("refined, after pairs of new things", "reco", "both", _BLUE),
)
_GROUPS = (("unseen", "new things, which this mini CLIP never saw"), ("seen", "things that it was trained on"))

_BOTH = "image queries + text candidates"
_CHANGES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "A text searches among images (R@1; plain CLIP: {recall1:.1f} %)",
        (
            ("memory has all classes", "text queries: all classes"),
            ("memory has half of them, this one too", "text queries: random halves (3 seeds): known"),
            ("memory has half of them, not this one", "text queries: random halves (3 seeds): unknown"),
            ("half of the captions are wrong", "text queries: all classes, 50% shuffled"),
        ),
    ),
    (
        "An image is named by its class, exact scores (top-1; plain CLIP: {top1:.1f} %)",
        (
            ("memory has all classes", f"{_BOTH}: all classes"),
            ("memory has half of them, this one too", f"{_BOTH}: random halves (3 seeds): known"),
            ("memory has half of them, not this one", f"{_BOTH}: random halves (3 seeds): unknown"),
            ("a dog's breed, memory without dogs", f"{_BOTH}: no dogs, among dogs"),
        ),
    ),
)


def mini_clip(results: dict[str, Any]) -> str:
    """Top-1 accuracy of the mini CLIP per group, before and after, as one SVG."""
    left, scale, y = 270, 6.1, 28
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
    """Gains and losses of a real CLIP with their intervals, as one SVG."""
    zero, scale, y = 410, 33.0, 28
    title = "OpenAI CLIP ViT-B/32 on ImageNet: points gained or lost by refinement, with 95 % intervals"
    parts = [_text(16, y, title, "h")]
    for heading, rows in _CHANGES:
        y += 32
        parts.append(_text(16, y, heading.format(**found["frozen"]), "t"))
        parts.append(_line(zero, y + 8, zero, y + 8 + _ROW * len(rows)))
        for name, protocol in rows:
            y += _ROW
            mean, low, high = found["gate"][protocol]["gate"]
            start, length = zero + min(0.0, mean) * scale, abs(mean) * scale
            parts.append(_text(zero - 105, y, name, anchor="end"))
            parts.append(_bar(start, y, length, _BLUE if mean >= 0 else _RED))
            parts.append(_line(zero + low * scale, y - 5, zero + high * scale, y - 5))
            parts.append(_text(zero + max(high, 0.0) * scale + 8, y, _points(mean), "v"))
    return _svg(parts, y + 20, "Points that refinement gains or loses with OpenAI CLIP ViT-B/32 on ImageNet")


def _points(gain: float) -> str:
    """With its sign, unless it is 0.0: ``+2.1``, ``−1.0``, ``0.0``."""
    return f"{gain:+.1f}".replace("-", "−") if abs(gain) >= 0.05 else "0.0"


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def _bar(x: float, y: float, length: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y - 14}" width="{length:.1f}" height="18" rx="2" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}"/>'


def _svg(parts: list[str], height: int, label: str) -> str:
    style = (
        "text{font:13px system-ui,sans-serif;fill:#333}.h{font-weight:700;font-size:15px}"
        ".t{font-weight:600;font-size:14px}.v{font-weight:600}line{stroke:#333;stroke-width:1.2}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


CHARTS = {"before-after.svg": ("quickstart.json", mini_clip), "realclip.svg": ("realclip.json", real_clip)}
"""Each chart, the figures that it shows, and what draws it."""

if __name__ == "__main__":
    docs = Path(__file__).resolve().parents[1] / "docs" / "measurements"
    for chart, (figures, draw) in CHARTS.items():
        (docs / chart).write_text(draw(json.loads((docs / figures).read_text())), encoding="utf-8")
