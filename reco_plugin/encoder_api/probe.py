"""Fixed inputs, from whose vectors an API is recognised: its dimension, and which model it is.

Nobody outside can take the checksum of a model behind an API. Its vectors of the same inputs, though, stay the same
but for rounding, and another model's are elsewhere. They are kept in the fingerprint as a sketch: coordinates along a
few fixed random directions, from which the distance of two measurements is estimated.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..errors import ConfigError, InputError
from ..fingerprint import are_one_encoder, make_sketch, sketch_change
from ..types import Fingerprint, Vectors
from .address import ApiAddress
from .calls import ApiClient, Told

TEXTS = (
    "a photo of a red fox in the snow",
    "two wooden chairs beside a round table",
    "stainless steel water bottle, 750 ml",
    "an aerial view of a harbour at night",
    "the quick brown fox jumps over the lazy dog",
    "ein Fahrrad lehnt an einer Mauer",
)
_SIDE = 64


@dataclass(frozen=True)
class RecognisedApi:
    """What an API turned out to be."""

    address: ApiAddress
    fingerprint: Fingerprint
    told: Told | None = None  # by another `reco serve`

    @property
    def matryoshka(self) -> tuple[int, ...]:
        """Dimensions that its vectors may be cut to: as the address says, or another `reco serve`."""
        told = () if self.told is None else self.told.matryoshka
        return self.address.matryoshka or told


def measure(provider: ApiClient) -> RecognisedApi:
    """Ask an API for the fixed inputs; of another `reco serve`, for its own fingerprint.

    Raises:
        ConfigError: it refuses the simplest text: model, dialect or dimensions are wrong.
        SessionError: as in :meth:`ApiClient.embed`.
    """
    address = provider.address
    if (told := provider.get_identity()) is not None:
        return RecognisedApi(address, told.fingerprint, told)
    with _wrong_address(address):
        texts = provider.embed([text.encode() for text in TEXTS], "text")
    return RecognisedApi(address, _fingerprint(address, texts, _images(provider, texts.shape[1])))


def describe_change(provider: ApiClient, expected: Fingerprint) -> str | None:
    """What is not as it was when the API was measured; None if it is the same model.

    Raises:
        SessionError: the API cannot be asked.
    """
    if (told := provider.get_identity()) is not None:
        found = told.fingerprint
        return None if are_one_encoder(found, expected) else f"it serves {found} now, and served {expected}"
    texts = provider.embed([text.encode() for text in TEXTS], "text")
    if texts.shape[1] != expected.dimension:
        return f"its vectors have {texts.shape[1]} dimensions, and had {expected.dimension}"
    images = _images(provider, expected.dimension)
    return sketch_change(expected.digest, _fingerprint(provider.address, texts, images).digest)


def _images(provider: ApiClient, dimension: int) -> Vectors:
    """Vectors (I, D) of the drawings; (0, D) where it takes no images."""
    if provider.address.images == "none":
        return np.empty((0, dimension), np.float32)
    return provider.embed(_pictures(), "image", dimension)


def _fingerprint(address: ApiAddress, texts: Vectors, images: Vectors) -> Fingerprint:
    return Fingerprint(address.name, make_sketch(address.model or address.dialect, texts, images), texts.shape[1])


@contextmanager
def _wrong_address(address: ApiAddress) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise ConfigError(f"{error}. Check model and dimensions in RECO_ENCODER ({address})") from None


@cache
def _pictures() -> tuple[bytes, bytes]:
    """Two drawings as PNG files."""
    return _file(_pixels(0)), _file(_pixels(1))


def _pixels(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 3): a red disc on white, or blue and yellow stripes."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    middle = (_SIDE - 1) / 2
    mask = (x - middle) ** 2 + (y - middle) ** 2 < (_SIDE / 3) ** 2 if number == 0 else (x + y) // 8 % 2 == 0
    front, back = ((200, 30, 30), (255, 255, 255)) if number == 0 else ((30, 60, 200), (240, 210, 40))
    return np.where(mask[..., None], front, back).astype(np.uint8)


def _file(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
