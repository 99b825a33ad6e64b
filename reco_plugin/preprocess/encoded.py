"""Images as the bytes of files: what any API reads, PNG, JPEG or WebP as they are; and small pictures for a page."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..defaults import MAX_PIXELS
from ..errors import ImageError
from ..types import ImageInput
from .image import ImageConfig, check_image, images_to_array, open_image, understood

if TYPE_CHECKING:
    from PIL.Image import Image

_KEPT = frozenset({"PNG", "JPEG", "WEBP"})
_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_SMALL = 128  # side of a picture for a page
SIDE = 2048
"""Pixels; larger pictures are made smaller, since providers refuse them or do the same (Titan's limit; no CLIP reads
more)."""


def image_to_file(source: ImageInput, max_pixels: int = MAX_PIXELS) -> bytes:
    """One image as the bytes of a PNG, JPEG or WebP file, decoded once to see that it is whole.

    Args:
        source: path, bytes of an encoded image, or PIL image; of an animation, the first frame counts.
        max_pixels: an image with more is refused before it is decoded.

    Raises:
        ImageError: missing, damaged or too large; the message begins with "is", "has" or "cannot".
    """
    try:
        with open_image(source) as image:
            check_image(image, max_pixels)
            image.load()
            small = max(image.size) <= SIDE
            if small and image.format in _KEPT and not getattr(image, "is_animated", False):
                if isinstance(source, bytes):
                    return source
                if isinstance(source, str | os.PathLike):
                    return Path(source).read_bytes()
            return _as_png(image)
    except ImageError:
        raise
    except Exception as error:  # damaged input makes PIL raise about a dozen kinds
        raise understood(error, max_pixels) from error


_ORIENTATION = 0x0112  # of EXIF


def _as_png(image: Image) -> bytes:
    """A PNG file that is turned as the original says it is, where it does."""
    from PIL.Image import Exif

    exif = Exif()
    if turned := image.getexif().get(_ORIENTATION):
        exif[_ORIENTATION] = turned
    colours = image.info.get("icc_profile") if image.mode in _OF_PNG else None  # one of CMYK would not fit
    kept = image if image.mode in _OF_PNG else image.convert("RGB")
    if max(kept.size) > SIDE:
        kept = kept.convert("RGBA" if "A" in kept.getbands() else "RGB")
        kept.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    kept.save(out, "PNG", exif=exif, icc_profile=colours)
    return out.getvalue()


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

    base = config or ImageConfig((_SMALL, _SMALL))
    small = ImageConfig((_SMALL, _SMALL), base.interpolation, base.resize_mode, base.fill_color)
    packed = io.BytesIO()
    Image.fromarray(images_to_array([image], small, max_pixels)[0]).save(packed, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
