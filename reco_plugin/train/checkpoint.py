"""Checkpoints of transformers: any model with ``get_image_features`` and ``get_text_features``, as a frozen CLIP.

Its own tokenizer and image processor are the reference: what is exported must give the same ids and pixels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..artifact import Manifest, Policy
from ..errors import ConfigError, need
from ..preprocess import Tokenizer, images_to_array
from ..towers.options import AddOptions
from ..towers.pixels import Pixels, read_pixels
from ..towers.source import Files
from ..towers.texts import TextSteps, read_texts
from ..values import TEMPLATES, check_templates
from .encoder import FrozenClip, cut_where_exact, freeze
from .export import Card, export
from .parity import Parity, sample_images, sample_texts
from .precision import quiet
from .recipe import Serving

_PIXEL = 1e-5  # of a normalised pixel: rounding
_BYTE = 1 / 255
_GIVE_ONNX = "import its ONNX towers instead, where it has them: reco model add --help"


class CheckpointModel(nn.Module):
    """A model of transformers with open_clip's two functions; the mask of padding is made of the ids."""

    def __init__(self, model: Any, texts: TextSteps) -> None:
        super().__init__()
        self.model = model
        self.pad_id, self.ends, self.masked = texts.text.pad_id, texts.text.end_id is not None, texts.masked

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Vectors (B, D) of normalised pixels (B, 3, H, W)."""
        return _vector(self.model.get_image_features(pixel_values=pixels))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Vectors (B, D) of ids (B, L)."""
        mask = self.mask(tokens) if self.masked else None
        return _vector(self.model.get_text_features(input_ids=tokens, attention_mask=mask))

    def mask(self, tokens: Tensor) -> Tensor:
        """1 for each token (B, L) up to the last that is no padding, and one more where padding ends a text."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        needed = ((tokens != self.pad_id) * (places + 1)).amax(1, keepdim=True) + int(self.ends)
        return (places[None] < needed).long()


def _vector(found: Any) -> Tensor:
    """The vectors in what transformers returns, which was a tensor before version 5."""
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return vectors


@dataclass(frozen=True)
class AddedCheckpoint:
    """What was exported."""

    manifest: Manifest
    parities: list[Parity]


def add_checkpoint(files: Files, options: AddOptions, out: Path, serving: Serving | None = None) -> AddedCheckpoint:
    """Export a checkpoint of transformers as a model folder.

    Raises:
        ConfigError: it has no such towers, needs code of its own, or is prepared in a way that cannot be exported.
        ArtifactError: the parity check failed; nothing was written.
    """
    clip = load_checkpoint(files, options)
    card = Card(
        Policy(), "reco", check_templates(options.templates) or TEMPLATES, "", options.licenses, options.matryoshka
    )
    parities = export(clip, None, out, card=card, precision=options.precision, serving=serving)
    return AddedCheckpoint(Manifest.model_validate_json((out / "manifest.json").read_text(encoding="utf-8")), parities)


def load_checkpoint(files: Files, options: AddOptions) -> FrozenClip:
    """Load a checkpoint, from the folder of its weights or the hub.

    Raises:
        ConfigError: see :func:`add_checkpoint`.
    """
    transformers: Any = need("transformers", "a checkpoint of transformers", "train")
    where = str(files.image.parent)
    if "auto_map" in files.config:
        raise ConfigError(f"{where} needs code of its own repository (auto_map), which is not run: {_GIVE_ONNX}")
    pixels = read_pixels(files.preprocessing, files.preprocess)
    if pixels.scale != _BYTE:
        raise ConfigError(f"{files.preprocess}: rescale_factor {pixels.scale} is not 1/255: {_GIVE_ONNX}")
    with _loading(where):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, revision=options.revision)
        model = transformers.AutoModel.from_pretrained(where, revision=options.revision, dtype=torch.float32)
        processor = transformers.AutoImageProcessor.from_pretrained(where, revision=options.revision, backend="pil")
    lacking = [name for name in ("get_image_features", "get_text_features") if not hasattr(model, name)]
    if lacking:
        raise ConfigError(f"{where} is a {type(model).__name__}, which has no {' and no '.join(lacking)}")
    with TemporaryDirectory() as folder:  # with what the tokenizer's class adds to its file
        tokenizer.save_pretrained(folder)
        own = Path(folder) / "tokenizer.json"
        if not own.is_file():
            raise ConfigError(f"{type(tokenizer).__name__} of {where} has no fast (Rust) version, so no tokenizer.json")
        texts = read_texts(replace(files, tokenizer=options.tokenizer or own), options, None)
    wrapped = CheckpointModel(model, texts).eval().requires_grad_(False)
    _check_texts(tokenizer, texts, wrapped)
    _check_pixels(processor, pixels)
    text = cut_where_exact(wrapped, texts.text, texts.tokenizer_json)
    return freeze(files.name, wrapped, pixels.image, text, texts.tokenizer_json)


@contextmanager
def _loading(where: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            need("transformers.utils.logging", "a checkpoint of transformers", "train").disable_progress_bar()
            yield
    except Exception as error:  # of transformers, of the hub, of safetensors: no common base
        raise ConfigError(f"transformers cannot load {where}: {error}") from error


def _check_texts(tokenizer: Any, texts: TextSteps, model: CheckpointModel) -> None:
    """Compare ids and mask with the tokenizer's own."""
    samples, length = sample_texts(), texts.text.context_length
    theirs = tokenizer(samples, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    ours = Tokenizer(texts.tokenizer_json, texts.text)(samples).ids
    found = np.asarray(theirs["input_ids"])
    if ours.shape != found.shape or not np.array_equal(ours, found):
        row = 0 if ours.shape != found.shape else int((ours != found).any(axis=1).argmax())
        raise ConfigError(
            f"the exported tokenizer disagrees with {type(tokenizer).__name__} on {samples[row][:60]!r}: "
            f"{ours[row][:12].tolist()}… against {found[row][:12].tolist()}…"
        )
    if texts.masked and "attention_mask" in theirs:
        mask = model.mask(torch.from_numpy(ours)).numpy()
        if not np.array_equal(mask, theirs["attention_mask"]):
            raise ConfigError(f"the mask of {type(tokenizer).__name__} is not of the padding at the end alone")


def _check_pixels(processor: Any, pixels: Pixels) -> None:
    """Compare pixels with the image processor's own, by PIL."""
    images = [image.convert("RGB") for image in sample_images(3)]  # type: ignore[union-attr]
    theirs = np.stack(processor(images)["pixel_values"])
    mean, std = (np.asarray(each, np.float32) for each in (pixels.image.mean, pixels.image.std))
    ours = ((images_to_array(images, pixels.image) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    if ours.shape != theirs.shape or float(np.abs(ours - theirs).max()) > _PIXEL:
        raise ConfigError(
            f"images are prepared otherwise than by {type(processor).__name__}: {list(ours.shape)} against "
            f"{list(theirs.shape)}; it is {json.dumps(processor.to_dict(), default=str)[:300]}"
        )
