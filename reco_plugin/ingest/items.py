"""The states of a row: loaded, prepared, encoded; or skipped, or rejected. All can be pickled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data.rows import Rejected
from ..types import Modality, Pair, Payload, Vectors


@dataclass(frozen=True)
class Loaded:
    """A row with the bytes of its image (of a remote one: its URL), not decoded."""

    where: str  # in the source, for messages
    pair: Pair  # with an image that is bytes, a vector or a RemoteImage
    digest: str  # of its content, see :func:`~reco_plugin.data.rows.digest`


@dataclass(frozen=True)
class Skipped:
    """A row that needs no encoding."""

    id: str  # of the pair
    digest: str  # of the row
    why: Literal["unchanged", "missing"]  # missing: the memory does not hold its id, and only known ids are wanted


@dataclass(frozen=True)
class Prepared:
    """A row as input of the encoder."""

    where: str  # in the source, for messages
    id: str  # of the pair
    digest: str  # of the row
    payload: Payload  # JSON values only
    caption: str | None  # the text, if there is one
    image: npt.NDArray[np.uint8] | Vectors  # (H, W, 3) uint8 of the encoder's size, or a vector (D,) float32
    text: npt.NDArray[np.int32] | Vectors  # (L,) int32 token ids, or a vector (D,) float32
    cut: bool = False  # the text is longer than the encoder reads
    given: tuple[Modality, ...] = ()  # sides that the source brought as vectors


@dataclass(frozen=True)
class Encoded(Prepared):
    """A row as vectors (D,) float32, unit-norm."""

    image: Vectors
    text: Vectors


WriterItem: TypeAlias = "Encoded | Skipped | Rejected"
"""Input of the writer."""


def given_vectors(batch: Iterable[WriterItem]) -> Iterator[tuple[Mapping[Modality, Any], Payload]]:
    """The vectors (D,) that encoded rows of a batch brought along, and their payloads."""
    for row in batch:
        if isinstance(row, Encoded):
            yield {modality: row.image if modality == "image" else row.text for modality in row.given}, row.payload
