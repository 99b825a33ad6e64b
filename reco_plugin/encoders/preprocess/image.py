"""Images -> (B, H, W, 3) uint8, equal to open_clip's inference transform bit by bit.

Like open_clip, this resizes *before* it converts to RGB. So PIL resizes a palette image by nearest neighbour,
premultiplies alpha while it resizes, and clips 16 bits. The EXIF orientation is ignored, as in open_clip. Cropping
before resizing (``resize(box=...)``) would be faster, but a few values in ten thousand would differ by one.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...defaults import MAX_PIXELS
from ...errors import WHAT_IMAGES_ARE, ImageError, ImageTooLarge, InputError
from ...types import ImageInput
from ...values import IMAGE_SIDE, show

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
ResizeMode: TypeAlias = Literal["shortest", "longest", "squash"]
_Length: TypeAlias = Annotated[int, Field(ge=1, le=IMAGE_SIDE)]
Size: TypeAlias = tuple[int, int]
"""(height, width), as in open_clip; PIL's order is (width, height)."""
Decoding: TypeAlias = Callable[[int], AbstractContextManager[object]]
"""Makes the context in which an image is decoded, from the number of its pixels."""
Transform: TypeAlias = Literal["open_clip", "transformers"]
"""transformers converts to RGB before it resizes, and rounds the position of the crop down."""

_FORMATS = frozenset({"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"})
"""Allowed formats. PIL starts Ghostscript for EPS, and the header of an icon may not state the real size."""

_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_HEAD = 512  # bytes that identify a format
_MESSAGE_CHARS = 1_000  # characters of a path in a message


@dataclass(frozen=True)
class ImageConfig:
    """Image preprocessing of the encoder; reading a manifest checks the values. The graph applies mean and std."""

    size: tuple[_Length, _Length]
    """(height, width)."""
    interpolation: Interpolation = "bicubic"
    """Ignored for a non-square size with ``shortest``, which is always bicubic in open_clip."""
    resize_mode: ResizeMode = "shortest"  # shortest crops the centre, longest pads, squash does neither
    fill_color: Annotated[int, Field(ge=0, le=255)] = 0  # padding in every channel, or its palette index
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # per channel
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    like: Transform = "open_clip"  # library whose transform is reproduced

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values; ``like`` only if it is not the default, as in older fingerprints."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if (name, value) != ("like", "open_clip")}


def images_to_array(
    images: Sequence[ImageInput], config: ImageConfig, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode, resize and crop or pad images to (B, H, W, 3) uint8; of an animation, the first frame counts.

    Args:
        images: B paths, bytes of encoded images or PIL images; PIL images stay open.
        config: size and mode of resizing.
        max_pixels: limit of pixels by the header and while resizing, which is checked before decoding.

    Raises:
        InputError: ``images`` is empty or not a sequence.
        ImageError: an image is missing, damaged or too large; the message has its position.
    """
    if isinstance(images, str | bytes) or not hasattr(images, "__len__"):
        raise InputError(f"images is a single {type(images).__name__}; pass a list of images, [image]")
    if not len(images):
        raise InputError("images is empty; pass at least one image")
    pixels = np.empty((len(images), *config.size, 3), np.uint8)
    for index, source in enumerate(images):
        try:
            pixels[index] = image_to_array(source, config, max_pixels)
        except ImageError as error:
            raise error.about(f"image {index} ({name_image(source)})") from error.__cause__
    return pixels


def image_to_array(
    source: ImageInput, config: ImageConfig, max_pixels: int = MAX_PIXELS, decoding: Decoding = nullcontext
) -> npt.NDArray[np.uint8]:
    """Convert one image to (H, W, 3) uint8, as :func:`images_to_array`.

    Raises:
        ImageError: it is missing, damaged or too large; the message begins with "is", "has" or "cannot".
    """
    try:
        with open_image(source) as image, decoding(check_image(image, max_pixels, config)):
            resized = _resize(image, config)
            resized.info.pop("transparency", None)  # RGB has none, and PIL would warn
            match config.resize_mode:
                case "shortest":
                    resized = _crop(resized, config)
                case "longest":
                    resized = _pad(resized, config.size, config.fill_color)
            return np.asarray(resized.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # PIL raises about a dozen classes for damaged input
        raise _error_of(error, max_pixels) from error


@contextmanager
def open_image(source: ImageInput) -> Iterator[Image]:
    """Open an image without decoding it, and close it afterwards unless it is a PIL image."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, str | os.PathLike | bytes):
        try:
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())
        except UnidentifiedImageError as error:
            with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
                raise _unreadable(_describe_other(file.read(_HEAD))) from error
        with opened as image:
            yield image
    else:
        raise ImageError("is not an image", WHAT_IMAGES_ARE)


def _describe_other(head: bytes) -> str:
    """Describe a file that is no image, by its first bytes.

    >>> _describe_other(b"<!DOCTYPE html><title>404")
    'it is a web page'
    """
    words = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "it is damaged" if "HEIF" in _formats() else "it is HEIC: convert it, or pip install 'reco-plugin[heif]'"
    if words.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if words.startswith((b"<svg", b"<?xml")) and b"<svg" in words:
        return "it is SVG: convert it"
    return "it is PDF: convert it" if words.startswith(b"%pdf") else "its format is not known"


@cache
def _formats() -> tuple[str, ...]:
    """Return the allowed formats that this PIL can read, in the order of PIL; HEIC needs the extra ``heif``."""
    from PIL import Image

    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in Image.ID if name in _FORMATS)


def _resize(image: Image, config: ImageConfig) -> Image:
    from PIL.Image import Resampling

    height, width = _size_after(image.height, image.width, config)
    if not height or not width:
        raise ImageError(
            f"is too elongated: {_shape(image)} has no pixel left after fitting into {config.size}", "crop it"
        )
    if config.like == "transformers":
        image = image.convert("RGB")
    square = config.size[0] == config.size[1]
    bicubic = config.interpolation == "bicubic" or (config.resize_mode == "shortest" and not square)
    return image.resize((width, height), Resampling.BICUBIC if bicubic else Resampling.BILINEAR)


def check_image(image: Image, max_pixels: int, config: ImageConfig | None = None) -> int:
    """Check that an image has pixels, but not too many to decode, or to resize if a config is given.

    Returns:
        The largest number of pixels before or while it is resized.

    Raises:
        ImageError: it has no pixels, or too many.
    """
    if not image.height or not image.width:
        raise ImageError(f"has no pixels ({_shape(image)})", "leave it out")
    pixels = resized = image.height * image.width
    if config is not None:
        height, width = _size_after(image.height, image.width, config)
        resized = width * max(image.height, height)  # PIL changes the width first, so a thin image may grow
    for verb, count in ("has", pixels), ("would grow to", resized):
        if count > max_pixels:
            raise ImageTooLarge(
                f"is too large: {_shape(image)} {verb} {count:,} pixels, the limit is {max_pixels:,}",
                "shrink or crop it first, or raise the limit",
            )
    return max(pixels, resized)


def _size_after(height: int, width: int, config: ImageConfig) -> Size:
    """Return the size after resizing, before the crop or the padding.

    >>> _size_after(480, 640, ImageConfig((224, 224)))  # 224 * 640 / 480 = 298.67, rounded down by torchvision
    (224, 298)
    >>> _size_after(480, 640, ImageConfig((224, 224), resize_mode="longest"))
    (168, 224)
    """
    target_height, target_width = config.size
    if config.resize_mode == "squash":
        return config.size
    if config.resize_mode == "shortest" and target_height == target_width:
        longer = int(target_height * max(height, width) / min(height, width))
        return (longer, target_width) if width <= height else (target_height, longer)
    choose = max if config.resize_mode == "longest" else min
    ratio = choose(height / target_height, width / target_width)
    return round(height / ratio), round(width / ratio)


def _crop(image: Image, config: ImageConfig) -> Image:
    size, to_int = config.size, math.floor if config.like == "transformers" else round
    top, left = to_int((image.height - size[0]) / 2), to_int((image.width - size[1]) / 2)
    return image.crop((left, top, left + size[1], top + size[0]))


def _pad(image: Image, size: Size, fill: int) -> Image:
    from PIL import ImageOps

    rows, columns = size[0] - image.height, size[1] - image.width
    if not rows and not columns:
        return image
    bands = len(image.getbands())
    border = (columns // 2, rows // 2, (columns + 1) // 2, (rows + 1) // 2)
    padded = ImageOps.expand(image, border, fill if bands == 1 else (fill,) * bands)
    palette = image.getpalette() if image.mode == "P" else None
    if palette:
        padded.putpalette(palette)
    return padded


def name_image(source: object) -> str:
    """Describe an input for a message: its path, or its type and size."""
    from PIL import Image

    match source:
        case str() | os.PathLike():
            path = os.fspath(source)
            return (
                repr(path) if len(path) <= _MESSAGE_CHARS else show(path)
            )  # base64 in place of a path may be very long
        case bytes():
            return f"{len(source):,} bytes"
        case Image.Image():
            return f"{type(source).__name__} of mode {source.mode}"
    return type(source).__name__


def _error_of(error: Exception, max_pixels: int) -> ImageError:
    """Translate an exception of PIL."""
    from PIL import Image, UnidentifiedImageError

    match error:
        case FileNotFoundError():
            return ImageError("does not exist", "check the path (download a URL first and pass its bytes)")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return ImageTooLarge(f"is too large ({error})", f"the limit is {max_pixels:,} pixels; shrink it first")
    # the message is the same in every process, so it has no address of a buffer
    reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
    if isinstance(error, OSError) and error.strerror:  # without the path, which callers add
        reason = error.strerror
    return _unreadable(reason)


def _unreadable(reason: object) -> ImageError:
    return ImageError(f"cannot be read ({reason})", f"pass a complete file of one of {', '.join(sorted(_formats()))}")


def _shape(image: Image) -> str:
    return f"{image.width}x{image.height}"


_SENT_FORMATS = frozenset({"PNG", "JPEG", "WEBP"})
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_THUMBNAIL_SIDE = 128
SIDE = 2048
"""Longest side in pixels of an image for an API. It is the limit of some providers, and no CLIP reads more."""


def image_to_file(source: ImageInput, max_pixels: int = MAX_PIXELS, decoding: Decoding = nullcontext) -> bytes:
    """Return an image as a PNG, JPEG or WebP file, after decoding it once to check that it is complete.

    Args:
        source: path, bytes of an encoded image, or PIL image; of an animation, the first frame counts.
        max_pixels: limit of pixels, which is checked before decoding.
        decoding: makes the context in which the image is decoded.

    Raises:
        ImageError: it is missing, damaged or too large; the message begins with "is", "has" or "cannot".
    """
    try:
        with open_image(source) as image, decoding(check_image(image, max_pixels)):
            image.load()
            is_small = max(image.size) <= SIDE
            if is_small and image.format in _SENT_FORMATS and not getattr(image, "is_animated", False):
                if isinstance(source, bytes):
                    return source
                if isinstance(source, str | os.PathLike):
                    return Path(source).read_bytes()
            return _as_png(image)
    except ImageError:
        raise
    except Exception as error:  # PIL raises about a dozen classes for damaged input
        raise _error_of(error, max_pixels) from error


_ORIENTATION = 0x0112  # of EXIF


def _as_png(image: Image) -> bytes:
    """Return a PNG file with the EXIF orientation of the original."""
    from PIL.Image import Exif

    exif = Exif()
    if orientation := image.getexif().get(_ORIENTATION):
        exif[_ORIENTATION] = orientation
    profile = image.info.get("icc_profile") if image.mode in _PNG_MODES else None  # a CMYK profile would not fit
    converted = image if image.mode in _PNG_MODES else image.convert("RGB")
    if max(converted.size) > SIDE:
        converted = converted.convert("RGBA" if "A" in converted.getbands() else "RGB")
        converted.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    converted.save(out, "PNG", exif=exif, icc_profile=profile)
    return out.getvalue()


def thumbnail(image: ImageInput, config: ImageConfig | None = None, max_pixels: int = MAX_PIXELS) -> str:
    """Make a small image for the field ``thumbnail`` of a payload, which the playground shows.

    Example::

        payload = {"caption": "a red fox", "thumbnail": thumbnail("fox.jpg")}
        reco.memory.add([Pair("fox-1", "fox.jpg", "a red fox", payload)])

    Args:
        image: a path, the bytes of an image file, or a PIL image.
        config: the encoder's preprocessing (``reco.manifest.image``); None: the central square.
        max_pixels: limit of pixels.

    Returns:
        A data URI of a square WebP, about 3 kB.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image

    base = config or ImageConfig((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    small = ImageConfig((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), base.interpolation, base.resize_mode, base.fill_color)
    packed = io.BytesIO()
    Image.fromarray(images_to_array([image], small, max_pixels)[0]).save(packed, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
