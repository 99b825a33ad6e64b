"""Prepared rows to vectors, a batch in one call of each encoder graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.rows import Rejected
from ..encode import Encoder
from ..types import Vectors
from .items import Encoded, Item, Prepared, Skipped


def encoded_rows(rows: Sequence[Prepared | Skipped | Rejected], encoder: Encoder) -> list[Item]:
    """A batch with its prepared rows encoded; the others stay as they are, where they are."""
    made = iter(encode([row for row in rows if isinstance(row, Prepared)], encoder))
    return [next(made) if isinstance(row, Prepared) else row for row in rows]


def encode(rows: Sequence[Prepared], encoder: Encoder) -> list[Encoded]:
    """Encode rows, in order; what is a vector already stays.

    Raises:
        SessionError: the encoder failed.
    """
    images = _side([row.image for row in rows], encoder.pixels)
    texts = _side([row.text for row in rows], encoder.tokens)
    return [
        Encoded(row.where, row.id, row.digest, row.payload, row.caption, image, text, row.cut)
        for row, image, text in zip(rows, images, texts, strict=True)
    ]


def _side(values: Sequence[npt.NDArray[Any]], encoder: Callable[..., Vectors]) -> list[Vectors]:
    """Vectors (D,) of one side; those that are no float32 vector yet are encoded together."""
    out = list(values)
    if raw := [row for row, value in enumerate(values) if value.dtype != np.float32]:
        for row, vector in zip(raw, encoder(np.stack([values[row] for row in raw])), strict=True):
            out[row] = vector
    return out
