"""What data are, as a digest: the same contents give the same one, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...types import ImageInput, Records, Vectors


def digest_images(images: Sequence[ImageInput] | Vectors) -> str:
    """Of the images' contents, in order; reads every file.

    Raises:
        DataError: a file that cannot be read.
    """
    if isinstance(images, np.ndarray):
        return digest_arrays(images)
    return _digest(_content(image) for image in images)


def digest_texts(texts: Iterable[str]) -> str:
    """Of texts, in order."""
    return _digest(text.encode() for text in texts)


def digest_arrays(*arrays: Any) -> str:
    """Of arrays, in order: shapes and contents."""
    return _digest(part for array in map(np.ascontiguousarray, arrays) for part in (repr(array.shape).encode(), array))


def digest_records(records: Records) -> str:
    """Of pairs: ids, both vectors, and payloads."""
    payloads = (repr(sorted(payload.items())) for payload in records.payloads)
    return digest_texts([digest_texts(records.ids), digest_arrays(records.image, records.text), digest_texts(payloads)])


def _digest(parts: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def _content(image: ImageInput) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"{image} cannot be read: {error.strerror or error}") from None
    return f"{image.mode}{image.size}".encode() + image.tobytes()
