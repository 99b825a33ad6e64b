"""Compare our preprocessing, which needs no torch, with that of the very model that is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from ..errors import ConfigError
from ..preprocess import ImageConfig, TextConfig, Tokenizer, images_to_array
from .samples import sample_images, sample_texts

_PIXEL = 1e-5  # of a normalised pixel: rounding, while one step of 256 is 0.004 / 0.27


def check_same_inputs(
    clip: nn.Module, tokenizer: Any, image: ImageConfig, text: TextConfig, tokenizer_json: str
) -> None:
    """Prepare samples both ways.

    Args:
        clip: open_clip's model, for its image transform.
        tokenizer: open_clip's.
        image: configuration of ours that an export would carry.
        text: the same for texts.
        tokenizer_json: the file that belongs to it.

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
