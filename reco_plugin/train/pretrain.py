"""Pre-train the mini CLIP of the quickstart, from open_clip's own model and loss, on 2 cores.

It stands in for a real CLIP where none can be downloaded: small, honest about what it never saw (entities
of the splits *fusion* and *unseen*, the query styles, and one memory style that is held for the fusion).
"""

from __future__ import annotations

import gzip
import json
import math
import os
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file
from tqdm import tqdm

from ..quickstart.dataset import Quickstart
from ..quickstart.sources import HELD_STYLE, MEMORY_STYLES

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # open_clip's defaults
_MERGES = 4096 - 512 - 2  # so that the vocabulary (bytes, bytes at a word's end, merges, two specials) is 4,096
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64},
    "text_cfg": {"context_length": 20, "vocab_size": 4096, "width": 128, "heads": 4, "layers": 2},
}
"""An open_clip model configuration: ModifiedResNet and a two-layer text transformer, 2.3 M parameters."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights, on one kind of machine."""

    steps: int = 4000
    entities_per_batch: int = 112
    generic_per_batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 60
    seed: int = 0
    checkpoint_every: int = 200


class _Sampler:
    """Draws batches: distinct entities (a random style each) and distinct generic drawings."""

    def __init__(self, data: Quickstart, tokenizer: SimpleTokenizer, config: PretrainConfig) -> None:
        styles = [style for style in MEMORY_STYLES if style != HELD_STYLE]
        self._by_entity: dict[str, list[int]] = defaultdict(list)
        for row in data.rows(splits=["seen"], styles=styles):
            self._by_entity[data.items[row].entity].append(int(row))
        self._entities = sorted(self._by_entity)
        self._generic = [row for row, item in enumerate(data.items) if item.split is None]
        self._data, self._tokenizer, self._config = data, tokenizer, config

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number ``step``: images (B, H, W, 3) uint8 and tokens (B, L)."""
        rng = random.Random(self._config.seed * 1_000_003 + step)
        rows, texts = [], []
        for entity in rng.sample(self._entities, self._config.entities_per_batch):
            rows.append(rng.choice(self._by_entity[entity]))
            texts.append(self._text(entity, rows[-1], rng))
        generic = rng.sample(self._generic, min(self._config.generic_per_batch, len(self._generic)))
        texts += [self._data.items[row].caption for row in generic]
        images = np.stack([self._data.images[row] for row in [*rows, *generic]])
        return torch.from_numpy(images), self._tokenizer(texts)

    def _text(self, entity: str, row: int, rng: random.Random) -> str:
        chance = rng.random()
        if chance < 0.25:
            return self._data.by_key[entity].label
        if chance < 0.60:
            return self._data.items[rng.choice(self._by_entity[entity])].caption
        return self._data.items[row].caption


def _augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random affine map, colour matrix and grey; (B, H, W, 3) uint8 -> (B, 3, H, W) normalised floats."""
    batch = images.shape[0]
    x = images.permute(0, 3, 1, 2).float() / 255.0

    def uniform(*shape: int, low: float, high: float) -> torch.Tensor:
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
    return (x - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


def _contrastive(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE in which an equal caption is no negative; embeddings (B, D), tokens (B, L)."""
    same = (tokens[:, None] == tokens[None]).all(-1) & ~torch.eye(len(tokens), dtype=torch.bool)
    logits = (scale * image @ text.T).masked_fill(same, -math.inf)
    target = torch.arange(len(tokens))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def write_tokenizer(path: Path) -> None:
    """CLIP's byte-pair merges cut to the first 3,582 (MIT, OpenAI), in open_clip's own file format."""
    with gzip.open(default_bpe()) as full:
        lines = full.read().decode("utf-8").split("\n")[: _MERGES + 1]
    path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))


def pretrain(data: Quickstart, out: Path, config: PretrainConfig | None = None) -> Path:
    """Train the mini CLIP and write it as an open_clip ``local-dir:`` model; resumes from its checkpoint.

    Returns:
        The folder, to be used as ``local-dir:FOLDER`` wherever open_clip takes a model name.
    """
    config = config or PretrainConfig()
    out.mkdir(parents=True, exist_ok=True)
    bpe = (out / "bpe.txt.gz").resolve()
    write_tokenizer(bpe)
    tokenizer = SimpleTokenizer(bpe_path=str(bpe), context_length=MODEL_CFG["text_cfg"]["context_length"])
    torch.manual_seed(config.seed)
    model = CLIP(**MODEL_CFG)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, config))
    checkpoint = out / "checkpoint.pt"
    first = _restore(checkpoint, config, model, optimizer, schedule)
    sampler = _Sampler(data, tokenizer, config)
    model.train()
    with tqdm(range(first, config.steps), initial=first, total=config.steps, desc="mini CLIP", unit="step") as bar:
        for step in bar:
            images, tokens = sampler.draw(step)
            pixels = _augment(images, torch.Generator().manual_seed(config.seed * 7_000_003 + step))
            with torch.autocast("cpu", torch.bfloat16):
                image, text = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
            loss = _contrastive(image.float(), text.float(), model.logit_scale.exp(), tokens)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
            if (step + 1) % config.checkpoint_every == 0:
                _save(checkpoint, step + 1, config, model, optimizer, schedule)
    _write_model(model, out, bpe)
    return out


def _learning_rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def _save(path: Path, step: int, config: PretrainConfig, *parts: Any) -> None:
    tmp = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save({"step": step, "config": asdict(config), "parts": [part.state_dict() for part in parts]}, tmp)
    tmp.replace(path)


def _restore(path: Path, config: PretrainConfig, *parts: Any) -> int:
    """Load the checkpoint of the same configuration; returns the step to go on from."""
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["config"] != asdict(config):
        return 0
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    return int(saved["step"])


def _write_model(model: CLIP, out: Path, bpe: Path) -> None:
    text_cfg = MODEL_CFG["text_cfg"] | {"tokenizer_kwargs": {"bpe_path": str(bpe)}}
    config = {
        "model_cfg": MODEL_CFG | {"text_cfg": text_cfg},
        "preprocess_cfg": {"mean": _MEAN, "std": _STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    weights = {name: tensor.contiguous() for name, tensor in model.eval().state_dict().items()}
    tmp = out / "open_clip_model.safetensors.tmp"
    save_file(weights, tmp)
    tmp.replace(out / "open_clip_model.safetensors")
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=1))
