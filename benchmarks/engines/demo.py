"""One set of data for every engine: drawings, their plain vectors, names plain and refined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service import started
from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.types import Vectors

from .catalogue import Product, Query, read_catalogue

MODEL = Path("triton_models")
_BATCH = 128  # below the service's limit of items per request


@dataclass(frozen=True)
class Demo:
    """What is searched, and how.

    Attributes:
        products: N drawings.
        images: (N, D), plain.
        queries: B names; the first ones of things that CLIP never saw.
        plain: (B, D) of the names.
        refined: the same, refined.
        service: URL of a ``reco serve`` with the memory.
    """

    products: Sequence[Product]
    images: Vectors
    queries: Sequence[Query]
    plain: Vectors
    refined: Vectors
    service: str

    @property
    def dimension(self) -> int:
        """Of all vectors."""
        return int(self.images.shape[1])

    def rows(self) -> list[dict[str, Any]]:
        """The products as the pages have them: sku, title, image, clip (D,)."""
        return [
            {"sku": str(one.id), "title": one.name, "image": f"{one.id}.png", "clip": vector}
            for one, vector in zip(self.products, self.images, strict=True)
        ]

    def nearest(self, vectors: Vectors, k: int) -> list[list[str]]:
        """Ids of the k products nearest to each of (B, D), by comparing all, nearest first."""
        order = np.argsort(-(vectors @ self.images.T), axis=1, kind="stable")[:, :k]
        return [[str(self.products[place].id) for place in row] for row in order]

    def first(self, found: Sequence[Sequence[str]], split: str) -> float:
        """Share of the names of a split whose first hit shows the thing that they mean."""
        entity = {str(one.id): one.entity for one in self.products}
        right = [
            bool(ids) and entity.get(ids[0]) == query.entity
            for query, ids in zip(self.queries, found, strict=True)
            if query.split == split
        ]
        return float(np.mean(right))


@contextmanager
def prepared(folder: Path) -> Iterator[Demo]:
    """Fill the memory where it is not, serve it, and embed everything once.

    Args:
        folder: of the memory.
    """
    catalogue = read_catalogue()
    folder.mkdir(parents=True, exist_ok=True)
    with Reco.open(MODEL, memory=folder / "memory") as reco:
        if len(reco.memory) < len(catalogue.memory):
            reco.memory.add(catalogue.memory, progress=True)
    with (
        started(MODEL, folder / "memory", folder / "serve.log") as service,
        Client(service.url, timeout_s=120) as client,
    ):
        images = client.embed_images([one.image for one in catalogue.products], refine=False)
        plain = client.embed_texts([one.text for one in catalogue.queries], refine=False)
        parts = [
            client.refine(plain[at : at + _BATCH], modality="text", target="image")
            for at in range(0, len(plain), _BATCH)
        ]
        if degraded := next((part.degraded for part in parts if part.degraded), None):
            raise SystemExit(f"the service does not refine: {degraded}")
        refined = np.concatenate([part.vectors for part in parts])
        yield Demo(catalogue.products, images, catalogue.queries, plain, refined, service.url)
