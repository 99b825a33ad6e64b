"""How a model's own files have its pixels prepared: ``preprocessor_config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..preprocess import ImageConfig
from ..preprocess.image import Interpolation

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_RESAMPLE: dict[object, Interpolation] = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
_BYTE = 1 / 255


@dataclass(frozen=True)
class Pixels:
    """Preprocessing of images: what is done before the graph, and the scale that the graph itself applies."""

    image: ImageConfig
    scale: float  # a pixel times this, before mean and std; 1 where the graph takes bytes


def read_pixels(config: Mapping[str, Any], path: object) -> Pixels:
    """Read how pixels are prepared.

    Args:
        config: content of the file.
        path: of the file, for messages.

    Raises:
        ConfigError: a step that is not done here, one that the file leaves open, or a value that cannot be one.
    """
    try:
        return _read_pixels(config, path)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} holds a value that cannot be read ({error}): mend it, or fetch it again") from None


def _read_pixels(config: Mapping[str, Any], path: object) -> Pixels:
    config = config.get("image_processor", config)
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    if "max_num_patches" in config:
        raise ConfigError(
            f"{path}: {kind or 'it'} gives the graph patches of any shape (NaFlex), which is not supported: take the "
            "same model of a fixed size"
        )
    for step in ("do_flip_channel_order", "do_pad", "do_thumbnail", "do_align_long_axis"):
        if config.get(step):
            raise ConfigError(f"{path}: {step} is not supported, so that vectors would be wrong")
    if not config.get("do_resize", True):
        raise ConfigError(f"{path} does not say to which size images are resized: set do_resize and size")
    size, mode = _size(config, kind, path)
    mean, std = _normalisation(config, kind, path)
    image = ImageConfig(size, _resample(config, kind, path), mode, 0, mean, std, like="transformers")
    return Pixels(image, float(config.get("rescale_factor", _BYTE)) if config.get("do_rescale", True) else 1.0)


def _size(config: Mapping[str, Any], kind: str, path: object) -> tuple[tuple[int, int], Any]:
    """Height and width that the graph gets, and whether the middle is cut out or the picture squashed."""
    size, crop = config.get("size"), config.get("crop_size")
    cropped = config.get("do_center_crop", crop is not None)
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        squashed = (int(size["height"]), int(size["width"]))
        if cropped and _pair(crop) != squashed:
            raise ConfigError(f"{path}: resizing to {squashed} and then cutting {crop} out of it is not supported")
        return squashed, "squash"
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if not isinstance(shortest, int):
        raise ConfigError(f"{path}: size {size!r} is neither shortest_edge nor height and width")
    if not cropped:
        if not isinstance(size, Mapping) and not kind.startswith(("CLIP", "ChineseCLIP")):
            return (shortest, shortest), "squash"  # a number of older files
        raise ConfigError(f"{path}: without a crop, pictures keep their shape, and a batch needs one: set crop_size")
    if _pair(crop if crop is not None else shortest) != (shortest, shortest):
        raise ConfigError(f"{path}: resizing to {shortest} and then cutting {crop} out of it is not supported")
    return (shortest, shortest), "shortest"


def _pair(size: Any) -> tuple[Any, Any] | None:
    if isinstance(size, Mapping):
        return size.get("height"), size.get("width")
    return (size, size) if isinstance(size, int) else None


def _resample(config: Mapping[str, Any], kind: str, path: object) -> Interpolation:
    found = config.get("resample", 3 if kind.startswith(("CLIP", "ChineseCLIP", "Siglip")) else None)
    if found not in _RESAMPLE:
        raise ConfigError(
            f"{path}: resample {found!r} is not supported, only 2 (bilinear) and 3 (bicubic); where the file says "
            "nothing, set what the model was trained with"
        )
    return _RESAMPLE[found]


def _normalisation(config: Mapping[str, Any], kind: str, path: object) -> tuple[Any, Any]:
    if not config.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    usual = _CLIP if kind.startswith(("CLIP", "ChineseCLIP")) else (None, None)
    mean, std = config.get("image_mean", usual[0]), config.get("image_std", usual[1])
    if mean is None or std is None:
        raise ConfigError(f"{path} has no image_mean or image_std: set them, or do_normalize to false")
    return _three(mean, "image_mean", path), _three(std, "image_std", path)


def _three(values: Any, name: str, path: object) -> tuple[float, float, float]:
    numbers = [values] * 3 if isinstance(values, int | float) else values
    if not isinstance(numbers, list | tuple) or len(numbers) != 3:
        raise ConfigError(f"{path}: {name} {values!r} is not one number for each of three channels")
    red, green, blue = map(float, numbers)
    return red, green, blue
