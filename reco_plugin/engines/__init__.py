"""Indexes of search engines, read where they are: described, scanned and searched, never written to."""

from .address import IndexAddress, parse_address
from .base import Description, Document, Engine, IndexHit, Page, Question
from .opening import is_index, open_index

__all__ = [
    "Description",
    "Document",
    "Engine",
    "IndexAddress",
    "IndexHit",
    "Page",
    "Question",
    "is_index",
    "open_index",
    "parse_address",
]
