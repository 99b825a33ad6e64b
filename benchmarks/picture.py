"""Draw docs/before-after.svg from docs/quickstart.json: python -m benchmarks.picture."""

from __future__ import annotations

import json
from pathlib import Path

_WIDTH, _ROW, _LEFT, _SCALE = 760, 26, 250, 6.4
_BARS = (
    ("frozen CLIP", "reco", "frozen", "#9aa5b1"),
    ("refined, entities not in the memory", "reco, without the unseen entities", "both", "#8fb8de"),
    ("refined, after their pairs were added", "reco", "both", "#2f6db5"),
)
_GROUPS = (("unseen", "entities that CLIP never saw"), ("seen", "entities that CLIP knows"))


def draw(results: dict) -> str:  # type: ignore[type-arg]
    """Top-1 accuracy per group, before and after, as one SVG."""
    parts, y = [], 34
    for group, title in _GROUPS:
        parts.append(f'<text x="16" y="{y}" class="t">{title} ({results["counts"][group]} queries)</text>')
        for name, line, side, colour in _BARS:
            y += _ROW
            value = results["lines"][line][group][side]["top1"]
            length = value * _SCALE
            parts.append(f'<text x="{_LEFT - 10}" y="{y}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{_LEFT}" y="{y - 14}" width="{length:.1f}" height="18" rx="2" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + length + 8:.1f}" y="{y}" class="v">{value:.1f} %</text>')
        y += 44
    style = "text{font:13px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:14px}.v{font-weight:600}"
    label = "Zero-shot top-1 accuracy before and after refinement"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y - 20}" '
        f'viewBox="0 0 {_WIDTH} {y - 20}" role="img" aria-label="{label}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    docs = Path(__file__).resolve().parents[1] / "docs"
    (docs / "before-after.svg").write_text(draw(json.loads((docs / "quickstart.json").read_text())))
