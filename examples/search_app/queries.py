"""Texts as query vectors, plain and refined: all that reco has to do with this application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.types import Vectors

Source: TypeAlias = Reco | Client
"""In process, or a `reco serve`; both are called alike."""
_BATCH = 128  # below the service's limit of items per request


@dataclass(frozen=True)
class QueryVectors:
    """(B, D) of the same texts, in one space.

    Attributes:
        plain: as CLIP gives them, which is what the application searched with before.
        refined: through the memory.
        degraded: why some are plain although they were to be refined; None where all went well.
    """

    plain: Vectors
    refined: Vectors
    degraded: str | None = None


def query_vectors(reco: Source, texts: Sequence[str]) -> QueryVectors:
    """Embed texts once, and refine what came out.

    Raises:
        RecoError: nothing to embed, or the service is not reached.
    """
    plain = reco.embed_texts(texts, refine=False)
    parts = [
        reco.refine(plain[at : at + _BATCH], modality="text", target="image") for at in range(0, len(plain), _BATCH)
    ]
    return QueryVectors(
        plain,
        np.concatenate([part.vectors for part in parts]),
        next((part.degraded for part in parts if part.degraded), None),
    )
