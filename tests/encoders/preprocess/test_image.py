"""Images are bit-equal to open_clip's inference transform, and what cannot be read is refused by name."""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from pydantic import TypeAdapter, ValidationError

from reco_plugin.encoders.preprocess import ImageConfig, image_to_file, images_to_array
from reco_plugin.encoders.preprocess import image as image_module
from reco_plugin.errors import ImageError, InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error")]


def short_id(value: Any) -> str:
    """Name of a case that is the same in every process: no addresses of objects."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", " ".join(repr(value).split()))[:60]


STORED = TypeAdapter(ImageConfig)
"""Reads a config as the manifest does."""
SQUARE = ImageConfig((64, 64))
TARGETS = [(64, 64), (48, 80), (81, 47)]
INTERPOLATIONS: tuple[Any, ...] = ("bicubic", "bilinear")
RESIZE_MODES: tuple[Any, ...] = ("shortest", "longest", "squash")
CONFIGS = [
    ImageConfig(size, interpolation, mode, fill_color=7)
    for size, interpolation, mode in product(TARGETS, INTERPOLATIONS, RESIZE_MODES)
]
MODES = ["1", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]
SHAPES = [(1, 1), (1, 500), (337, 223), (640, 480), (63, 65), (40, 401)]  # width, height


def slow_twin(image: Image.Image, config: ImageConfig) -> npt.NDArray[np.uint8]:
    """open_clip's own transform, but for its last two steps (ToTensor and Normalize)."""
    from open_clip.transform import image_transform

    size = config.size[0] if config.size[0] == config.size[1] else config.size
    transform = image_transform(
        size,
        is_train=False,
        resize_mode=config.resize_mode,
        interpolation=config.interpolation,
        fill_color=config.fill_color,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's advice on transparency
        for step in transform.transforms[:-2]:
            image = step(image)
    return np.asarray(image)


def assert_same(source: Any, image: Image.Image, config: ImageConfig) -> None:
    try:
        expected = slow_twin(image, config)
    except ValueError as error:  # open_clip crashes where the shorter side is rounded to nothing
        assert str(error) == "height and width must be > 0"
        with pytest.raises(ImageError, match="too elongated"):
            images_to_array([source], config)
        return
    got = images_to_array([source], config)
    assert got.dtype == np.uint8 and got.shape == (1, *config.size, 3)
    np.testing.assert_array_equal(got[0], expected)


def noise(width: int, height: int, *channels: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Half smooth, half noise, so that both rounding and overshoot show."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    return (
        ramp.reshape(height, width, *(1 for _ in channels)) + rng.integers(0, 16, (height, width, *channels))
    ).astype(np.uint8) ^ (rng.random((height, width, *channels)) < 0.1).astype(np.uint8) * np.uint8(255)


def picture(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    grey = noise(width, height, seed=seed)
    match mode:
        case "I;16":
            return Image.fromarray(grey.astype(np.uint16) * 3)
        case "F":
            return Image.fromarray(grey.astype(np.float32) * 1.3 - 20)
        case "LA" | "RGBA":
            return Image.fromarray(noise(width, height, len(mode), seed=seed))
        case "CMYK":
            return Image.frombytes("CMYK", (width, height), noise(width, height, 4, seed=seed).tobytes())
    return Image.fromarray(noise(width, height, 3, seed=seed)).convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and ends after a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


@pytest.mark.torch
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_shape_equals_open_clip(mode: str) -> None:
    for shape in SHAPES:
        image = picture(mode, *shape)
        for config in CONFIGS:
            assert_same(image.copy(), image, config)


FILES = [
    ("JPEG", "CMYK", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {"transparency": bytes(range(256))}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {"transparency": 0}),
    ("TIFF", "F", {}),
    ("MPO", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (91, 60))]}),  # two-picture JPEG of a phone
]


@pytest.mark.torch
@pytest.mark.parametrize(("format", "mode", "options"), FILES, ids=short_id)
def test_files_equal_open_clip(format: str, mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    if format in {"WEBP", "AVIF"} and not features.check(format.lower()):
        pytest.skip(f"this PIL cannot write {format}")
    content = encoded(picture(mode, 91, 60), format, **options)
    path = tmp_path / "image"
    path.write_bytes(content)
    for config in CONFIGS:
        for source in (content, path, str(path)):
            with Image.open(io.BytesIO(content)) as image:
                assert_same(source, image, config)
    with Image.open(path) as image:
        assert_same(image, image.copy(), SQUARE)
        image.load()  # still open: it is the caller's


def test_a_file_that_is_made_smaller_keeps_its_orientation_and_no_colours_of_another_mode() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    for mode in ("RGB", "CMYK"):
        out = io.BytesIO()
        Image.new(mode, (3000, 20)).save(out, "JPEG", exif=exif, icc_profile=b"a profile")
        with Image.open(io.BytesIO(image_to_file(out.getvalue()))) as found:
            assert (found.format, found.size, dict(found.getexif())) == ("PNG", (2048, 14), {0x0112: 6})
            assert ("icc_profile" in found.info) == (mode == "RGB")
    with Image.open(io.BytesIO(image_to_file(Image.new("RGB", (3000, 20))))) as plain:
        assert not plain.getexif()


def test_the_middle_of_each_picture_is_kept_in_its_place_of_the_batch(tmp_path: Path) -> None:
    """By hand, for pictures whose shorter side has the size already or twice it."""
    wide, tall, large = picture("RGB", 100, 64), picture("RGB", 64, 90, seed=1), picture("RGB", 256, 128, seed=2)
    wide.save(tmp_path / "a.png")
    got = images_to_array((tmp_path / "a.png", encoded(tall, "PNG"), large), SQUARE)
    smaller = large.resize((128, 64), Image.Resampling.BICUBIC)
    expected = [wide.crop((18, 0, 82, 64)), tall.crop((0, 13, 64, 77)), smaller.crop((32, 0, 96, 64))]
    np.testing.assert_array_equal(got, [np.asarray(image) for image in expected])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_file_raises_nothing_but_image_errors(data: st.DataObject) -> None:
    content = bytearray(DAMAGED[data.draw(st.sampled_from(sorted(DAMAGED)))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's remarks on damaged metadata
        try:
            assert images_to_array([bytes(content)], SQUARE).shape == (1, 64, 64, 3)
        except ImageError as error:
            assert str(error).startswith("image 0 (")


DAMAGED = {format: encoded(picture("RGB", 31, 20), format) for format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"<html>not found</html>",
        "no/such.jpg",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",  # no Ghostscript
        np.zeros((9, 9, 3), np.uint8),
        "data:image/png;base64," + "A" * 100_000,
    ],
    ids=short_id,
)
def test_what_is_no_image_is_refused_by_its_place(source: Any) -> None:
    with pytest.raises(ImageError, match=r"^image 1 ") as caught:
        images_to_array([picture("RGB", 9, 9), source], SQUARE)
    assert len(str(caught.value)) < 2_000


def test_heic_without_its_extra_is_refused_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(ImageError, match=re.escape("pip install 'reco-plugin[heif]'")):
        images_to_array([b"\0\0\0\x1cftypheic" + bytes(64)], SQUARE)


@pytest.mark.fetched
def test_a_heic_photo_is_read_as_its_pixels_are(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    photo = picture("RGB", 301, 240)
    path = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(photo).save(path, quality=-1, chroma=444, matrix_coefficients=0)  # lossless
    np.testing.assert_array_equal(images_to_array([path], SQUARE), images_to_array([photo], SQUARE))
    with pytest.raises(ImageError, match="it is damaged"):
        images_to_array([path.read_bytes()[:40]], SQUARE)


@pytest.mark.parametrize("side", [8_001, 20_000])  # PIL itself says nothing, refuses
def test_bomb_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    pixels = rf"({side * side:,}|{side * side}) pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match=rf"image 0 \('.*bomb\.png'\) is too large.*{pixels}.*50,000,000"):
            images_to_array([path], SQUARE)


def test_thin_image_does_not_grow_into_a_bomb() -> None:
    """A mere 1.1 million pixels; open_clip makes 4.5 billion of them."""
    with pytest.raises(ImageError, match="too large"):
        images_to_array([Image.new("L", (1_100_000, 1))], SQUARE)


@pytest.mark.parametrize("images", [[], "cat.jpg"], ids=short_id)
def test_batch_must_be_a_list_with_images(images: Any) -> None:
    with pytest.raises(InputError, match=r"pass a list of images|pass at least one"):
        images_to_array(images, SQUARE)


@pytest.mark.parametrize("change", [{"size": (64, 0)}, {"interpolation": "nearest"}], ids=str)
def test_wrong_config_is_refused_where_it_is_read(change: dict[str, Any]) -> None:
    for config in CONFIGS:
        assert STORED.validate_json(json.dumps(config.to_dict())) == config
    with pytest.raises(ValidationError):
        STORED.validate_python(SQUARE.to_dict() | change)
