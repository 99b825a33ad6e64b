"""Contrastive training of image against text on the quickstart's drawings: batches, augmentation, loss, loop."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import HELD_STYLE, MEMORY_STYLES, Quickstart

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""open_clip's default normalisation of pixels."""


@dataclass(frozen=True)
class PretrainConfig:
    """The recipe; with the machine, it determines the weights."""

    steps: int = 4000
    entities_per_batch: int = 112
    generic_per_batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 60
    seed: int = 0


class Batch(NamedTuple):
    """Images (B, H, W, 3) uint8 and tokens (B, L)."""

    images: Tensor
    tokens: Tensor


class Embedded(NamedTuple):
    """Both sides of a batch, (B, D) unit-norm."""

    image: Tensor
    text: Tensor


class Sampler:
    """Draws batches: distinct entities (a random style each) and distinct generic drawings."""

    def __init__(self, data: Quickstart, tokenizer: Callable[[list[str]], Tensor], config: PretrainConfig) -> None:
        styles = [style for style in MEMORY_STYLES if style != HELD_STYLE]
        self._by_entity: dict[str, list[int]] = defaultdict(list)
        for row in data.rows(splits=["seen"], styles=styles):
            self._by_entity[data.items[row].entity].append(int(row))
        self._entities = sorted(self._by_entity)
        self._generic = [row for row, item in enumerate(data.items) if item.split is None]
        self._data, self._tokenizer, self._config = data, tokenizer, config

    def draw(self, step: int) -> Batch:
        """Batch number ``step``."""
        rng = random.Random(self._config.seed * 1_000_003 + step)
        rows, texts = [], []
        for entity in rng.sample(self._entities, self._config.entities_per_batch):
            rows.append(rng.choice(self._by_entity[entity]))
            texts.append(self._text(entity, rows[-1], rng))
        generic = rng.sample(self._generic, min(self._config.generic_per_batch, len(self._generic)))
        texts += [self._data.items[row].caption for row in generic]
        images = np.stack([self._data.images[row] for row in [*rows, *generic]])
        return Batch(torch.from_numpy(images), self._tokenizer(texts))

    def _text(self, entity: str, row: int, rng: random.Random) -> str:
        chance = rng.random()
        if chance < 0.25:
            return self._data.by_key[entity].label
        if chance < 0.60:
            return self._data.items[rng.choice(self._by_entity[entity])].caption
        return self._data.items[row].caption


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random affine map, colour matrix and grey; (B, H, W, 3) uint8 -> (B, 3, H, W) normalised floats."""
    batch = images.shape[0]
    x = images.permute(0, 3, 1, 2).float() / 255.0

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    angle = uniform(batch, low=-0.3, high=0.3)
    scale, stretch = uniform(batch, low=0.8, high=1.25), uniform(batch, low=0.88, high=1.14)
    flip = torch.where(torch.rand(batch, generator=generator) < 0.3, -1.0, 1.0)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * stretch * flip * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale * flip * angle.sin(), scale / stretch * angle.cos()
    theta[:, :, 2] = uniform(batch, 2, low=-0.12, high=0.12)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = 1.0 - F.grid_sample(1.0 - x, grid, align_corners=False)  # what comes in from outside is white

    colour = torch.eye(3) + 0.15 * torch.randn(batch, 3, 3, generator=generator)
    colour = colour / colour.sum(2, keepdim=True)
    grey = torch.full((3, 3), 1 / 3)
    colour = torch.where((torch.rand(batch, generator=generator) < 0.15)[:, None, None], grey, colour)
    x = torch.einsum("bij,bjhw->bihw", colour, x)
    x = (x * uniform(batch, 1, 1, 1, low=0.75, high=1.15)).clamp(0, 1)
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def contrastive(embedded: Embedded, scale: Tensor, tokens: Tensor) -> Tensor:
    """Symmetric InfoNCE of embeddings (B, D); pairs with equal tokens (B, L) are no negatives."""
    same = (tokens[:, None] == tokens[None]).all(-1) & ~torch.eye(len(tokens), dtype=torch.bool)
    logits = (scale * embedded.image @ embedded.text.T).masked_fill(same, -math.inf)
    target = torch.arange(len(tokens))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_contrastive(
    model: nn.Module,
    embed: Callable[[Tensor, Tensor], Embedded],
    sampler: Sampler,
    config: PretrainConfig,
    title: str,
) -> None:
    """Train a model in place.

    Args:
        model: with the log of the temperature as ``logit_scale``.
        embed: pixels (B, 3, H, W) and tokens (B, L) -> embeddings by the model.
        sampler: of batches.
        config: the recipe.
        title: of the progress bar.
    """
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, config))
    log_scale: Tensor = model.logit_scale
    model.train()
    with progress_bar(range(config.steps), desc=title, unit="step") as bar:
        for step in bar:
            images, tokens = sampler.draw(step)
            pixels = augment(images, torch.Generator().manual_seed(config.seed * 7_000_003 + step))
            with torch.autocast("cpu", torch.bfloat16):
                image, text = embed(pixels, tokens)
            loss = contrastive(Embedded(image.float(), text.float()), log_scale.exp(), tokens)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                log_scale.clamp_(0, math.log(100))
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")


def _learning_rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))
