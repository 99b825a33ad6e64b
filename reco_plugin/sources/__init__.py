"""Read pairs and evaluation sets: tables, folders, webdataset shards and files of precomputed vectors."""

from .columns import is_vectors, read_feedback, write_pairs
from .reading import Labelled, open_rows, read_labelled, read_pairs, read_records
from .rows import Rejected, Rows, SourcePart

__all__ = [
    "Labelled",
    "Rejected",
    "Rows",
    "SourcePart",
    "is_vectors",
    "open_rows",
    "read_feedback",
    "read_labelled",
    "read_pairs",
    "read_records",
    "write_pairs",
]
