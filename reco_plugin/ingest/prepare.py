"""The steps of a row: read, fetched and prepared one by one, and encoded in batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..data.images import RemoteImage
from ..data.rows import Rejected, SourcePart, digest
from ..encode import Encoder
from ..errors import ImageError, InputError, RecoError
from ..memory.checks import check_ids, check_pair
from ..preparation import EncoderInput, Preparation
from ..types import MODALITIES, Pair, caption_of
from ..values import strip_marks
from .items import Encoded, Loaded, Prepared, Skipped, WriterItem

DOWNLOADS = 16
"""Images that are fetched at the same time."""


def read_rows(parts: Iterable[SourcePart]) -> Iterator[tuple[str, Pair] | Rejected]:
    """The rows of all parts in order, each pair with its place in the source."""
    for part in parts:
        for number, row in enumerate(part.read(), 1):
            yield row if isinstance(row, Rejected) else (f"row {number} of {part.name}", row)


def load(row: tuple[str, Pair] | Rejected) -> Loaded | Rejected:
    """Read a row's image file and compute its digest; a remote image is not fetched."""
    if isinstance(row, Rejected):
        return row
    where, pair = row
    try:
        check_ids([pair.id], "its id")
    except InputError as error:
        return Rejected(where, str(error))
    image: Any = pair.image
    if isinstance(image, str | os.PathLike):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            return Rejected(where, f"its image {str(pair.image)!r} cannot be read: {error.strerror or error}", pair.id)
    ours = Pair(pair.id, image, pair.text, strip_marks(pair.payload))
    return Loaded(where, ours, digest(ours))


def prepare(row: Loaded | Skipped | Rejected, preparation: Preparation) -> Prepared | Skipped | Rejected:
    """A loaded row as input of the encoder, any other as it is; no image may be remote, see :func:`fetch_image`."""
    if not isinstance(row, Loaded):
        return row
    pair = row.pair
    try:
        payload = check_pair(pair.id, pair.text, pair.payload)
        text = _text(pair.text, preparation)
        image = _image(pair.image, preparation)
    except ImageError as error:
        return Rejected(row.where, f"its image {error.problem}", pair.id)
    except InputError as error:
        return Rejected(row.where, str(error), pair.id)
    caption = pair.text if isinstance(pair.text, str) else caption_of(payload)
    caption = caption if caption and caption.strip() else None
    given = tuple(modality for modality in MODALITIES if isinstance(getattr(pair, modality), np.ndarray))
    return Prepared(row.where, pair.id, row.digest, payload, caption, image.array, text.array, text.truncated, given)


def _image(image: Any, preparation: Preparation) -> EncoderInput:
    return preparation.vector(image, "its image vector") if isinstance(image, np.ndarray) else preparation.image(image)


def _text(text: Any, preparation: Preparation) -> EncoderInput:
    if isinstance(text, np.ndarray):
        return preparation.vector(text, "its text vector")
    return preparation.text(text, "its caption")


def fetch_image(row: Loaded | Skipped | Rejected) -> Loaded | Skipped | Rejected:
    """A row with its image downloaded, if it is remote; any other row as it is."""
    if not isinstance(row, Loaded) or not isinstance(image := cast(object, row.pair.image), RemoteImage):
        return row
    try:
        return replace(row, pair=replace(row.pair, image=image.read()))
    except (RecoError, OSError) as error:
        return Rejected(row.where, str(error), row.pair.id)


def encode(rows: Sequence[Prepared | Skipped | Rejected], encoder: Encoder) -> list[WriterItem]:
    """A batch with its prepared rows encoded to vectors (D,); vectors are kept, other rows stay in their place.

    Raises:
        SessionError: the encoder failed.
    """
    prepared = [row for row in rows if isinstance(row, Prepared)]
    images = encoder.arrays([row.image for row in prepared], "image")
    texts = encoder.arrays([row.text for row in prepared], "text")
    made = (
        Encoded(row.where, row.id, row.digest, row.payload, row.caption, image, text, row.cut, row.given)
        for row, image, text in zip(prepared, images, texts, strict=True)
    )
    return [next(made) if isinstance(row, Prepared) else row for row in rows]
