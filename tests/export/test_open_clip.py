"""Encoders that would be exported wrong are refused before anything is fetched or written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.encoders.preprocess import ImageConfig, images_to_array
from reco_plugin.errors import ConfigError
from reco_plugin.export.parity import sample_images, sample_texts

pytest.importorskip("torch")
import open_clip
from open_clip.tokenizer import SimpleTokenizer

from reco_plugin.export.open_clip import check_same_inputs, load_frozen

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("model", "pretrained", "right"),
    [
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_weights_that_were_trained_with_another_activation_are_refused(model: str, pretrained: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"use --model {right} --pretrained {pretrained}"):
        load_frozen(model, pretrained)  # not fetched: there is no network in the tests


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
        with pytest.raises(ConfigError, match=r"tokenizer .*differs"):
            check_same_inputs(clip, other, pixels)
    with pytest.raises(ConfigError, match="cannot be exported"):
        check_same_inputs(replace(clip, image=image), ids, pixels)


def test_models_without_weights_are_refused(
    tmp_path: Path, write_encoder: Callable[..., str], vit_config: dict[str, Any]
) -> None:
    empty = write_encoder(tmp_path / "empty", vit_config, weights=False)
    for name, tag in (
        (empty, None),
        ("RN50", None),
        ("local-dir:/nowhere", None),
        ("no-such-model", "x"),
        ("RN50", "x"),
    ):
        with pytest.raises(ConfigError, match=name):
            load_frozen(name, tag)


def test_the_fingerprint_covers_weights_preprocessing_and_tokenizer(
    tmp_path: Path, write_encoder: Callable[..., str], vit_config: dict[str, Any]
) -> None:
    cleaned = copy.deepcopy(vit_config)
    cleaned["text_cfg"] |= {"tokenizer_kwargs": {"clean": "canonicalize"}}
    same, again = (load_frozen(write_encoder(tmp_path / name, vit_config)).digest for name in ("a", "b"))
    others = [
        load_frozen(write_encoder(tmp_path / "weights", vit_config, seed=1)).digest,
        load_frozen(write_encoder(tmp_path / "pixels", vit_config, preprocess={"mean": [0.5, 0.5, 0.5]})).digest,
        load_frozen(write_encoder(tmp_path / "text", cleaned)).digest,
    ]
    assert same == again and len({same, *others}) == 4
