"""The entities of the quickstart benchmark: their names and captions. Pure and deterministic."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Literal, get_args

EntitySplit = Literal["seen", "fusion", "dev", "unseen"]
"""seen: in the pre-training of the mini CLIP. fusion: never there, trains the fusion. dev: in no training, every
choice is made on it. unseen: in no training and no choice; its pairs join the memory at test time only."""
ALL_SPLITS: tuple[EntitySplit, ...] = get_args(EntitySplit)

_TEMPLATES = ("{}", "{}", "{}", "{} icon", "a drawing of {}", "a picture of {}", "{} emoji", "{}, clip art")
_NAME_SOURCE = {
    "noto": "cldr",
    "noto-v1": "iamcal",
    "openmoji": "github",
    "emojione": "joypixels",
    "fluent-emoji": "cldr",
    "fluent-emoji-flat": "emojibase",
    "twemoji": "github",
    "emojione-v1": "joypixels",
}


@dataclass(frozen=True)
class Entity:
    """A thing with drawings in several styles."""

    key: str  # code points in lower case, as in ``1f98a``
    label: str  # CLDR name: the class prompt
    tags: tuple[str, ...]
    names: dict[str, str]  # in each vocabulary: cldr, github, iamcal, joypixels, emojibase
    subgroup: int
    split: EntitySplit

    @property
    def code_points(self) -> tuple[str, ...]:
        """Spellings of the key that icon sets use (with and without variation selectors)."""
        return (self.key, self.key.replace("-fe0f", ""), f"{self.key}-fe0f")


def make_rng(*parts: object) -> random.Random:
    """A generator seeded by the parts alone, the same on every machine and Python."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def caption(entity: Entity, style: str) -> str:
    """One fixed caption for one drawing, in the wording of different sources; 15 % carry tags only."""
    rng = make_rng("caption", entity.key, style)
    name = entity.names[_NAME_SOURCE[style]]
    tags = [tag for tag in entity.tags if tag.lower() != name.lower()]
    rng.shuffle(tags)
    if len(tags) >= 2 and rng.random() < 0.15:
        return ", ".join(tags[: rng.randint(2, 4)])
    worded = rng.choice(_TEMPLATES).format(name)
    return ", ".join([worded, *tags[: rng.randint(0, 3)]])
