"""The data of every engine: the index holds drawings in two styles, the memory holds those in the six others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import started
from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.demo.bench import drawing, pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, QUERY_STYLES, Entity, load
from reco_plugin.types import Vectors

MODEL = Path("triton_models")
_BATCH = 128  # below the service's limit of items per request


@dataclass(frozen=True)
class Demo:
    """An index, queries, and a service.

    Attributes:
        products: id of each of N drawings -> what it shows.
        images: (N, D), plain.
        queries: B entities whose names are the queries; the first ones are in no training.
        plain, refined: (B, D) vectors of the names.
        service: URL of a ``reco serve`` with the memory.
    """

    products: Mapping[str, Entity]
    images: Vectors
    queries: Sequence[Entity]
    plain: Vectors
    refined: Vectors
    service: str

    @property
    def dimension(self) -> int:
        """Of all vectors."""
        return int(self.images.shape[1])

    def rows(self) -> list[dict[str, Any]]:
        """Rows as on the pages: sku, title, image, clip (D,)."""
        return [
            {"sku": id_, "title": shown.label, "image": f"{id_}.png", "clip": vector}
            for (id_, shown), vector in zip(self.products.items(), self.images, strict=True)
        ]

    def nearest(self, vectors: Vectors, k: int) -> list[list[str]]:
        """Ids of the k nearest products to each vector (B, D), by exact search."""
        order = np.argsort(-(vectors @ self.images.T), axis=1, kind="stable")[:, :k]
        ids = list(self.products)
        return [[ids[place] for place in row] for row in order]

    def first(self, rankings: Sequence[Sequence[str]], split: str) -> float:
        """Share of the queries of a split whose first hit is right."""
        right = [
            bool(ids) and self.products.get(ids[0]) is query
            for query, ids in zip(self.queries, rankings, strict=True)
            if query.split == split
        ]
        return float(np.mean(right))


@contextmanager
def prepared(folder: Path) -> Iterator[Demo]:
    """Fill the memory in a folder if that is missing, serve it, and embed everything once."""
    data = load()
    rows = [int(row) for row in data.rows(splits=ALL_SPLITS, styles=QUERY_STYLES)]
    products = {str(row): data.by_key[data.items[row].entity] for row in rows}
    sold = {shown.key for shown in products.values()}
    queries = [entity for split in ("unseen", "seen") for entity in data.labels([split]) if entity.key in sold]
    memory = pairs(data, ALL_SPLITS)
    folder.mkdir(parents=True, exist_ok=True)
    with Reco.open(MODEL, memory=folder / "memory") as reco:
        if len(reco.memory) < len(memory):
            reco.memory.add(memory, progress=True)
    with (
        started(MODEL, folder / "memory", folder / "serve.log") as service,
        Client(service.url, timeout_s=120) as client,
    ):
        images = client.embed_images([drawing(data, row) for row in rows], refine=False)
        plain = client.embed_texts([one.label for one in queries], refine=False)
        parts = [
            client.refine(plain[at : at + _BATCH], modality="text", target="image")
            for at in range(0, len(plain), _BATCH)
        ]
        if degraded := next((part.degraded for part in parts if part.degraded), None):
            raise SystemExit(f"the service does not refine: {degraded}")
        refined = np.concatenate([part.vectors for part in parts])
        yield Demo(products, images, queries, plain, refined, service.url)
