"""Indexes of search engines, read where they are: described, scanned and searched, never written to."""

from .address import IndexAddress, is_index, parse_address
from .base import Description, Document, Engine, IndexHit, Question, similarities
from .opening import open_index

__all__ = [
    "Description",
    "Document",
    "Engine",
    "IndexAddress",
    "IndexHit",
    "Question",
    "is_index",
    "open_index",
    "parse_address",
    "similarities",
]
