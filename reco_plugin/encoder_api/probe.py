"""Fixed inputs, from whose vectors an API is recognised: its dimension, and which model it is.

Nobody outside can take the checksum of a model behind an API. Its vectors of the same inputs, though, stay the same
but for rounding, and another model's are elsewhere. They are kept in the fingerprint as a sketch: coordinates along a
few fixed random directions, from which the distance of two measurements is estimated.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np

from ..errors import ConfigError, InputError
from ..fingerprint import are_one_encoder, make_sketch, sketch_change
from ..types import Fingerprint, Vectors
from .calls import ApiClient, ServedModel

TEXTS = (
    "a photo of a red fox in the snow",
    "two wooden chairs beside a round table",
    "stainless steel water bottle, 750 ml",
    "an aerial view of a harbour at night",
    "the quick brown fox jumps over the lazy dog",
    "ein Fahrrad lehnt an einer Mauer",
)


def measure(client: ApiClient) -> tuple[Fingerprint, ServedModel | None]:
    """Send an API the fixed inputs; another `reco serve` names its own fingerprint.

    Raises:
        ConfigError: it refuses the simplest text: model, dialect or dimensions are wrong.
        SessionError: as in :meth:`ApiClient.embed`.
    """
    if (served := client.served_model()) is not None:
        return served.fingerprint, served
    try:
        return _fingerprint(client), None
    except InputError as error:
        raise ConfigError(f"{error}. Check model and dimensions in RECO_MODEL ({client.address})") from None


def describe_change(client: ApiClient, expected: Fingerprint) -> str | None:
    """What is not as it was when the API was measured; None if it is the same model.

    Raises:
        SessionError: the API cannot be called.
    """
    if (served := client.served_model()) is not None:
        found = served.fingerprint
        return None if are_one_encoder(found, expected) else f"it serves {found} now, and served {expected}"
    found = _fingerprint(client)
    if found.dimension != expected.dimension:
        return f"its vectors have {found.dimension} dimensions, and had {expected.dimension}"
    return sketch_change(expected.digest, found.digest)


def _fingerprint(client: ApiClient) -> Fingerprint:
    address = client.address
    texts = client.embed([text.encode() for text in TEXTS], "text")
    dimension = texts.shape[1]
    images: Vectors = np.empty((0, dimension), np.float32)
    if address.images:
        images = client.embed(_pictures(), "image", dimension)
    return Fingerprint(address.name, make_sketch(address.model or address.dialect, texts, images), dimension)


@cache
def _pictures() -> tuple[bytes, ...]:
    """Two pictures as PNG files."""
    from PIL import Image

    files = []
    for grey in (Image.radial_gradient("L"), Image.linear_gradient("L")):
        out = io.BytesIO()
        Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180))).resize((64, 64)).save(out, "PNG")
        files.append(out.getvalue())
    return tuple(files)
