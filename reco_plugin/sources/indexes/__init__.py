"""Indexes of search engines, read where they are: opened by ``open_index``, one module per engine."""

from .address import IndexAddress, parse_address
from .base import Description, Document, Engine, IndexHit, IndexQuery, similarities
from .open_index import open_index

__all__ = [
    "Description",
    "Document",
    "Engine",
    "IndexAddress",
    "IndexHit",
    "IndexQuery",
    "open_index",
    "parse_address",
    "similarities",
]
