"""Fine-tuning on a memory's pairs, at a scale of seconds: the shipped weights in torch, the batches, one short run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.finetune import PairSampler, finetune
from benchmarks.pretrain.contrastive import PretrainConfig
from benchmarks.pretrain.shipped import load_shipped
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.demo.tasks import drawing
from reco_plugin.encode import Encoder
from reco_plugin.preprocess import Tokenizer
from reco_plugin.quickstart.dataset import BenchPair, Quickstart
from reco_plugin.train.encoder import FrozenClip

MODEL = Path(__file__).parents[2] / "triton_models"
SMALL = PretrainConfig(steps=12, entities_per_batch=3, generic_per_batch=0, lr=1e-3, warmup=2, checkpoint_every=100)
WORDS = ("fox", "doughnut", "red star", "house")


@pytest.fixture(scope="module")
def shipped() -> FrozenClip:
    return load_shipped(MODEL)


@pytest.fixture(scope="module")
def data() -> Quickstart:
    """Four things in two styles, as flat colours with some noise."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (len(WORDS), 1, 1, 3))
    items = [BenchPair(word, style, style, f"{word} icon", "unseen") for word in WORDS for style in ("a", "b")]
    noise = rng.integers(-20, 20, (len(items), 64, 64, 3))
    return Quickstart(np.clip(np.repeat(colours, 2, 0) + noise, 0, 255).astype(np.uint8), items, [])


def drawings(data: Quickstart) -> list[Image.Image]:
    return [drawing(data, row) for row in range(len(data.items))]


def test_the_weights_from_the_graphs_are_the_shipped_encoder(shipped: FrozenClip, data: Quickstart) -> None:
    encoder = Encoder(Artifact.load(MODEL), load_settings())
    images, texts = drawings(data), ["", "a drawing of a fox", "a snow-capped mountain, clip art, with too many words"]
    for ours, theirs in (
        (shipped.images(images), encoder.images(images)),
        (shipped.texts(texts), encoder.texts(texts)),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert not [m for m in shipped.model.modules() if isinstance(m, nn.BatchNorm2d)]  # no statistics that a batch moves


def test_a_batch_holds_an_entity_once(shipped: FrozenClip, data: Quickstart) -> None:
    sampler = PairSampler(data, range(len(data.items)), Tokenizer(shipped.tokenizer_json, shipped.text), SMALL)
    for step in range(5):
        batch, again = sampler.draw(step), sampler.draw(step)
        assert len(batch.images) == len(torch.unique(batch.tokens, dim=0)) == 3
        assert torch.equal(batch.images, again.images)
    part = PairSampler(data, [0, 1, 2], Tokenizer(shipped.tokenizer_json, shipped.text), SMALL)
    assert len(part.draw(0).images) == 2  # of the entities that there are


def test_fine_tuning_moves_a_copy_towards_the_pairs(shipped: FrozenClip, data: Quickstart) -> None:
    before: dict[str, Any] = {name: value.clone() for name, value in shipped.model.state_dict().items()}
    torch.manual_seed(0)
    tuned = finetune(shipped, data, range(len(data.items)), replace(SMALL, steps=30))
    assert all(torch.equal(value, before[name]) for name, value in shipped.model.state_dict().items())
    assert tuned.minutes > 0

    def right(clip: FrozenClip) -> float:
        images, texts = clip.images(drawings(data)), clip.texts([f"{word} icon" for word in WORDS])
        return float(np.mean((images @ texts.T).argmax(axis=1) == np.repeat(np.arange(len(WORDS)), 2)))

    assert right(tuned.clip) > max(0.8, right(shipped))
