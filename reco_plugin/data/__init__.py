"""Read pairs and evaluation sets: tables, folders, webdataset shards and files of precomputed vectors.

::

    open_rows       rows of pairs, or why not usable        csv tsv jsonl parquet | folder | tar | npz npy | …
    read_pairs      the same; the first bad row raises
    read_labelled   images with classes, for zero-shot      folder | table | tar | torchvision:
    read_records, write_pairs                               pairs as vectors, in batches: npz parquet

Sources of pairs are described in ``docs/sources.md``, evaluation sets in ``docs/evaluation.md``.
"""

from .columns import is_vectors, read_feedback, write_pairs
from .labelled import Labelled, read_labelled
from .opening import open_rows, read_pairs, read_records
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
