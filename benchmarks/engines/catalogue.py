"""What is searched and what helps: drawings of the quickstart in two styles, pairs in the six others.

No drawing is in both: the index holds styles that no training and no memory has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from reco_plugin import Pair
from reco_plugin.demo.tasks import drawing, pairs
from reco_plugin.quickstart.dataset import ALL_SPLITS, QUERY_STYLES, EntitySplit, Quickstart, load

SPLITS: tuple[EntitySplit, ...] = ("unseen", "seen")
"""Of the queries: entities that are in no training of any part, and entities that CLIP knows."""


@dataclass(frozen=True)
class Product:
    """One drawing that can be found."""

    id: int
    image: Image.Image
    entity: str
    name: str
    style: str


@dataclass(frozen=True)
class Query:
    """One text that a user types, and the entity it means."""

    text: str
    entity: str
    split: EntitySplit


@dataclass(frozen=True)
class Catalogue:
    """Everything the application is about.

    Attributes:
        products: what the index holds.
        queries: the names of the entities that have a product.
        memory: pairs for the memory, of the same entities drawn by others.
    """

    products: Sequence[Product]
    queries: Sequence[Query]
    memory: Sequence[Pair]


def read_catalogue() -> Catalogue:
    """Read the drawings that come with the package.

    Raises:
        DataError: they are missing or damaged.
    """
    data = load()
    products = [_product(data, int(row)) for row in data.rows(splits=ALL_SPLITS, styles=QUERY_STYLES)]
    sold = {product.entity for product in products}
    queries = [
        Query(entity.label, entity.key, entity.split)
        for split in SPLITS
        for entity in data.labels([split])
        if entity.key in sold
    ]
    return Catalogue(products, queries, pairs(data, ALL_SPLITS))


def _product(data: Quickstart, row: int) -> Product:
    item = data.items[row]
    return Product(row, drawing(data, row), item.entity, data.by_key[item.entity].label, item.style)
