"""The entities of the quickstart, of emojibase's tables, and their split by concept. Pure and deterministic."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from reco_plugin.quickstart.dataset import Entity, EntitySplit, make_rng

_SHARES: tuple[tuple[EntitySplit, float], ...] = (("unseen", 0.30), ("dev", 0.08), ("fusion", 0.12), ("seen", 0.50))
_GENDER = re.compile(r"\b(?:man|woman|men|women|person|people|male|female|boy|girl|he|she|mr|mrs)\b")
_NO_DRAWING = {None, 2, 9}  # keycap parts, skin tones and hair; flags (noto draws no countries)


def concept(label: str) -> str:
    """The label without words of gender and punctuation, so that all who row are in one split.

    >>> concept("kiss: woman, man"), concept("kiss"), concept("Mrs. Claus"), concept("man")
    ('kiss', 'kiss', 'claus', 'man')
    """
    stripped = " ".join(re.findall(r"\w+", _GENDER.sub(" ", label.lower())))
    return stripped or label.lower()


def build(data: list[dict[str, Any]], shortcodes: dict[str, dict[str, Any]]) -> list[Entity]:
    """Make the entities from emojibase's tables.

    Args:
        data: ``en/data.json``.
        shortcodes: vocabulary name -> its shortcode table (hexcode -> name or list of names).
    """
    rows = [row for row in data if row.get("group") not in _NO_DRAWING]
    splits = _split(rows)
    return [
        Entity(
            key=row["hexcode"].lower(),
            label=row["label"],
            tags=tuple(tag for tag in row.get("tags", ()) if tag != row["label"]),
            names={"cldr": row["label"], **{v: _shortcode(t, row) for v, t in shortcodes.items()}},
            subgroup=row["subgroup"],
            split=splits[concept(row["label"])],
        )
        for row in rows
    ]


def _shortcode(table: dict[str, Any], row: dict[str, Any]) -> str:
    found = table.get(row["hexcode"], row["label"])
    name = found if isinstance(found, str) else found[0]
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def _split(rows: list[dict[str, Any]]) -> dict[str, EntitySplit]:
    """Split by concept, within each subgroup, so that every split holds faces, animals, tools, ..."""
    by_subgroup: dict[int, set[str]] = defaultdict(set)
    taken: set[str] = set()
    for row in rows:
        name = concept(row["label"])
        if name not in taken:
            by_subgroup[row["subgroup"]].add(name)
            taken.add(name)
    splits: dict[str, EntitySplit] = {}
    for subgroup, names in sorted(by_subgroup.items()):
        order = sorted(names)
        rng = make_rng("split", subgroup)
        rng.shuffle(order)
        offset = rng.random()  # rounds small subgroups up or down at random, so that the shares hold overall
        for place, name in enumerate(order):
            splits[name] = _share((place + offset) / len(order) % 1.0)
    return splits


def _share(position: float) -> EntitySplit:
    for split, share in _SHARES:
        if position < share:
            return split
        position -= share
    return _SHARES[-1][0]
