"""Encoders that would be exported wrong are refused before anything is fetched or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from reco_plugin.errors import ConfigError
from reco_plugin.models import encoder
from reco_plugin.models.encoder import check_same_inputs
from reco_plugin.models.open_clip import load_frozen
from reco_plugin.models.parity import COUNT, sample_images, sample_texts
from reco_plugin.preprocess import ImageConfig, images_to_array


@pytest.mark.parametrize(
    ("model", "pretrained", "right"),
    [
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-L/14", "openai", "ViT-L-14-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_weights_that_were_trained_with_another_activation_are_refused(model: str, pretrained: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"use --model {right} --pretrained {pretrained}"):
        load_frozen(model, pretrained)  # not fetched: there is no network in the tests


def test_a_name_that_is_nearly_right_is_told_what_to_write(tmp_path: Path) -> None:
    for given, word in (("ViT-B-33", "ViT-B-32"), ("my clip of last year", "open_clip.list_models()")):
        with pytest.raises(ConfigError, match=given) as caught:
            load_frozen(given, random_weights=True)
        assert word in str(caught.value)
    with pytest.raises(ConfigError, match=f"local-dir:{tmp_path}"):
        load_frozen(str(tmp_path), random_weights=True)


def test_preprocessing_of_another_model_is_noticed(vit: str) -> None:
    clip = load_frozen(vit)
    ids = open_clip.get_tokenizer(vit)(sample_texts()).numpy()
    image = ImageConfig(clip.image.size, resize_mode="squash")
    mean, std = (np.array(each, np.float32) for each in (clip.image.mean, clip.image.std))
    pixels = (images_to_array(sample_images(3), clip.image) / np.float32(255) - mean) / std
    pixels = pixels.transpose(0, 3, 1, 2)
    check_same_inputs(clip, ids, pixels)
    for length in (48, 12):
        other = SimpleTokenizer(context_length=length)(sample_texts()).numpy()
        with pytest.raises(ConfigError, match=r"tokenizer .*disagrees"):
            check_same_inputs(clip, other, pixels)
    with pytest.raises(ConfigError, match="prepared otherwise"):
        check_same_inputs(replace(clip, image=image), ids, pixels)


def test_a_model_is_checked_when_it_is_loaded(vit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_image_config", lambda _: ImageConfig((32, 32), resize_mode="squash"))
    with pytest.raises(ConfigError, match="prepared otherwise"):
        load_frozen(vit)


def test_random_weights_are_the_same_again_and_leave_the_seed_alone(
    tmp_path: Path, write_encoder: Callable[..., str], vit_config: dict[str, Any]
) -> None:
    empty = write_encoder(tmp_path, vit_config, weights=False)
    digests = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.append(load_frozen(empty, random_weights=True).digest)
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert digests[0] == digests[1]


def test_samples_are_enough_and_varied() -> None:
    texts, images = sample_texts(), sample_images()
    assert len(set(texts)) == len(texts) == len(images) == COUNT
    assert len({image.size for image in images}) > COUNT / 2  # type: ignore[union-attr]
    assert len({len(text) // 20 for text in texts}) >= 4
