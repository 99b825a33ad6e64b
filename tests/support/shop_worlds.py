"""Made-up catalogues of 128 dimensions, as the shipped model has them: things whose images the encoder cannot name."""

from __future__ import annotations

import numpy as np

from reco_plugin.types import Fingerprint, Records, Vectors

D = 128
FINGERPRINT = Fingerprint("made up", "0" * 64, D)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def unit(vectors: np.ndarray) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def word(number: int) -> str:
    """A name of letters only, another one for every number."""
    return "thing " + "".join(_LETTERS[(number // 26**place) % 26] for place in range(3))


def made(groups: int = 150, each: int = 4, *, shuffled: bool = False, unique: bool = False, seed: int = 0) -> Records:
    """Pairs of things; captions say nothing of images, but pairs of one thing have the same caption and look alike."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(groups * each if unique else groups), 1 if unique else each)
    gap = 2.0 * np.eye(2, D)
    image = unit(rng.normal(size=(number.max() + 1, D)))[number]
    text = unit(unit(rng.normal(size=(number.max() + 1, D))) + gap[1])[number]
    image = unit(image + 0.5 * unit(rng.normal(size=image.shape)) + gap[0])
    if shuffled:
        image = image[rng.permutation(len(image))]
    ids = [f"p{row}" for row in range(len(number))]
    return Records(ids, image, text, [{"caption": word(n), "thing": word(n), "code": f"X-{n}"} for n in number])
