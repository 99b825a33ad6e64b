"""Checkpoints of transformers: any model with ``get_image_features`` and ``get_text_features``, as a frozen CLIP.

Its own tokenizer and image processor are the reference: what is exported must give the same ids and pixels.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, need
from .files import Files, TextSteps, read_pixels, read_texts
from .folder import quiet
from .open_clip import FrozenClip, check_same_inputs, freeze
from .parity import sample_images, sample_texts

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


def load_checkpoint(files: Files) -> FrozenClip:
    """Load a checkpoint from the folder of its weights.

    Raises:
        ConfigError: it has no such towers, needs code of its own, or is prepared in a way that cannot be exported.
    """
    transformers: Any = need("transformers", "a checkpoint of transformers", "train")
    where = str(files.image.parent)
    if "auto_map" in files.config:
        raise ConfigError(f"{where} needs code of its own repository (auto_map), which is not run: {_GIVE_ONNX}")
    image = read_pixels(files.preprocessing, files.preprocess)
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            transformers.utils.logging.disable_progress_bar()
            tokenizer = transformers.AutoTokenizer.from_pretrained(where)
            model = transformers.AutoModel.from_pretrained(where, dtype=torch.float32)
            processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil")
    except Exception as error:  # of transformers, of safetensors: no common base
        raise ConfigError(f"transformers cannot load {where}: {error}") from error
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise ConfigError(f"{where} is a {type(model).__name__}, without get_image_features or get_text_features")
    with TemporaryDirectory() as folder:  # with what the tokenizer's class adds to its file
        tokenizer.save_pretrained(folder)
        own = Path(folder) / "tokenizer.json"
        if not own.is_file():
            raise ConfigError(f"{type(tokenizer).__name__} of {where} has no fast (Rust) version, so no tokenizer.json")
        texts = read_texts(replace(files, tokenizer=own))
    wrapped = CheckpointModel(model, texts).eval().requires_grad_(False)
    frozen = freeze(files.name, wrapped, image, texts.text, texts.tokenizer_json)
    length = texts.text.context_length
    given = tokenizer(sample_texts(), padding="max_length", truncation=True, max_length=length, return_tensors="np")
    images = [image.convert("RGB") for image in sample_images(3)]  # type: ignore[union-attr]
    check_same_inputs(frozen, np.asarray(given["input_ids"]), np.stack(processor(images)["pixel_values"]))
    if texts.masked and "attention_mask" in given:
        mask = wrapped.mask(torch.from_numpy(np.asarray(given["input_ids"]))).numpy()
        if not np.array_equal(mask, given["attention_mask"]):
            raise ConfigError(f"the mask of {type(tokenizer).__name__} is not of the padding at the end alone")
    return frozen
