"""The preset with a locked text tower: how sentences become vectors, what trains, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.pretrain.contrastive import PretrainConfig, Sampler
from benchmarks.pretrain.locked_text import ABOUT, ImageSide, load_locked, train_locked
from benchmarks.pretrain.sentences import SentenceTower, load_sentences
from benchmarks.pretrain.towers import MODEL_CFG
from reco_plugin.errors import DataError, InputError
from reco_plugin.quickstart.dataset import BenchPair, Quickstart
from reco_plugin.quickstart.entities import Entity, EntitySplit
from reco_plugin.quickstart.sources import HELD_STYLE, MEMORY_STYLES, QUERY_STYLES

COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (30, 40, 220),
    "black": (0, 0, 0),
    "pink": (255, 130, 200),
    "teal": (0, 160, 160),
}
SIZES = ((25, 25), (25, 5), (5, 25), (6, 6), (15, 25), (25, 15))
"""Half of the height and width of what each is drawn as."""
SMALL = PretrainConfig(steps=6, entities_per_batch=3, generic_per_batch=2, warmup=2, checkpoint_every=2)


class Interrupted(Exception):
    """Stands for a killed process."""


WriteSentences = Callable[..., Path]


@pytest.fixture(scope="session")
def write_sentences(tmp_path_factory: pytest.TempPathFactory) -> WriteSentences:
    """A function that writes a BERT of two layers with random weights and returns its folder; 24-dimensional."""
    transformers = pytest.importorskip("transformers")

    def write(seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("sentences")
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, "a", "drawing", "of", "icon", "##s"]
        transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=len(words),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
        )
        model = transformers.BertModel(config)
        with torch.no_grad():  # else every text is mostly positions, and all are nearly one
            model.embeddings.position_embeddings.weight.mul_(0.1)
            model.embeddings.token_type_embeddings.weight.mul_(0.1)
        model.save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def sentences(write_sentences: WriteSentences) -> SentenceTower:
    return load_sentences(write_sentences())


@pytest.fixture(scope="session")
def colours() -> Quickstart:
    """Rectangles of one colour and shape an entity: four seen, one fusion, one unseen; two generic ones."""
    splits: list[EntitySplit] = ["seen"] * 4 + ["fusion", "unseen"]
    entities = [
        Entity(f"e{i}", word, (), {}, 0, split) for i, (word, split) in enumerate(zip(COLOURS, splits, strict=True))
    ]
    styles = (*[s for s in MEMORY_STYLES if s != HELD_STYLE][:2], HELD_STYLE, QUERY_STYLES[0])
    items = [BenchPair(e.key, style, style, f"a drawing of {e.label}", e.split) for e in entities for style in styles]
    items += [BenchPair(f"icons:{i}", "icons", "icons", caption, None) for i, caption in enumerate(("icon", "a icon"))]
    drawn = [(COLOURS[e.label], *SIZES[i]) for i, e in enumerate(entities) for _ in styles]
    drawn += [((200, 200, 120), 10, 10), ((128, 128, 128), 30, 30)]
    images = np.full((len(items), 64, 64, 3), 255, np.uint8)
    for image, (colour, height, width) in zip(images, drawn, strict=True):
        image[32 - height : 32 + height, 32 - width : 32 + width] = colour
    return Quickstart(images, items, entities)


def rectangles(data: Quickstart) -> list[Image.Image]:
    """One drawing of each seen entity."""
    return [Image.fromarray(data.images[data.rows(splits=["seen"])[4 * i]]) for i in range(4)]


def test_a_sentence_is_the_mean_of_its_tokens(sentences: SentenceTower) -> None:
    text = "a drawing of reds"  # [CLS] a drawing of red ##s [SEP]
    vector = sentences.texts([text])[0]
    tokens = torch.tensor([[sentences.tokenizer.convert_tokens_to_ids(t) for t in f"[CLS] {text} [SEP]".split()[:-2]]])
    tokens = torch.cat([tokens, torch.tensor([sentences.tokenizer.convert_tokens_to_ids(["red", "##s", "[SEP]"])])], 1)
    with torch.no_grad():
        mean = sentences.model(input_ids=tokens).last_hidden_state[0].mean(0).numpy()
    assert tokens.shape == (1, 7) and vector.shape == (sentences.dimension,) == (24,)
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_padding_and_order_change_no_sentence(sentences: SentenceTower) -> None:
    texts = ["a drawing of red and blue icons", "red", "a", "red", "teal " * 400]
    together = sentences.texts(texts)
    assert together.dtype == np.float32 and np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)
    for text, vector in zip(texts, together, strict=True):
        assert sentences.texts([text])[0] == pytest.approx(vector, abs=1e-5)
    assert np.array_equal(together[1], together[3]) and abs(together[1] - together[2]).max() > 0.01
    assert np.allclose(sentences.texts(texts, batch_size=2), together, atol=1e-5)


def test_a_folder_without_a_sentence_encoder_is_refused(tmp_path: Path, sentences: SentenceTower) -> None:
    with pytest.raises(DataError, match=r"holds no model\.safetensors"):
        load_sentences(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="transformers cannot read"):
        load_sentences(tmp_path)
    with pytest.raises(InputError, match="no texts"):
        sentences.texts([])


def test_the_sampler_names_every_text_that_it_can_draw(colours: Quickstart) -> None:
    drawn: set[str] = set()

    def spy(texts: list[str]) -> torch.Tensor:
        drawn.update(texts)
        return torch.zeros(len(texts), 1)

    sampler = Sampler(colours, spy, SMALL)
    for step in range(60):
        sampler.draw(step)
    assert drawn == set(sampler.texts())
    seen = list(COLOURS)[:4]
    assert sampler.texts() == sorted([*seen, *(f"a drawing of {word}" for word in seen), "icon", "a icon"])


def test_the_image_side_is_open_clips_own_resnet() -> None:
    import open_clip

    theirs = open_clip.CLIP(**MODEL_CFG | {"embed_dim": 24}).visual.state_dict()
    ours = {name: tensor.shape for name, tensor in ImageSide(24).visual.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in theirs.items()}


def test_images_learn_the_names_and_the_texts_stay(
    colours: Quickstart, sentences: SentenceTower, tmp_path: Path
) -> None:
    labels = list(COLOURS)[:4]
    before = {name: tensor.clone() for name, tensor in sentences.model.state_dict().items()}
    prompts = sentences.texts(labels)
    clip = train_locked(colours, sentences, tmp_path, replace(SMALL, steps=60, entities_per_batch=4))
    images = clip.images(rectangles(colours))
    assert images.shape == (4, 24) and images.dtype == np.float32
    assert np.linalg.norm(images, axis=1) == pytest.approx(1, abs=1e-5)
    similarity = images @ prompts.T
    others = np.where(np.eye(4, dtype=bool), -1, similarity)
    assert (similarity.diagonal() - others.max(1)).min() > 0.2
    assert np.array_equal(clip.texts(labels), prompts)
    assert all(torch.equal(before[name], tensor) for name, tensor in sentences.model.state_dict().items())
    with pytest.raises(InputError, match="no images"):
        clip.images([])


def test_what_is_written_is_what_was_trained(
    colours: Quickstart, sentences: SentenceTower, write_sentences: WriteSentences, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="train the image tower first"):
        load_locked(tmp_path, sentences)
    trained = train_locked(colours, sentences, tmp_path, SMALL)
    loaded = load_locked(tmp_path, sentences)
    assert (loaded.digest, loaded.dimension, loaded.image.size) == (trained.digest, 24, (64, 64))
    assert np.array_equal(loaded.images(rectangles(colours)), trained.images(rectangles(colours)))
    assert json.loads((tmp_path / ABOUT).read_text())["recipe"]["steps"] == 6
    other = load_sentences(write_sentences(seed=1))
    with pytest.raises(DataError, match="was trained towards a text tower"):
        load_locked(tmp_path, other)
    again = train_locked(colours, other, tmp_path / "other", SMALL)
    assert again.digest != trained.digest


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    colours: Quickstart, sentences: SentenceTower, tmp_path: Path
) -> None:
    class Fragile:
        reads = 5 * 5 + 2  # in the sixth batch

        def __getitem__(self, row: int) -> np.ndarray:
            self.reads -= 1
            if self.reads < 0:
                raise Interrupted
            return colours.images[row]

    train_locked(colours, sentences, tmp_path / "whole", SMALL)
    with pytest.raises(Interrupted):
        train_locked(replace(colours, images=Fragile()), sentences, tmp_path / "cut", SMALL)  # type: ignore[arg-type]
    assert not (tmp_path / "cut" / ABOUT).exists()
    train_locked(colours, sentences, tmp_path / "cut", SMALL)
    whole, resumed = (load_file(tmp_path / name / "image.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
