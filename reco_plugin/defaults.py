"""Defaults that several places share, each with its reason. One that only one place knows stands there."""

from __future__ import annotations

NEIGHBOURS = 10
"""k where no model says otherwise; that of the shipped model."""
POLICY_NEIGHBOURS = 5
"""k of a model folder whose manifest names none."""
RESULTS = 10
"""Pairs or candidates that a search shows."""
SAME_IMAGE = 0.97
"""Cosine of two images from which on one counts as a copy of the other: it would give the caption away."""
CANDIDATE_HEIGHT = 0.3
"""Share of full trust that the best neighbour of each candidate gets: candidates that move further take queries from
the others (docs/gate.md)."""
MAX_PIXELS = 64_000_000
"""Of an image, before it is decoded: a photograph of 60 megapixels, 192 MB decoded."""
MAX_LOSS = 0.005
"""Share of queries that a fit may cost where the memory has nothing to tell."""
PAIRS_IN_RAM = 200_000
"""Pairs of which a study and a fit take all, and of more a sample: 800 MB of vectors of 512 numbers."""
INGEST_BATCH = 256
"""Pairs that are prepared, encoded and written together: four batches of the encoder."""
STEPS, BATCH = 400, 128
"""Of training the paper's layer on a catalogue: minutes on two cores."""
COLLECTION = "reco"
"""Name of the collection on a Qdrant server."""
SCROLL_BATCH = 1024
"""Pairs that are read at once: 4 MB of vectors of 512 numbers."""
