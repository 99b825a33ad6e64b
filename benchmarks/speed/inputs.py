"""What is encoded and searched: texts, pictures, memories of synthetic vectors, exported models of random weights."""

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
    """What a block is measured with.

    Attributes:
        folder: keeps models and memories.
        model: the shipped model, or another one.
        pairs: sizes of memories.
        rounds: how often everything takes its turn.
        old: work tree of another commit, beside which the service is measured.
    """

    folder: Path
    model: Path
    pairs: tuple[int, ...]
    rounds: int
    old: Path | None = None


def vit(folder: Path, precision: Precision = "int8") -> Path:
    """ViT-B/32 of random weights, exported where it is missing; torch is imported only then."""
    out = folder / f"vit-{precision}"
    if not (out / "manifest.json").exists():
        from reco_plugin.export.onnx_export import export
        from reco_plugin.export.open_clip import load_frozen

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


@dataclass(frozen=True)
class Catalogue:
    """Pairs of vectors in clusters of about a hundred, as many as you like, any part of them at once."""

    pairs: int

    def records(self, start: int, stop: int) -> Iterator[Records]:
        """Rows of it, in blocks of at most 1000; row i is the same whatever else is drawn."""
        for first in range(start - start % BLOCK, stop, BLOCK):
            rows = range(max(first, start), min(first + BLOCK, stop))
            rng = np.random.default_rng([1, first])
            cluster = rng.integers(max(1, self.pairs // 100), size=BLOCK)
            centres = np.stack([np.random.default_rng([2, one]).normal(size=(2, DIMENSION)) for one in cluster])
            drawn = centres + 0.7 * rng.normal(size=centres.shape)  # (BLOCK, 2, D)
            drawn[:, 1] += 0.05 * drawn[:, 0]  # so little does a caption know of its image that refinement gains
            drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
            image, text = (drawn[rows.start - first : rows.stop - first, side].astype(np.float32) for side in (0, 1))
            payloads = [{"caption": f"entry {row}"} for row in rows]
            yield Records([f"pair-{row:09d}" for row in rows], image, text, payloads)


def fill(store: Any, catalogue: Catalogue) -> None:
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
