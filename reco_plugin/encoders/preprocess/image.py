"""Images -> (B, H, W, 3) uint8, bit for bit as open_clip's inference transform makes them.

Its behaviour is kept on purpose: it resizes *before* converting to RGB (so a palette image is resized by nearest
neighbour, alpha is premultiplied while resizing and then dropped, 16 bits are clipped), and it does not turn an
image by its EXIF orientation. Cropping before resizing (``resize(box=...)``) is faster but not equal: PIL keeps the
box in single precision, and a few values in ten thousand are off by one.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
ResizeMode: TypeAlias = Literal["shortest", "longest", "squash"]
_Length: TypeAlias = Annotated[int, Field(ge=1, le=IMAGE_SIDE)]
Size: TypeAlias = tuple[int, int]
"""(height, width), as in open_clip; PIL's order is (width, height)."""
Decoding: TypeAlias = Callable[[int], AbstractContextManager[object]]
"""Takes the number of pixels of an image; the image is decoded within the context that it returns."""
Transform: TypeAlias = Literal["open_clip", "transformers"]
"""transformers converts to RGB before it resizes, and cuts the middle out a pixel higher where it lies between two."""

_FORMATS = frozenset({"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"})
"""Allowed formats. Not EPS, for which PIL starts Ghostscript, nor icons, whose header may not state the real size."""


_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_HEAD = 512  # bytes that tell what a file is

_SHOWN = 1_000  # characters of a path in a message


@dataclass(frozen=True)
class ImageConfig:
    """Image preprocessing of the encoder; a manifest's values are checked when it is read.

    Mean and std are for information, since they are part of the graph.
    """

    size: tuple[_Length, _Length]
    """(height, width)."""
    interpolation: Interpolation = "bicubic"
    """Ignored by open_clip, and so here, for a non-square size with ``shortest``: that is bicubic."""
    resize_mode: ResizeMode = "shortest"  # shortest crops the middle, longest pads around it, squash does neither
    fill_color: Annotated[int, Field(ge=0, le=255)] = 0  # of the padding, in every channel (or the palette index)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # per channel
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    like: Transform = "open_clip"  # whose transform is kept to

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-like values; the transform only where it is not open_clip's, as fingerprints were made."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if (name, value) != ("like", "open_clip")}


def images_to_array(
    images: Sequence[ImageInput], config: ImageConfig, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Decode, resize and crop or pad; (B, H, W, 3) uint8. Of an animation, the first frame.

    Args:
        images: B paths, bytes of encoded images or PIL images, in any mix; PIL images stay open.
        config: size and mode of resizing.
        max_pixels: an image with more, by its header or while resizing, is refused before it is decoded.

    Raises:
        InputError: ``images`` is empty or not a sequence.
        ImageError: one of them is missing, damaged or too large; the message says which one.
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
    """One image as :func:`images_to_array` makes it, (H, W, 3) uint8.

    Raises:
        ImageError: missing, damaged or too large; the message begins with "is", "has" or "cannot".
    """
    try:
        with open_image(source) as image, decoding(check_image(image, max_pixels, config)):
            resized = _resize(image, config)
            resized.info.pop("transparency", None)  # RGB has none; PIL would only warn
            match config.resize_mode:
                case "shortest":
                    resized = _crop(resized, config)
                case "longest":
                    resized = _pad(resized, config.size, config.fill_color)
            return np.asarray(resized.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # damaged input makes PIL raise about a dozen kinds
        raise understood(error, max_pixels) from error


@contextmanager
def open_image(source: ImageInput) -> Iterator[Image]:
    """Open the image without decoding; closes it afterwards if it was opened here."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, str | os.PathLike | bytes):
        try:
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())
        except UnidentifiedImageError as error:
            head = source[:_HEAD] if isinstance(source, bytes) else _head_of(source)
            raise _unreadable(_what_else(head)) from error
        with opened as image:
            yield image
    else:
        raise ImageError("is not an image", WHAT_IMAGES_ARE)


def _head_of(path: str | os.PathLike[str]) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_HEAD)


def _what_else(head: bytes) -> str:
    """What a file is whose first bytes are those of no image, for a message.

    >>> _what_else(b"<!DOCTYPE html><title>404")
    'it is a web page'
    """
    words = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return "it is HEIC: convert it"
    if words.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if words.startswith((b"<svg", b"<?xml")) and b"<svg" in words:
        return "it is SVG: convert it"
    return "it is PDF: convert it" if words.startswith(b"%pdf") else "its format is not known"


@cache
def _formats() -> tuple[str, ...]:
    """The allowed formats that this PIL can read, in its order."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name in _FORMATS)


def _resize(image: Image, config: ImageConfig) -> Image:
    from PIL.Image import Resampling

    height, width = _size_after(image.height, image.width, config)
    if not height or not width:
        raise ImageError(
            f"is too elongated: of {_shape(image)}, fitted into {config.size}, no pixel is left", "crop it"
        )
    if config.like == "transformers":
        image = image.convert("RGB")
    square = config.size[0] == config.size[1]
    bicubic = config.interpolation == "bicubic" or (config.resize_mode == "shortest" and not square)
    return image.resize((width, height), Resampling.BICUBIC if bicubic else Resampling.BILINEAR)


def check_image(image: Image, max_pixels: int, config: ImageConfig | None = None) -> int:
    """Refuse an image without pixels, or with too many to decode, or to resize if a config is given.

    Returns:
        The most pixels that it has at once, before or while it is resized.

    Raises:
        ImageError: see above.
    """
    if not image.height or not image.width:
        raise ImageError(f"has no pixels ({_shape(image)})", "leave it out")
    has = grows_to = image.height * image.width
    if config is not None:
        height, width = _size_after(image.height, image.width, config)
        grows_to = width * max(image.height, height)  # PIL changes the width first, so a thin image may grow
    for verb, pixels in ("has", has), ("would grow to", grows_to):
        if pixels > max_pixels:
            raise ImageTooLarge(
                f"is too large: {_shape(image)} {verb} {pixels:,} pixels, the limit is {max_pixels:,}",
                "shrink or crop it first, or raise the limit",
            )
    return max(has, grows_to)


def _size_after(height: int, width: int, config: ImageConfig) -> Size:
    """Size after resizing, before the crop or the padding.

    >>> _size_after(480, 640, ImageConfig((224, 224)))  # 224 * 640 / 480 = 298.67, cut by torchvision
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
    size, above = config.size, math.floor if config.like == "transformers" else round
    top, left = above((image.height - size[0]) / 2), above((image.width - size[1]) / 2)
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
    """What was given as an image, for a message: a path, or what else it is."""
    from PIL import Image

    match source:
        case str() | os.PathLike():
            path = os.fspath(source)
            return repr(path) if len(path) <= _SHOWN else show(path)  # a path of 10,000 characters is none
        case bytes():
            return f"{len(source):,} bytes"
        case Image.Image():
            return f"{type(source).__name__} of mode {source.mode}"
    return type(source).__name__


def understood(error: Exception, max_pixels: int) -> ImageError:
    """What PIL raised, in words for people."""
    from PIL import Image, UnidentifiedImageError

    match error:
        case FileNotFoundError():
            return ImageError("does not exist", "check the path (download a URL first and pass its bytes)")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return ImageTooLarge(f"is too large ({error})", f"the limit here is {max_pixels:,} pixels; shrink it first")
    # the same words in every process: no address of a buffer, and formats not in the order in which they were loaded
    said = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
    if isinstance(error, OSError) and error.strerror:  # without the path, which stands before it
        said = error.strerror
    return _unreadable(said)


def _unreadable(why: object) -> ImageError:
    return ImageError(f"cannot be read ({why})", f"pass a complete file of one of {', '.join(sorted(_formats()))}")


def _shape(image: Image) -> str:
    return f"{image.width}x{image.height}"


_KEPT = frozenset({"PNG", "JPEG", "WEBP"})
_OF_PNG = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_SMALL = 128  # side of a picture for a page
SIDE = 2048
"""Pixels; larger pictures are made smaller, since providers refuse them or do the same (Titan's limit; no CLIP reads
more)."""


def image_to_file(source: ImageInput, max_pixels: int = MAX_PIXELS, decoding: Decoding = nullcontext) -> bytes:
    """One image as the bytes of a PNG, JPEG or WebP file, decoded once to see that it is whole.

    Args:
        source: path, bytes of an encoded image, or PIL image; of an animation, the first frame counts.
        max_pixels: an image with more is refused before it is decoded.
        decoding: makes the context in which the image is decoded.

    Raises:
        ImageError: missing, damaged or too large; the message begins with "is", "has" or "cannot".
    """
    try:
        with open_image(source) as image, decoding(check_image(image, max_pixels)):
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
