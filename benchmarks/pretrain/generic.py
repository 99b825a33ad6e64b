"""Generic drawings, on which the mini CLIP is trained beside those of seen entities."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.drawings.packages import fetch
from benchmarks.drawings.render import Drawing, IconSet, render_once
from reco_plugin.quickstart.dataset import BenchPair, Entity, Quickstart, iconify, load

SOURCES = (
    iconify("flat-color-icons", "1.2.3", "MIT", "Icons8, Flat Color Icons"),
    iconify("fluent-color", "1.2.21", "MIT", "Microsoft, Fluent UI System Color Icons"),
    iconify("marketeq", "1.2.2", "MIT", "Marketeq"),
    iconify("meteocons", "1.2.4", "MIT", "Bas Milius, Meteocons"),
    iconify("streamline-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-cyber-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-flex-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-freehand-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-kameleon-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-plump-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-sharp-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-stickies-color", "1.2.2", "CC-BY-4.0", "Streamline"),
    iconify("streamline-ultimate-color", "1.2.2", "CC-BY-4.0", "Streamline"),
)
"""Other colour drawings, captioned by file name: only used to pre-train the mini CLIP.

Sets of emoji are excluded: they draw the unseen entities, under names that a filter by name may miss.
"""

_GENDER = re.compile(r"\b(?:man|woman|men|women|person|people|male|female|boy|girl|he|she|mr|mrs)\b")
_PLURAL = re.compile(r"(?<=[xs])es$|(?<=[a-rt-z])s$")


def load_with_generic(cache: Path) -> Quickstart:
    """Load the quickstart with the generic drawings after its items.

    Raises:
        DataError: the packages could not be fetched.
    """
    data = load()
    items, drawings = _drawings(data.entities, fetch(SOURCES, cache))
    images = np.concatenate([data.images, render_once(drawings, cache / "images")])
    return replace(data, images=images, items=[*data.items, *items])


def _drawings(entities: list[Entity], folders: dict[str, Path]) -> tuple[list[BenchPair], list[Drawing]]:
    """Generic drawings, except those whose name mentions an entity that pre-training must not see."""
    unseen = [entity for entity in entities if entity.split != "seen"]
    hidden = {bag(name) for e in unseen for name in (_without_gender(e.label), *e.names.values())} - {frozenset()}
    items, drawings = [], []
    for source in SOURCES:
        path = folders[source.name] / "icons.json"
        taken: set[str] = set()
        for name in IconSet(path).names:
            words = _words("".join(f" {c.lower()}" if c.isupper() else c for c in name).rstrip("0123456789"))
            if words and words not in taken and not mentions(words, hidden):
                taken.add(words)
                items.append(BenchPair(f"{source.name}:{name}", source.name, source.family, words, None))
                drawings.append(Drawing(path, name))
    return items, drawings


def _words(name: str) -> str:
    plain = "".join(c if c.isalnum() else " " for c in name.lower().replace("’", "").replace("&", "and"))
    return " ".join(part for part in plain.split() if not part.isdigit())


def _without_gender(label: str) -> str:
    return " ".join(re.findall(r"\w+", _GENDER.sub(" ", label.lower()))) or label.lower()


def bag(text: str) -> frozenset[str]:
    """The set of words of a text, in the singular.

    >>> sorted(bag("Two red foxes"))
    ['fox', 'red', 'two']
    """
    return frozenset(_PLURAL.sub("", word) for word in re.findall(r"[a-z0-9]+", text.lower()))


def mentions(text: str, names: set[frozenset[str]]) -> bool:
    """Whether a text holds all words of one of the names, in any order.

    >>> mentions("arrow up flat", {bag("up arrow")}), mentions("foxglove", {bag("fox")})
    (True, False)
    """
    words = bag(text)
    return any(name <= words for name in names)
