"""Inputs for the parity check of an export, when the caller has too few: varied drawings and captions."""

from __future__ import annotations

import random
from itertools import product

from PIL import Image, ImageDraw

from ..types import ImageInput

COUNT = 48
"""Samples: enough that ten nearest of them are a choice."""
SAMPLE_TEXTS = (
    "a photo of a dog",
    "red fox in the snow",
    "2012 Hyundai Elantra Touring hatchback, front three-quarter view",
    "x",
    "",
    "Ein kleines Café in Zürich",
    "東京タワーの夜景",
    "part no. 8-97309-421-0, oil filter, box of 12",
    "emoji 🦊 and punctuation!?",
    "a long caption that goes on about the weather, the light, the people and the street until it is cut " * 4,
)
_FRAMES = ("a photo of a {}", "{}", "a close-up of an old {} on a wooden table, taken with a flash at night")
_THINGS = (
    *("teapot", "sports car", "lighthouse", "grey heron", "wool jumper", "bicycle", "circuit board", "pizza"),
    *("violin", "harbour", "orchid", "steam engine", "chess board"),
)


def sample_texts(count: int = COUNT) -> list[str]:
    """Odd captions and then plain ones, of several lengths; the same ones every time, at most 49."""
    plain = (frame.format(thing) for thing, frame in product(_THINGS, _FRAMES))
    return [*SAMPLE_TEXTS, *plain][:count]


def sample_images(count: int = COUNT) -> list[ImageInput]:
    """Gradients under random shapes, each of another size; the same ones every time."""
    rng = random.Random(0)
    return [_draw(rng) for _ in range(count)]


def _draw(rng: random.Random) -> Image.Image:
    size = (rng.randint(80, 500), rng.randint(80, 500))
    image = Image.merge("RGB", [Image.linear_gradient("L").resize(size).rotate(90 * rng.randrange(4)) for _ in "RGB"])
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        box = (x, y, x + rng.randint(5, 120), y + rng.randint(5, 120))
        rng.choice((pen.ellipse, pen.rectangle))(box, fill=tuple(rng.randrange(256) for _ in range(3)))
    return image
