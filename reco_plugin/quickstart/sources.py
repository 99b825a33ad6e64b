"""Where the drawings come from: npm packages at pinned versions, with licence and credit.

They come with this package as pictures, in ``drawings/``; ``python -m benchmarks.drawings`` makes those.
"""

from __future__ import annotations

from dataclasses import dataclass

_ICONIFY = ("icons.json", "chars.json", "info.json")
"""Files to read from an Iconify package."""


@dataclass(frozen=True)
class DrawingPackage:
    """One npm package of drawings, with its licence and credit."""

    name: str
    package: str
    version: str
    license: str
    credit: str
    family: str  # of art: drawings of one family are near-copies of each other and are hidden together
    parts: tuple[str, ...] = _ICONIFY  # prefixes of the paths to unpack


def iconify(name: str, version: str, license_: str, credit: str, family: str | None = None) -> DrawingPackage:
    """An icon set that Iconify packages."""
    return DrawingPackage(name, f"@iconify-json/{name}", version, license_, credit, family or name)


EMOJI_SOURCES = (
    iconify("noto", "1.2.9", "Apache-2.0", "Google, Noto Emoji"),
    iconify("noto-v1", "1.2.5", "Apache-2.0", "Google, Noto Emoji (v1)"),
    iconify("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji, HfG Schwäbisch Gmünd"),
    iconify("emojione", "1.2.3", "CC-BY-4.0", "EmojiOne (JoyPixels), v2"),
    iconify("fluent-emoji", "1.2.7", "MIT", "Microsoft, Fluent Emoji", "fluent"),
    iconify("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft, Fluent Emoji Flat", "fluent"),
    iconify("twemoji", "1.2.5", "CC-BY-4.0", "Twitter, Twemoji"),
    iconify("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "EmojiOne, v1"),
)
"""Drawing styles of the same entities."""

NAMES_SOURCE = DrawingPackage(
    "emojibase-data", "emojibase-data", "17.0.0", "MIT", "Miles Johnson, Emojibase", "names", ("en/",)
)
"""Names, tags, shortcodes and groups of the entities; the package has 25 other languages."""

QUERY_STYLES = ("twemoji", "emojione-v1")
"""In no memory and in no training at all: test queries are drawn in these styles only."""

HELD_STYLE = "noto-v1"
"""In the memory, but hidden from the mini CLIP: its drawings of seen entities are training queries of the fusion."""

MEMORY_STYLES = tuple(s.name for s in EMOJI_SOURCES if s.name not in QUERY_STYLES)
