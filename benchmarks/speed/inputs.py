"""Inputs: texts, pictures, memories of synthetic vectors, and exported models with random weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.types import Modality, Records

if TYPE_CHECKING:
    from reco_plugin.export.export_options import Precision

VIT, DIMENSION, SIDE, BLOCK = "ViT-B-32", 512, 224, 1000
_WORDS = ("small", "large", "young", "old", "red", "green", "blue", "grey", "wooden", "paper", "glass", "iron")


@dataclass(frozen=True)
class Given:
    """Options of all blocks.

    Attributes:
        folder: keeps models and memories.
        model: a model folder.
        pairs: sizes of the memories.
        rounds: of turns.
        old: work tree of another commit, for ``serve``.
    """

    folder: Path
    model: Path
    pairs: tuple[int, ...]
    rounds: int
    old: Path | None = None


def vit(folder: Path, precision: Precision = "int8") -> Path:
    """Export ViT-B/32 with random weights, once; returns its folder."""
    out = folder / f"vit-{precision}"
    if not (out / "manifest.json").exists():
        from reco_plugin.export.onnx_export import export
        from reco_plugin.export.open_clip import load_frozen

        export(load_frozen(VIT, random_weights=True), None, out, precision=precision)
    return out


def batches(modality: Modality, size: int) -> Callable[[], list[Any]]:
    """A function that makes a new batch at each call: texts of seven words, or images."""
    numbers = count()

    def texts() -> list[Any]:
        rng = np.random.default_rng([size, next(numbers)])
        return [f"a photo of a {' '.join(rng.choice(_WORDS, 2))} {rng.choice(_WORDS)} bird" for _ in range(size)]

    def images() -> list[Any]:
        pixels = np.random.default_rng([size, next(numbers)]).integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8)
        return [Image.fromarray(one) for one in pixels]

    return images if modality == "image" else texts


@dataclass(frozen=True)
class Catalogue:
    """Synthetic pairs in clusters of about a hundred."""

    pairs: int

    def records(self, start: int, stop: int) -> Iterator[Records]:
        """Make rows in blocks of at most 1000; row i does not depend on the other rows."""
        for first in range(start - start % BLOCK, stop, BLOCK):
            rows = range(max(first, start), min(first + BLOCK, stop))
            rng = np.random.default_rng([1, first])
            cluster = rng.integers(max(1, self.pairs // 100), size=BLOCK)
            centres = np.stack([np.random.default_rng([2, one]).normal(size=(2, DIMENSION)) for one in cluster])
            drawn = centres + 0.7 * rng.normal(size=centres.shape)  # (BLOCK, 2, D)
            drawn[:, 1] += 0.05 * drawn[:, 0]  # captions know little of their images, as refinement needs
            drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
            image, text = (drawn[rows.start - first : rows.stop - first, side].astype(np.float32) for side in (0, 1))
            payloads = [{"caption": f"entry {row}"} for row in rows]
            yield Records([f"pair-{row:09d}" for row in rows], image, text, payloads)


def fill(store: Any, catalogue: Catalogue) -> None:
    """Write the missing pairs, without learning from them."""
    have = store.count()
    for records in catalogue.records(have - have % BLOCK, catalogue.pairs):
        store.upsert(records)
    store.flush()


def wait_for_index(store: Any) -> None:
    """Wait until the search index is built; a small memory has none."""
    assert isinstance(store, EdgeMemory)
    while store.index_state == "being made":
        time.sleep(0.1)
