"""The mini CLIP's training, at a scale of seconds: its tokenizer, its augmentation, and what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reco_plugin.quickstart.dataset import (
    HELD_STYLE,
    MEMORY_STYLES,
    QUERY_STYLES,
    BenchPair,
    Entity,
    EntitySplit,
    Quickstart,
)

pytest.importorskip("torch")
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from benchmarks.pretrain.contrastive import MEAN, STD, Embedded, PretrainConfig, augment, contrastive
from benchmarks.pretrain.towers import pretrain, write_tokenizer
from reco_plugin.export.open_clip import load_frozen

pytestmark = pytest.mark.torch

WORDS = ("fox", "dog", "cat", "house", "tree", "car", "star", "fish")
SMALL = PretrainConfig(steps=4, entities_per_batch=4, generic_per_batch=3, warmup=2)


def quickstart() -> Quickstart:
    """Six seen entities, one of each other split, in a memory style, the held style and a query style; 5 generic."""
    splits: list[EntitySplit] = ["seen"] * 6 + ["fusion", "unseen"]
    entities = [
        Entity(f"e{i}", word, (), {}, 0, split) for i, (word, split) in enumerate(zip(WORDS, splits, strict=True))
    ]
    styles = (*[s for s in MEMORY_STYLES if s != HELD_STYLE][:2], HELD_STYLE, QUERY_STYLES[0])
    items = [BenchPair(e.key, style, style, f"{e.label} in {style}", e.split) for e in entities for style in styles]
    items += [BenchPair(f"icons:{i}", "icons", "icons", f"icon {i}", None) for i in range(5)]
    images = np.random.default_rng(0).integers(0, 256, (len(items), 64, 64, 3)).astype(np.uint8)
    return Quickstart(images, items, entities)


@pytest.fixture
def tokenizer(tmp_path: Path) -> SimpleTokenizer:
    write_tokenizer(tmp_path / "bpe.txt.gz")
    return SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"), context_length=20)


def test_the_tokenizer_is_the_beginning_of_clips(tokenizer: SimpleTokenizer) -> None:
    assert tokenizer.vocab_size == len(tokenizer.encoder) == 4096
    assert (tokenizer.sot_token_id, tokenizer.eot_token_id) == (4094, 4095)
    full = SimpleTokenizer(context_length=20)
    for caption in ("a photo of a dog", "red car in the street", "the house and the tree", "cat!"):
        ours, theirs = tokenizer([caption])[0], full([caption])[0]
        theirs = torch.where(theirs >= 49406, theirs - 49406 + 4094, theirs)
        assert torch.equal(ours, theirs), caption
    rare = "a hippopotamus"
    assert tokenizer.decode(tokenizer.encode(rare)).strip() == rare
    assert len(tokenizer.encode(rare)) > len(full.encode(rare))


def test_augmentation_keeps_shape_and_range_and_depends_on_the_seed_alone() -> None:
    images = torch.from_numpy(quickstart().images)
    first, again, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (len(images), 3, 64, 64) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)
    pixels = first * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5 and pixels.std() > 0.05


def test_equal_captions_are_no_negatives() -> None:
    tokens = torch.tensor([[1, 2], [1, 2], [3, 4]])
    eye, scale = torch.eye(3), torch.tensor(5.0)
    same = torch.stack([eye[0], eye[0], eye[2]])
    loss = contrastive(Embedded(same, same), scale, tokens)
    expected = (2 * np.log1p(np.exp(-5)) + np.log1p(2 * np.exp(-5))) / 3
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert contrastive(Embedded(same, same), scale, torch.arange(3)[:, None]).item() > loss.item() + 0.3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pretraining that nothing interrupted."""
    return pretrain(quickstart(), tmp_path_factory.mktemp("whole"), SMALL)


def test_open_clip_loads_what_is_written(whole: Path) -> None:
    clip = load_frozen(f"local-dir:{whole}")
    assert (clip.dimension, clip.image.size, clip.text.context_length) == (128, (64, 64), 20)
    assert clip.text.dynamic and clip.image.mean == MEAN
    vectors = clip.texts(["a fox", "a fox", "a house"])
    assert np.allclose(vectors[0], vectors[1], atol=1e-6) and not np.allclose(vectors[0], vectors[2], atol=1e-3)
    weights = load_file(whole / "open_clip_model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in clip.model.state_dict().items())
    assert list(whole.glob("*.tmp")) == []
