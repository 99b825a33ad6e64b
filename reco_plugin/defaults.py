"""Defaults that several modules share, each with its reason. A default of one module is in that module."""

from __future__ import annotations

from .types import Target

DEFAULT_K = 16
"""k without a model."""
MODEL_K = 5
"""k of a model folder without k in its manifest."""
TARGET: Target = "image"
"""What queries are compared with: most indexes hold pictures, where images that are refined for texts find less."""
COVERAGE = 0.9
"""Share of what is asked for that the memory is taken to hold: memories are made of what is to be found."""
RESULTS = 10
"""Pairs or candidates that a search shows."""
SAME_IMAGE = 0.97
"""Cosine of two images above which one counts as a copy of the other, and would reveal its caption."""
MAX_PIXELS = 50_000_000
"""Of an image, before it is decoded: a photograph of 48 megapixels. A WebP takes 16.5 bytes a pixel on the way: 825 MB,
beside which a service of 2 GiB has room for its model."""
MAX_LOSS = 0.005
"""Share of queries that a fit may lose where the memory has no answer."""
INGEST_BATCH = 256
"""Pairs that are prepared, encoded and written together: four batches of the encoder."""
STEPS, BATCH = 400, 128
"""For training the paper's layer on a catalogue: minutes on two cores."""
COLLECTION = "reco"
"""Collection on a Qdrant server."""
SCROLL_BATCH = 1024
"""Pairs per read: 4 MB of vectors of 512 numbers."""
