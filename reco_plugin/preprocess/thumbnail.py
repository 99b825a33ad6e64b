"""Small pictures for a page, as data URIs."""

from __future__ import annotations

import base64
import io

from ..defaults import MAX_PIXELS
from ..types import ImageInput
from .image import ImageConfig, images_to_array

_SIDE = 128


def thumbnail(image: ImageInput, config: ImageConfig | None = None, max_pixels: int = MAX_PIXELS) -> str:
    """Make a small picture for a payload's ``thumbnail``, which the playground shows.

    Example::

        shown = {"caption": "a red fox", "thumbnail": thumbnail("fox.jpg")}
        reco.memory.add([Pair("fox-1", "fox.jpg", "a red fox", shown)])

    Args:
        image: a path, the bytes of an image file, or a PIL image.
        config: the encoder's preprocessing (``reco.manifest.image``); None: the middle square.
        max_pixels: larger images are refused.

    Returns:
        A data URI of a square WebP, about 3 kB.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image

    base = config or ImageConfig((_SIDE, _SIDE))
    small = ImageConfig((_SIDE, _SIDE), base.interpolation, base.resize_mode, base.fill_color)
    packed = io.BytesIO()
    Image.fromarray(images_to_array([image], small, max_pixels)[0]).save(packed, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
