"""Refuse an encoder that cannot be exported exactly: its activation, its tokens, its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from ..errors import ConfigError
from ..preprocess import ImageConfig, TextConfig, Tokenizer, images_to_array
from .parity import sample_images, sample_texts

_SUFFIX = "-quickgelu"
_PIXEL = 1e-5  # of a normalised pixel: rounding, while one step of 256 is 0.004 / 0.27


def check_activation(model: str, pretrained: str | None) -> None:
    """Compare open_clip's configuration of a built-in model with that of its weights, before any download.

    open_clip only warns. The vectors would be plausible but worse: QuickGELU, ``x * sigmoid(1.702 x)``, is near GELU.

    Raises:
        ConfigError: they differ; the message has the model's correct name.
    """
    if not pretrained or ":" in model:
        return  # a schema's folder holds the configuration together with the weights
    model = model.replace("/", "-")
    plain = model.removesuffix(_SUFFIX)
    weights, config = open_clip.get_pretrained_cfg(plain, pretrained), open_clip.get_model_config(model)
    if not weights or config is None:
        return  # a checkpoint file, which does not state it; or unknown, which open_clip reports
    trained, built = bool(weights.get("quick_gelu")), bool(config.get("quick_gelu"))
    right = plain + _SUFFIX if trained else plain
    if trained != built and right != model and open_clip.get_model_config(right) is not None:
        name = {True: "QuickGELU", False: "GELU"}
        raise ConfigError(
            f"weights {pretrained!r} were trained with {name[trained]}, but model {model!r} is built with "
            f"{name[built]}: its embeddings would be wrong. Use --model {right} --pretrained {pretrained}"
        )


def check_same_inputs(
    clip: nn.Module, tokenizer: Any, image: ImageConfig, text: TextConfig, tokenizer_json: str
) -> None:
    """Compare our preprocessing of samples, as it is exported, with open_clip's model and tokenizer.

    Raises:
        ConfigError: token ids or pixels differ, with the first example.
    """
    texts = sample_texts()
    ours, theirs = Tokenizer(tokenizer_json, text)(texts).ids, tokenizer(texts).numpy()
    if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
        row = 0 if ours.shape != theirs.shape else int((ours != theirs).any(axis=1).argmax())
        raise ConfigError(
            f"the exported tokenizer disagrees with open_clip's on {texts[row][:60]!r}: {ours[row][:12].tolist()}… of "
            f"{ours.shape[1]} against {theirs[row][:12].tolist()}… of {theirs.shape[1]}"
        )
    images = sample_images(3)
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(clip)), is_train=False)
    expected = torch.stack([transform(picture) for picture in images]).numpy()  # (B, 3, H, W)
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    found = ((images_to_array(images, image) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    if found.shape != expected.shape or float(np.abs(found - expected).max()) > _PIXEL:
        raise ConfigError(
            f"images are prepared otherwise than by open_clip's transform of this model: {list(found.shape)} against "
            f"{list(expected.shape)}; its configuration is {open_clip.get_model_preprocess_cfg(clip)}"
        )
