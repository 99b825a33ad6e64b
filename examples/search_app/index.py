"""The index that was there before reco: one Qdrant collection of plain CLIP vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reco_plugin.types import Vectors

from .catalogue import Product

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import ScoredPoint

COLLECTION = "search-app-drawings"
_BATCH = 256
_SAME = 0.999  # cosine of a stored vector and the same drawing encoded now


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        id: of the product.
        entity: that it shows.
        name: of the entity.
        score: cosine; larger is nearer.
    """

    id: int
    entity: str
    name: str
    score: float


class Index:
    """Products by their CLIP vectors."""

    def __init__(self, client: QdrantClient, collection: str = COLLECTION) -> None:
        self.client, self.collection = client, collection

    def holds(self, products: Sequence[Product], vectors: Vectors) -> bool:
        """Whether these products are there under these vectors: False says that the index is to be made (again)."""
        if not self.client.collection_exists(self.collection):
            return False
        stored = self.client.retrieve(self.collection, [product.id for product in products], with_vectors=True)
        found = {int(point.id): np.asarray(point.vector, np.float32) for point in stored}
        return all(
            product.id in found
            and found[product.id].shape == vector.shape
            and float(found[product.id] @ vector) > _SAME
            for product, vector in zip(products, vectors, strict=True)
        )

    def fill(self, products: Sequence[Product], vectors: Vectors) -> None:
        """Make the collection anew and put all products into it, (N, D) vectors beside them."""
        from qdrant_client import models

        self.client.delete_collection(self.collection)
        # of unit vectors the dot product is the cosine; the client's local mode would normalise a COSINE collection
        # again at every search, which changes last bits, and the digest tells
        space = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        self.client.create_collection(self.collection, vectors_config=space)
        for start in range(0, len(products), _BATCH):
            part = slice(start, start + _BATCH)
            points = [
                models.PointStruct(id=one.id, vector=vector.tolist(), payload={"entity": one.entity, "name": one.name})
                for one, vector in zip(products[part], vectors[part], strict=True)
            ]
            self.client.upsert(self.collection, points, wait=True)

    def search(self, vectors: Vectors, k: int) -> list[list[Hit]]:
        """The k nearest products of each of (B, D) queries, nearest first."""
        from qdrant_client import models

        answers = []
        for start in range(0, len(vectors), _BATCH):
            asked = [
                models.QueryRequest(query=vector.tolist(), limit=k, with_payload=True)
                for vector in vectors[start : start + _BATCH]
            ]
            answers += self.client.query_batch_points(self.collection, asked)
        return [[_hit(point) for point in answer.points] for answer in answers]

    def digest(self) -> str:
        """Sha256 over all ids and vectors: the same before and after means that the index was not touched."""
        digest, offset = hashlib.sha256(), None
        while True:
            points, offset = self.client.scroll(self.collection, limit=_BATCH, offset=offset, with_vectors=True)
            for point in points:
                digest.update(f"{point.id}:".encode() + np.asarray(point.vector, "<f4").tobytes())
            if offset is None:
                return digest.hexdigest()


def _hit(point: ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(int(point.id), payload["entity"], payload["name"], point.score)


def connect(location: str) -> QdrantClient:
    """A Qdrant server by its URL, ``:memory:``, or the folder of the client's own local mode."""
    from qdrant_client import QdrantClient

    if location == ":memory:":
        return QdrantClient(location)
    if "://" in location:
        return QdrantClient(url=location)
    Path(location).mkdir(parents=True, exist_ok=True)
    return QdrantClient(path=location)
