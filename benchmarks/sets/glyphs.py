"""Characters of the Latin, Greek and Cyrillic scripts, punctuation and symbols, in eight free fonts.

A kind of its own: black shapes whose differences are small (accents, case, a serif), captioned with their Unicode
names. The query fonts are in no memory. Characters that look the same across scripts (Latin, Greek and Cyrillic A)
are one entity, the one that comes first in Unicode.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache as once
from html.entities import codepoint2name
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from benchmarks.drawings.packages import fetch
from benchmarks.drawings.render import kept
from reco_plugin.quickstart.dataset import SIDE, DrawingPackage

from .assemble import Picture, assemble
from .package_set import Entity, PackageSet, split_of

_SUBSETS = ("latin", "latin-ext", "greek", "cyrillic", "cyrillic-ext")


def _fontsource(name: str, version: str, license_: str, credit: str) -> DrawingPackage:
    files = tuple(f"files/{name}-{subset}-400-normal.woff" for subset in _SUBSETS)
    return DrawingPackage(f"font-{name}", f"@fontsource/{name}", version, license_, credit, name, files)


_DEJAVU = {"dejavu-sans": "ttf/DejaVuSans.ttf", "dejavu-serif": "ttf/DejaVuSerif.ttf"}
_DEJAVU_PACKAGE = (
    "dejavu",
    "dejavu-fonts-ttf",
    "2.37.3",
    "Bitstream-Vera",
    "DejaVu team and Bitstream, DejaVu",
    "dejavu",
)
SOURCES = (
    DrawingPackage(*_DEJAVU_PACKAGE, tuple(_DEJAVU.values())),
    _fontsource("noto-sans", "5.3.0", "OFL-1.1", "Google, Noto Sans"),
    _fontsource("eb-garamond", "5.3.0", "OFL-1.1", "Georg Duffner, EB Garamond"),
    _fontsource("roboto-mono", "5.3.0", "OFL-1.1", "Christian Robertson, Roboto Mono"),
    _fontsource("roboto-slab", "5.3.0", "Apache-2.0", "Christian Robertson, Roboto Slab"),
    _fontsource("alegreya", "5.3.0", "OFL-1.1", "Juan Pablo del Peral, Alegreya"),
    _fontsource("comfortaa", "5.3.0", "OFL-1.1", "Johan Aakerlund, Comfortaa"),
)
QUERY_STYLES = ("alegreya", "comfortaa")

_RANGES = (
    (0x21, 0x180),  # Basic Latin to Latin Extended-A
    (0x370, 0x500),  # Greek, Cyrillic
    (0x2010, 0x2070),  # punctuation
    (0x20A0, 0x20C0),  # currencies
    (0x2190, 0x2300),  # arrows, mathematics
)
_LEFT_OUT = {"Mn", "Me", "Mc", "Cn", "Cc", "Cf", "Zs", "Zl", "Zp"}  # marks that need a base; what has no shape or name
_SCRIPTS = ("latin", "greek", "cyrillic")
_TEMPLATES = ("{}", "{}", "the character {}", "{}, glyph", "{} symbol", "unicode {}")
_CANVAS = 2 * SIDE
_SIZE, _BASELINE = 80, 92  # pixels on the canvas: the largest at which accents and descenders stay on it


class _Glyph(NamedTuple):
    entity: str
    style: str
    font: Path


def load(cache: Path) -> PackageSet:
    """Fetch the fonts, draw and read the glyphs; everything is kept in the cache and reused."""
    folders = fetch(SOURCES, cache)
    entities = [_entity(character) for character in _characters()]
    keys = [entity.key for entity in entities]
    glyphs = [glyph for style, files in _fonts(folders).items() for glyph in _glyphs(style, files, keys)]
    content = [[glyph.entity, glyph.font.name] for glyph in glyphs]
    images = kept(cache / "images", content, lambda: np.stack([draw(g.entity, _font(g.font)) for g in glyphs]))
    pictures = [Picture(glyph.entity, glyph.style, glyph.style) for glyph in glyphs]
    return assemble("glyphs", entities, pictures, images, query_styles=QUERY_STYLES, templates=_TEMPLATES)


def _characters() -> Iterator[str]:
    for start, stop in _RANGES:
        for point in range(start, stop):
            if unicodedata.category(chr(point)) not in _LEFT_OUT:
                yield chr(point)


def _entity(character: str) -> Entity:
    name = unicodedata.name(character).lower()
    others = [
        name.replace("capital letter", "uppercase").replace("small letter", "lowercase"),
        name.replace(" letter", ""),
        name if character.isupper() else codepoint2name.get(ord(character), name),  # encoders read in lower case
    ]
    concept = name.replace("capital ", "").replace("small ", "")  # both cases on one side of the split
    return Entity(
        character, tuple(dict.fromkeys([name, *others])), _hints(name, character), split_of(concept, "glyphs")
    )


def _hints(name: str, character: str) -> tuple[str, ...]:
    """What can be said of a character without naming it: its script or kind, case and accent."""
    kinds = {"Lu": "capital letter", "Ll": "small letter", "N": "number", "P": "punctuation mark", "S": "symbol"}
    category, script = unicodedata.category(character), name.partition(" ")[0]
    accent = name.partition(" with ")[2]
    told = [
        f"{script} script" if script in _SCRIPTS else "",  # the micro sign has none
        kinds.get(category) or kinds.get(category[0], ""),
        f"accent {accent}" if accent else "",
    ]
    return tuple(filter(None, told))


def _fonts(folders: Mapping[str, Path]) -> dict[str, list[Path]]:
    """The files of each font; a package cuts it into one for each part of a script, or leaves parts out."""
    fonts = {style: [folders["dejavu"] / file] for style, file in _DEJAVU.items()}
    for source in SOURCES[1:]:
        files = [folders[source.name] / part for part in source.parts]
        fonts[source.family] = [path for path in files if path.is_file()]
    return fonts


def _glyphs(style: str, files: Sequence[Path], characters: Sequence[str]) -> Iterator[_Glyph]:
    """Which characters a font draws, and from which of its files."""
    left = dict.fromkeys(characters)
    for path in files:
        with TTFont(path, lazy=True) as font:
            drawn = font.getBestCmap()
        for character in [*left]:
            if ord(character) in drawn:
                del left[character]
                yield _Glyph(character, style, path)


@once
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, _SIZE, layout_engine=ImageFont.Layout.BASIC)


def draw(character: str, font: ImageFont.FreeTypeFont) -> npt.NDArray[np.uint8]:
    """Draw a character, black on white, all at one size and on one line; returns (64, 64, 3) uint8."""
    canvas = Image.new("L", (_CANVAS, _CANVAS), "white")
    ImageDraw.Draw(canvas).text((_CANVAS // 2, _BASELINE), character, "black", font, anchor="ms")
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGB"))
