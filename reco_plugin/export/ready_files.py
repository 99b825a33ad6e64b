"""The files of ready ONNX towers, in a folder or a hub repository of optimum or transformers.js.

::

    transformers.js   onnx/vision_model.onnx, onnx/text_model.onnx
    optimum           model.onnx with both towers, at the top or in onnx/
    both of them      config.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ..encoders.preprocess import BUCKETS, ImageConfig, TextConfig
from ..encoders.preprocess.image import Interpolation
from ..encoders.preprocess.text import Clean
from ..errors import ArtifactError, ConfigError, DataError, need
from ..files import in_home
from ..values import CONTEXT_LENGTH
from .export_options import AddOptions

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_HUB = "hf://"
_LAYOUTS = (
    ("transformers.js", "onnx/vision_model.onnx", "onnx/text_model.onnx"),
    ("transformers.js", "vision_model.onnx", "text_model.onnx"),
    ("optimum", "onnx/model.onnx", "onnx/model.onnx"),
    ("optimum", "model.onnx", "model.onnx"),
)
"""Name, file of the image tower, file of the text tower; the first complete layout counts."""


@dataclass(frozen=True)
class Files:
    """The files of a model."""

    name: str  # readable name of the encoder
    layout: str  # name of the layout
    image: Path
    text: Path
    tokenizer: Path
    preprocess: Path
    preprocessing: dict[str, Any]  # content of ``preprocess``
    config: dict[str, Any]  # config.json
    tokenizing: dict[str, Any]  # tokenizer_config.json and special_tokens_map.json


def find_files(source: str, options: AddOptions) -> Files:
    """Find the files of a model, and download those of a repository.

    Raises:
        ConfigError: there is no such folder, its layout is unknown, or a file is missing.
        DataError: the hub cannot be reached or has no such repository, or a file cannot be read.
    """
    folder, repository = in_home(source), source.removeprefix(_HUB)
    if folder.is_dir():
        names = {path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("onnx/*"))}
        layout, image, text = _layout(source, names)
    elif folder.exists() or not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{source} is neither a folder nor the name of a repository, as in org/name")
    else:
        hub: Any = need("huggingface_hub", f"reading {repository} from the hub", "import")
        names = set(_fetched(repository, lambda: hub.HfApi().list_repo_files(repository, revision=options.revision)))
        layout, image, text = _layout(repository, names)
        how: Any = {"revision": options.revision, "allow_patterns": ["*.json", f"{image}*", f"{text}*"]}
        folder = Path(_fetched(repository, lambda: hub.snapshot_download(repository, **how)))
    tokenizer = folder / "tokenizer.json"
    kinds = [kind for kind in ("preprocessor_config.json", "processor_config.json") if kind in names]
    preprocess = folder / kinds[0] if kinds else None
    if preprocess is None or not tokenizer.is_file():
        missing = "preprocessor_config.json" if preprocess is None else tokenizer.name
        raise ConfigError(f"{source} has no {missing}: copy it from the model that was exported")
    return Files(
        repository.rstrip("/").split("/")[-1],
        layout,
        folder / image,
        folder / text,
        tokenizer,
        preprocess,
        read_json(preprocess),
        _read(folder / "config.json"),
        _read(folder / "special_tokens_map.json") | _read(folder / "tokenizer_config.json"),
    )


def _layout(source: str, names: set[str]) -> tuple[str, str, str]:
    match = next((layout for layout in _LAYOUTS if {layout[1], layout[2]} <= names), None)
    if match is None:
        known = ", ".join(f"{image} ({name})" for name, image, _ in _LAYOUTS)
        raise ConfigError(
            f"{source} has none of the known layouts: {known}. Convert a checkpoint of transformers by: optimum-cli "
            f"export onnx --task zero-shot-image-classification --model {source} FOLDER"
        )
    return match


def _fetched(repository: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # its exceptions have no common base
        raise DataError(
            f"{repository} cannot be read from the hub ({type(error).__name__}: {str(error).splitlines()[0]}): check "
            f"its name and --revision; for one of yours, hf auth login; or hf download {repository} --local-dir FOLDER "
            "on a machine that reaches it, and give that folder"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """Read an optional file of settings."""
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
        DataError: the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object, but a {type(content).__name__}: fetch it again")
    return content


_RESAMPLE: dict[object, Interpolation] = {2: "bilinear", 3: "bicubic"}
_LONGER = (128, 256, 512)
"""Lengths that a batch is cut to for towers with a longer context than CLIP."""
_UPPER = "ABC"  # changed by a tokenizer that lowers the case


@contextmanager
def _readable(what: object) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{what} has an invalid value ({error}): correct it, or fetch it again") from None


def read_pixels(config: Mapping[str, Any], path: object) -> ImageConfig:
    """Read the preprocessing of images.

    Args:
        config: content of ``preprocessor_config.json``.
        path: path of that file, for messages.

    Raises:
        ConfigError: an unsupported step, a missing value, or an invalid value.
    """
    with _readable(path):
        config = config.get("image_processor", config)
        if "max_num_patches" in config:
            raise ConfigError(
                f"{path}: patches of any shape (NaFlex) are not supported: take the variant of the model with a fixed "
                "size"
            )
        for step in ("do_flip_channel_order", "do_pad", "do_thumbnail", "do_align_long_axis"):
            if config.get(step):
                raise ConfigError(f"{path}: {step} is not supported, and vectors without it would be wrong")
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise ConfigError(f"{path}: {step} is false, and an encoder without it is not supported")
        if abs(float(config.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
            raise ConfigError(f"{path}: rescale_factor {config['rescale_factor']} is not 1/255")
        if (resample := config.get("resample")) not in _RESAMPLE:
            raise ConfigError(f"{path}: resample {resample!r} is not supported, only 2 (bilinear) and 3 (bicubic)")
        size, mode = _size(config, path)
        mean, std = (_three(config.get(name), name, path) for name in ("image_mean", "image_std"))
        return ImageConfig(size, _RESAMPLE[resample], mode, 0, mean, std, like="transformers")


def _size(config: Mapping[str, Any], path: object) -> tuple[tuple[int, int], Any]:
    """Return height and width of the graph's input, and the resize mode: shortest or squash."""
    size, crop = config.get("size"), config.get("crop_size")
    cropped = config.get("do_center_crop", crop is not None)
    if isinstance(size, Mapping) and "height" in size:
        squashed = (int(size["height"]), int(size["width"]))
        if not cropped or _pair(crop) == squashed:
            return squashed, "squash"
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if isinstance(shortest, int) and cropped and _pair(crop) == (shortest, shortest):
        return (shortest, shortest), "shortest"
    raise ConfigError(
        f"{path}: size {size!r} with crop_size {crop!r} is not supported, only height and width, or shortest_edge "
        "with a crop of the same size"
    )


def _pair(size: Any) -> tuple[Any, Any]:
    return (size["height"], size["width"]) if isinstance(size, Mapping) else (size, size)


def _three(values: Any, name: str, path: object) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3:
        raise ConfigError(f"{path}: {name} {values!r} must have one number for each of three channels")
    red, green, blue = map(float, values)
    return red, green, blue


@dataclass(frozen=True)
class TextSteps:
    """A tokenizer and its configuration."""

    tokenizer_json: str
    text: TextConfig  # not dynamic yet
    masked: bool
    """Whether the attention mask hides padding, as in the training of the model."""


def read_texts(files: Files) -> TextSteps:
    """Read the preprocessing of texts.

    Raises:
        ConfigError: a missing or an invalid value.
        ArtifactError: the tokenizer cannot be read.
    """
    with _readable(f"config.json or tokenizer_config.json beside {files.tokenizer}"):
        return _read_texts(files)


def _read_texts(files: Files) -> TextSteps:
    backend, config = _load(files), files.tokenizing
    siglip = str(files.config.get("model_type", "")).startswith("siglip")
    # the tokenizer of SigLIP2 has "left", but its processor pads right
    side = "right" if siglip else config.get("padding_side") or "right"
    limit, pad = _length(files), config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, Mapping) else pad
    pad_id = backend.token_to_id(pad) if isinstance(pad, str) else None
    if pad_id is None:
        raise ConfigError(f"{files.tokenizer} has no token {pad!r}, which is the pad_token of tokenizer_config.json")
    backend.no_padding()  # else the padding would be taken for the end token
    backend.no_truncation()
    frame = backend.encode("").ids
    end_id = pad_id if frame and frame[-1] == pad_id else None
    backend.enable_truncation(limit, direction=config.get("truncation_side") or "right")
    backend.enable_padding(length=limit, direction=side, pad_id=pad_id, pad_token=pad)
    buckets = (*BUCKETS, *(one for one in _LONGER if one > BUCKETS[-1]))
    text = TextConfig("hf", limit, _clean(files, backend, siglip=siglip), pad_id, end_id, buckets=buckets)
    names = config.get("model_input_names")
    # SigLIP attends to padding, as in its training
    masked = (names is None or "attention_mask" in names) and not siglip
    return TextSteps(backend.to_str(), text, masked)


def _load(files: Files) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(files.tokenizer.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise ArtifactError(f"{files.tokenizer} is not a file of the tokenizers library ({error})") from None


def _length(files: Files) -> int:
    """Return the context length: the smallest value of the files."""
    config = files.config.get("text_config", files.config)
    limits = (config.get("max_position_embeddings"), files.tokenizing.get("model_max_length"))
    lengths = [int(value) for value in limits if isinstance(value, int | float) and 0 < value <= CONTEXT_LENGTH]
    if not lengths:
        raise ConfigError(
            f"no file beside {files.tokenizer} has the context length: set max_position_embeddings in config.json or "
            "model_max_length in tokenizer_config.json"
        )
    return min(lengths)


def _clean(files: Files, backend: tokenizers.Tokenizer, *, siglip: bool) -> Clean:
    """Return the cleaning before the tokenizer, which may lower the case by itself."""
    normalised = backend.normalizer.normalize_str(_UPPER) if backend.normalizer else _UPPER
    if _UPPER not in normalised:
        return "none"
    # the tokenizer class of the first SigLIP drops punctuation, and its file does not
    if siglip and str(files.tokenizing.get("tokenizer_class", "")).startswith("SiglipTokenizer"):
        return "canonicalize"
    return "case" if files.tokenizing.get("do_lower_case") or siglip else "none"
