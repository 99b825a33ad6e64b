"""A source of image-text pairs into a memory: read, prepare, encode and write concurrently; run again to resume.

::

    Rows ──► load ──► sift ──► prepare ──► encode ──► Writer ──► memory
             digest   skip     decode,     vectors    repeated,
                      what is  tokenise               excluded rows
                      there

Each arrow is a bounded queue, each stage a thread or a pool; order is kept. A row that cannot be used is a
:class:`~reco_plugin.data.rows.Rejected` that travels with the others and is listed at the end.
"""

from .options import IngestOptions
from .run import ingest
from .write import Outcome

__all__ = ["IngestOptions", "Outcome", "ingest"]
