"""Encoders that would be exported wrong are refused before anything is fetched or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from reco_plugin.errors import ConfigError
from reco_plugin.preprocess import ImageConfig
from reco_plugin.train import encoder
from reco_plugin.train.encoder import check_activation, check_same_inputs, load_frozen
from reco_plugin.train.parity import COUNT, sample_images, sample_texts
from reco_plugin.train.tokenizer import export_tokenizer


@pytest.mark.parametrize(
    ("model", "pretrained", "right"),
    [
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-L/14", "openai", "ViT-L-14-quickgelu"),
        ("ViT-B-16", "DFN2B", "ViT-B-16-quickgelu"),
        ("RN50", "cc12m", "RN50-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
        ("ViT-L-14-quickgelu", "laion2b-s32b-b82k", "ViT-L-14"),
    ],
)
def test_another_activation_is_refused_with_the_right_name(model: str, pretrained: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"Use --model {right} --pretrained {pretrained}"):
        load_frozen(model, pretrained)  # not fetched: there is no network in the tests
    check_activation(right, pretrained)


def test_a_path_or_a_name_that_is_nearly_right_is_told_what_to_write(tmp_path: Path, model: Path) -> None:
    for given, words in (
        ("ViT-B-33", ("no model 'ViT-B-33'", "ViT-B-32")),
        ("my clip of last year", ("open_clip.list_models()",)),
        (str(tmp_path), ("is a folder", f"--model local-dir:{tmp_path}")),
        (str(model), ("exported already", "reco fit --model")),
        (str(model / "manifest.json"), ("is a file", f"--pretrained {model / 'manifest.json'}")),
    ):
        with pytest.raises(ConfigError) as caught:
            load_frozen(given, random_weights=True)
        assert all(word in str(caught.value) for word in words), caught.value


def test_every_pair_that_open_clip_lists_is_judged_and_the_named_one_passes() -> None:
    refused = 0
    for model, pretrained in open_clip.list_pretrained():
        try:
            check_activation(model, pretrained)
        except ConfigError as error:
            refused += 1
            right = str(error).partition("--model ")[2].split()[0]
            check_activation(right, pretrained)
            assert right in open_clip.list_models()
    assert refused >= 20


@pytest.mark.parametrize(
    ("model", "pretrained"),
    [
        ("ViT-B-32", None),
        ("ViT-B-32", "weights/epoch_3.pt"),
        ("no-such-model", "openai"),
        ("local-dir:/x", None),
        ("hf-hub:org/ViT-B-32", "openai"),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k"),  # open_clip's own tag says otherwise; it has no other model for it
    ],
)
def test_what_says_nothing_of_its_activation_passes(model: str, pretrained: str | None) -> None:
    check_activation(model, pretrained)


@pytest.fixture(scope="module")
def parts(vit: str) -> tuple[Any, Any, str, Any, ImageConfig]:
    clip = load_frozen(vit)
    tokenizer = open_clip.get_tokenizer(vit)
    return clip.model, tokenizer, clip.tokenizer_json, clip.text, clip.image


def test_preprocessing_of_another_model_is_noticed(parts: tuple[Any, Any, str, Any, ImageConfig]) -> None:
    model, tokenizer, tokenizer_json, text, image = parts
    check_same_inputs(model, tokenizer, image, text, tokenizer_json)
    with pytest.raises(ConfigError, match="tokenizer disagrees with open_clip's on 'a photo of a dog'"):
        check_same_inputs(model, SimpleTokenizer(context_length=48), image, text, tokenizer_json)
    with pytest.raises(ConfigError, match=r"of 48 against .* of 12"):
        check_same_inputs(model, SimpleTokenizer(context_length=12), image, text, tokenizer_json)
    content, whole = export_tokenizer(SimpleTokenizer(context_length=48, clean="canonicalize"))
    with pytest.raises(ConfigError, match="tokenizer disagrees"):
        check_same_inputs(model, SimpleTokenizer(context_length=48), image, whole, content)
    for wrong in (
        ImageConfig(image.size, resize_mode="squash"),
        ImageConfig(image.size, interpolation="bilinear"),
        ImageConfig(image.size, mean=(0.5, 0.5, 0.5)),
        ImageConfig((64, 64)),
    ):
        with pytest.raises(ConfigError, match="prepared otherwise than by open_clip's transform"):
            check_same_inputs(model, tokenizer, wrong, text, tokenizer_json)


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
