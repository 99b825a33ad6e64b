"""Whether a collection is of a model's encoder, which nothing in it tells: embed some captions, and compare."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FingerprintMismatch, MemoryStoreError
from ..reco import Reco
from ..types import Pair
from .memory_parts import CollectionNames, collection_rows

if TYPE_CHECKING:
    from ..memory.reading import Described
    from ..memory.server import Server

_CAPTIONS = 32
_SAME_ENCODER = 0.95


def check_captions(server: Server, found: Described, vector: str, field: str, model: Path) -> None:
    """Embed some captions and compare them with the vectors that are stored beside them.

    Args:
        server: where the collection is.
        found: what it says of itself.
        vector: name of its text vector.
        field: key of the payload that holds the captions.
        model: folder of the model.

    Raises:
        FingerprintMismatch: they are too far apart to be of one encoder.
        MemoryStoreError: no such vector, or no point has both.
    """
    rows = collection_rows(server, found, CollectionNames(vector, caption=field), None, scaled=True)
    sample = list(islice((row for row in rows if isinstance(row, Pair)), _CAPTIONS))
    if not sample:
        raise MemoryStoreError(f"no point of {rows.name} has a vector {vector!r} and a text in {field!r}")
    with Reco.open(model, ":memory:", memory_kind="exact") as reco:
        ours = reco.encoder.texts([str(pair.text) for pair in sample])
    stored = np.stack([np.asarray(pair.image, np.float32) for pair in sample])
    if stored.shape == ours.shape and (cosine := float(np.mean(np.sum(ours * stored, axis=1)))) >= _SAME_ENCODER:
        return
    told = f"a mean cosine of {cosine:.3f}" if stored.shape == ours.shape else f"{stored.shape[1]} dimensions"
    raise FingerprintMismatch(
        f"{len(sample)} captions of {field!r}, embedded by {model}, and their vectors {vector!r} in {found.name!r} "
        f"have {told}, expected a cosine of at least {_SAME_ENCODER}: the collection is of another encoder, or was "
        "embedded with a prompt around the captions"
    )
