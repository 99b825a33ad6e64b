"""The colours of the pages, and of pictures that stand beside them: light, and dark where the reader's system is."""

from __future__ import annotations

from typing import NamedTuple


class Shade(NamedTuple):
    """One colour in both schemes."""

    light: str
    dark: str


COLOURS: dict[str, Shade] = {
    "ink": Shade("#1d232b", "#e7ebf0"),
    "soft": Shade("#5b6672", "#9eaab8"),
    "line": Shade("#dfe4ea", "#303944"),
    "paper": Shade("#ffffff", "#1a2028"),
    "ground": Shade("#f5f6f8", "#11151a"),
    "tint": Shade("#eef3fa", "#212c3a"),
    "good": Shade("#10795a", "#4fc79e"),
    "bad": Shade("#b5362b", "#f0857b"),
    "unknown": Shade("#7d8794", "#8794a3"),
    "frozen": Shade("#9aa5b1", "#77838f"),
    "pale": Shade("#8fb8de", "#3f6c9c"),
    "series-1": Shade("#2f6db5", "#6cabf2"),
    "series-2": Shade("#cf6a17", "#f2a25c"),
    "series-3": Shade("#2a8c74", "#5ccfb3"),
    "series-4": Shade("#a3468f", "#de93cc"),
    "series-5": Shade("#7a6a4f", "#c9b68f"),
    "series-6": Shade("#1f8fa8", "#62cbe0"),
    "series-7": Shade("#c2453a", "#ee8a80"),
    "series-8": Shade("#4a5568", "#aab7c9"),
}


def stylesheet() -> str:
    """The CSS variables: light, and dark where the reader's system is dark, except in print."""
    day, night = (
        "".join(f"--{name}:{shade[scheme]};" for name, shade in COLOURS.items()) for scheme in range(len(Shade._fields))
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{night}}}}}"
    return f":root{{color-scheme:light;{day}}}\n{dark}\n"
