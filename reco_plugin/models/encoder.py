"""A frozen CLIP in torch, of any library, with what is needed to serve it without that library.

An encoder that cannot be exported exactly is refused: its tokens and its pixels are compared first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..preprocess import ImageConfig, TextConfig, Tokenizer, images_to_array
from ..progress import progress_bar
from ..types import ImageInput, Modality, Vectors
from .graph_file import quiet
from .parity import sample_images, sample_texts, takes_short_texts

_PIXEL = 1e-5  # of a normalised pixel: rounding, while one step of 256 is 0.004 / 0.27


@dataclass(frozen=True)
class FrozenClip:
    """A model with ``encode_image`` and ``encode_text``, and its preprocessing."""

    name: str  # readable name of model and weights
    model: nn.Module  # in evaluation mode, on the CPU, float32
    image: ImageConfig
    text: TextConfig
    tokenizer_json: str  # file of the tokenizers library
    digest: str  # sha256 over weights, preprocessing and tokenizer: the encoder's fingerprint

    @cached_property
    def dimension(self) -> int:
        """D."""
        tokens = torch.zeros(1, self.text.context_length, dtype=torch.int32)
        with torch.no_grad():
            return int(self.tower("text")(tokens).shape[1])

    def tower(self, modality: Modality) -> nn.Module:
        """The module to export: model inputs -> (B, D) unit-norm."""
        return ImageTower(self.model, self.image) if modality == "image" else TextTower(self.model, self.text)

    def images(self, images: Sequence[ImageInput], batch_size: int = 128) -> Vectors:
        """Encode images in torch; (N, D)."""
        return self._encode(images, "image", lambda part: images_to_array(part, self.image), batch_size)

    def texts(self, texts: Sequence[str], batch_size: int = 256) -> Vectors:
        """Encode texts in torch; (N, D)."""
        tokenizer = Tokenizer(self.tokenizer_json, self.text)
        return self._encode(texts, "text", lambda part: tokenizer(part).ids, batch_size)

    def _encode(self, items, side: Modality, prepare, size: int) -> Vectors:  # type: ignore[no-untyped-def]
        if not len(items):
            raise InputError(f"no {side}s to encode: the batch is empty")
        tower, parts = self.tower(side), []
        with torch.inference_mode(), progress_bar(total=len(items), desc=f"encode {side}s", unit=side) as bar:
            for start in range(0, len(items), size):
                part = prepare(items[start : start + size])
                parts.append(tower(torch.from_numpy(np.ascontiguousarray(part))).numpy())
                bar.update(len(part))
        return np.concatenate(parts).astype(np.float32)


class ImageTower(nn.Module):
    """(B, H, W, 3) uint8 -> (B, D); the graph includes the normalisation of pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: ImageConfig) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(config.std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch (B, H, W, 3); (B, D)."""
        x = pixels.float().permute(0, 3, 1, 2)  # cast first: TensorRT takes bytes only into a cast
        x = (x / 255.0 - self.mean) / self.std
        return F.normalize(self.model.encode_image(x), dim=-1)  # type: ignore[operator]


class TextTower(nn.Module):
    """(B, L) int32 -> (B, D); L may be shorter than the context where the vectors are the same."""

    def __init__(self, model: nn.Module, config: TextConfig) -> None:
        super().__init__()
        self.model = model
        self.dynamic = config.dynamic

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode a batch (B, L); (B, D)."""
        model: Any = self.model
        tower = _causal_tower(model) if self.dynamic else None
        features = model.encode_text(tokens.long()) if tower is None else _encode_cut(tower, tokens.long())
        return F.normalize(features, dim=-1)


def _causal_tower(model: Any) -> Any:
    """What holds the text tower of open_clip, which takes the whole context only; None of another one."""
    tower = getattr(model, "text", model)
    plain = isinstance(tower, TextTransformer) and tower.cls_emb is None and not tower.use_pad_mask
    return tower if plain or isinstance(tower, open_clip.CLIP) else None


def _encode_cut(tower: Any, tokens: Tensor) -> Tensor:
    """open_clip's text tower, (B, L) -> (B, D), with positions and causal mask cut to L."""
    length, alone, mask = tokens.shape[1], isinstance(tower, TextTransformer), tower.attn_mask
    x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=None if mask is None else mask[:length, :length])
    pool, end = (tower.pool_type, tower.eos_id) if alone else (tower.text_pool_type, tower.text_eos_id)
    pooled: Tensor = text_global_pool(tower.ln_final(x), tokens, pool, eos_token_id=end)
    projection = tower.text_projection
    if projection is None:
        return pooled
    return pooled @ projection if isinstance(projection, Tensor) else projection(pooled)


def freeze(name: str, clip: nn.Module, image: ImageConfig, text: TextConfig, tokenizer_json: str) -> FrozenClip:
    """A model with its preprocessing and its fingerprint; texts are cut to their length where that is exact."""
    cut = cut_where_exact(clip, text, tokenizer_json)
    same = replace(cut, end_id=None) if cut.kind == "hf" else cut  # which follows from the tokenizer
    digest = hashlib.sha256()
    for key, tensor in sorted(clip.state_dict().items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    for part in (image.to_dict(), {k: v for k, v in same.to_dict().items() if k not in ("dynamic", "buckets")}):
        digest.update(json.dumps(part, sort_keys=True).encode())  # how it is called changes no vector
    digest.update(tokenizer_json.encode())
    return FrozenClip(name, clip, image, cut, tokenizer_json, digest.hexdigest())


def cut_where_exact(clip: nn.Module, text: TextConfig, tokenizer_json: str) -> TextConfig:
    """Let texts be cut to their length where the tower then gives the vectors of the whole context.

    That is tried on texts of several lengths: it holds for causal towers that read the end of a text and for those that
    mask their padding, and not where padding is read as the text is.
    """
    shorter = replace(text, dynamic=True, end_id=_end_of(text, tokenizer_json))
    ids = Tokenizer(tokenizer_json, text)(sample_texts()).ids
    tower = TextTower(clip, shorter).eval()

    def run(rows: npt.NDArray[np.int32]) -> Vectors:
        with torch.inference_mode():
            return np.asarray(tower(torch.from_numpy(rows)).numpy(), np.float32)

    try:
        exact = takes_short_texts(run, ids, shorter)
        if exact and _causal_tower(clip) is None:
            free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
            with quiet(), torch.no_grad():  # a length may be built in, of other libraries
                torch.export.export(tower, (torch.from_numpy(ids[:2]),), dynamic_shapes=(free,), strict=False)
    except Exception:  # of torch: the tower takes the whole context only
        exact = False
    found = shorter if exact else text
    return replace(found, buckets=found.lengths)


def _end_of(text: TextConfig, tokenizer_json: str) -> int | None:
    """The padding's id where it also ends a text, of a tokenizer from Hugging Face."""
    if text.kind == "clip" or text.end_id is not None:
        return text.end_id
    last = Tokenizer(tokenizer_json, text).unpadded("a")[-1]
    return text.pad_id if last == text.pad_id else None


def check_same_inputs(found: FrozenClip, ids: npt.NDArray[np.int64], pixels: npt.NDArray[np.float32]) -> None:
    """Compare our preprocessing of samples, as it is exported, with the model's own.

    Args:
        found: the encoder.
        ids: of :func:`.parity.sample_texts` by its own tokenizer, (B, L).
        pixels: of three :func:`.parity.sample_images` by its own transform, (B, 3, H, W).

    Raises:
        ConfigError: they differ.
    """
    ours = Tokenizer(found.tokenizer_json, found.text)(sample_texts()).ids
    if ours.shape != ids.shape or not np.array_equal(ours, ids):
        row = 0 if ours.shape != ids.shape else int((ours != ids).any(axis=1).argmax())
        raise ConfigError(
            f"the exported tokenizer of {found.name} disagrees with its own on {sample_texts()[row][:60]!r}: "
            f"{ours[row][:12].tolist()}… of {ours.shape[1]} against {ids[row][:12].tolist()}… of {ids.shape[1]}"
        )
    mean, std = np.array(found.image.mean, np.float32), np.array(found.image.std, np.float32)
    made = ((images_to_array(sample_images(3), found.image) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    if made.shape != pixels.shape or float(np.abs(made - pixels).max()) > _PIXEL:
        raise ConfigError(f"images are prepared otherwise than by {found.name} itself: {found.image} is not all of it")
