"""What is encoded and searched: texts, pictures, memories of synthetic vectors, exported models of random weights."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.types import Modality

from ..synthetic import BLOCK, Synthetic

if TYPE_CHECKING:
    from reco_plugin.train.parity import Precision

VIT, DIMENSION, SIDE = "ViT-B-32", 512, 224
_WORDS = ("small", "large", "young", "old", "red", "green", "blue", "grey", "wooden", "paper", "glass", "iron")


@dataclass(frozen=True)
class Given:
    """What a block is measured with.

    Attributes:
        folder: keeps models and memories.
        model: the shipped model, or another one.
        pairs: sizes of memories.
        rounds: how often everything takes its turn.
    """

    folder: Path
    model: Path
    pairs: tuple[int, ...]
    rounds: int


def vit(folder: Path, precision: Precision = "int8") -> Path:
    """ViT-B/32 of random weights, exported where it is missing; torch is imported only then."""
    out = folder / f"vit-{precision}"
    if not (out / "manifest.json").exists():
        from reco_plugin.train.encoder import load_frozen
        from reco_plugin.train.export import export

        export(load_frozen(VIT, random_weights=True), None, out, precision=precision)
    return out


def batches(modality: Modality, size: int) -> Callable[[], list[Any]]:
    """A function that makes a batch which was not asked for before: texts of seven words, or images."""
    numbers = count()

    def texts() -> list[Any]:
        rng = np.random.default_rng([size, next(numbers)])
        return [f"a photo of a {' '.join(rng.choice(_WORDS, 2))} {rng.choice(_WORDS)} bird" for _ in range(size)]

    def images() -> list[Any]:
        pixels = np.random.default_rng([size, next(numbers)]).integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8)
        return [Image.fromarray(one) for one in pixels]

    return images if modality == "image" else texts


def picture(kind: str, width: int, height: int, seed: int = 0) -> bytes:
    """A file with edges, gradients and noise."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin((12 + seed % 7) * across + colour) * np.cos(9 * down) for colour in range(3)], -1)
    out = io.BytesIO()
    noisy = 127 + 100 * waves + rng.normal(0, 6, (height, width, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, kind)
    return out.getvalue()


def fill(store: Any, catalogue: Synthetic) -> None:
    """Write the pairs that are missing, without learning from them."""
    have = store.count()
    for records in catalogue.records(have - have % BLOCK, catalogue.pairs):
        store.upsert(records)
    store.flush()


def wait_for_index(store: Any) -> None:
    """Wait until the search index, which a search has asked for, is in use; a small memory has none."""
    assert isinstance(store, EdgeMemory)
    while store.index_state == "being made":
        time.sleep(0.1)
