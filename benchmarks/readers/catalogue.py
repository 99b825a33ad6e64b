"""The catalogue: all drawings of the quickstart and of the other sets, as PNG files with captions."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..pretrain.generic import load_with_generic
from ..sets import LOADERS


@dataclass(frozen=True)
class Entry:
    """One pair.

    Attributes:
        key: nine digits, as img2dataset numbers what it fetches; also the pair's id.
        image: bytes of a PNG.
        caption: its text.
        style: who drew it; becomes payload.
    """

    key: str
    image: bytes
    caption: str
    style: str


def entries(cache: Path, limit: int | None = None) -> Iterator[Entry]:
    """The drawings one by one; packages are fetched and drawn into the cache where it lacks them."""
    for place, (pixels, caption, style) in enumerate(_drawings(cache / "quickstart")):
        if limit is not None and place >= limit:
            return
        yield Entry(f"{place:09d}", _png(pixels), caption, style)


def _drawings(cache: Path) -> Iterator[tuple[npt.NDArray[np.uint8], str, str]]:
    emoji = load_with_generic(cache)
    for image, item in zip(emoji.images, emoji.items, strict=True):
        yield image, item.caption, item.style
    for load in LOADERS.values():
        more = load(cache)
        for image, item in zip(more.images, more.items, strict=True):
            yield image, item.caption, item.style


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
