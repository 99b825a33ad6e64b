"""Sources of pairs and labelled images: tables, folders, webdataset shards, vector files and indexes."""

from .columns import is_vector_file, read_feedback, write_pairs
from .labelled_images import Labelled, read_labelled
from .reading import open_rows, open_source, read_pairs, read_records
from .rows import Rejected, Rows, SourcePart

__all__ = [
    "Labelled",
    "Rejected",
    "Rows",
    "SourcePart",
    "is_vector_file",
    "open_rows",
    "open_source",
    "read_feedback",
    "read_labelled",
    "read_pairs",
    "read_records",
    "write_pairs",
]
