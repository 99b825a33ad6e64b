"""Load a frozen open_clip model, and wrap its two towers for export.

An encoder that cannot be exported exactly is refused: its activation, its tokens, its pixels are compared first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..preprocess import ImageConfig, TextConfig, Tokenizer, images_to_array
from ..preprocess.text import needed_tokens
from ..progress import progress_bar
from ..types import ImageInput, Modality, Vectors
from .parity import sample_images, sample_texts
from .precision import quiet
from .tokenizer import export_tokenizer

_HOW_IT_IS_CALLED = ("dynamic", "buckets")
"""Fields of the text configuration that do not change vectors, and so are not part of the fingerprint."""
_SAME = 1e-5  # of a value of a unit vector, between a cut text and the whole context
_CUTS = 8  # texts on which that is tried
_PIXEL = 1e-5  # of a normalised pixel: rounding, while one step of 256 is 0.004 / 0.27


@dataclass(frozen=True)
class FrozenClip:
    """An open_clip model with everything needed to encode without open_clip."""

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
                try:
                    part = prepare(items[start : start + size])
                except InputError as error:
                    raise type(error)(f"{error} (in the batch that starts at position {start})") from error
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
        tower = _open_clip_tower(self.model) if self.dynamic else None
        features = self.model.encode_text(tokens.long()) if tower is None else _cut(tower, tokens.long())  # type: ignore[operator]
        return F.normalize(features, dim=-1)


def _open_clip_tower(model: nn.Module) -> Any:
    """What holds the text tower of open_clip, which takes the whole context only; None of another one."""
    if isinstance(model, open_clip.CLIP):
        return model
    tower = getattr(model, "text", None)
    return tower if isinstance(tower, TextTransformer) and tower.cls_emb is None and not tower.use_pad_mask else None


def _cut(tower: Any, tokens: Tensor) -> Tensor:
    """open_clip's text tower, (B, L) -> (B, D), with positions and causal mask cut to L."""
    length, alone = tokens.shape[1], isinstance(tower, TextTransformer)
    x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=None if tower.attn_mask is None else tower.attn_mask[:length, :length])
    pool, end = (tower.pool_type, tower.eos_id) if alone else (tower.text_pool_type, tower.text_eos_id)
    pooled: Tensor = text_global_pool(tower.ln_final(x), tokens, pool, eos_token_id=end)
    projection = tower.text_projection
    if isinstance(projection, nn.Linear):
        pooled = projection(pooled)
    elif projection is not None:
        pooled = pooled @ projection
    return pooled


def load_frozen(model: str, pretrained: str | None = None, *, random_weights: bool = False) -> FrozenClip:
    """Load any open_clip model: a built-in name with ``pretrained``, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``.

    Args:
        model: open_clip's model name.
        pretrained: open_clip's tag or a checkpoint file; not used with a schema.
        random_weights: allow random weights, for tests of speed and size; the same ones every time.

    Raises:
        ConfigError: unknown model or weights, weights trained with another activation, no weights without
            ``random_weights``, or preprocessing that cannot be exported exactly.
    """
    _check_name(model)
    if not (pretrained or random_weights or ":" in model):
        raise ConfigError(
            f"model {model!r} has no weights: name them with --pretrained (see open_clip.list_pretrained()), "
            "or pass --random-weights to export noise on purpose"
        )
    _check_activation(model, pretrained)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights must be reproducible: a fusion is trained on them
            clip = open_clip.create_model(model, pretrained=pretrained, require_pretrained=not random_weights)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip raises RuntimeError, ValueError, OSError and hub errors alike
        raise ConfigError(f"open_clip cannot load model {model!r} with weights {pretrained!r}: {error}") from error
    clip = clip.eval().float().requires_grad_(False)
    tokenizer_json, text = export_tokenizer(tokenizer)
    text = cut_where_exact(clip, text, tokenizer_json)
    weights = pretrained or ("" if ":" in model else "random-weights")
    name = "/".join(filter(None, (model.removeprefix("local-dir:"), weights)))
    frozen = freeze(name, clip, _image_config(clip), text, tokenizer_json)
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(clip)), is_train=False)
    pixels = torch.stack([transform(picture) for picture in sample_images(3)]).numpy()
    check_same_inputs(frozen, tokenizer(sample_texts()).numpy(), pixels)
    return frozen


def freeze(name: str, clip: nn.Module, image: ImageConfig, text: TextConfig, tokenizer_json: str) -> FrozenClip:
    """A model with its preprocessing and its fingerprint; ``clip`` has ``encode_image`` and ``encode_text``."""
    same = replace(text, end_id=None) if text.kind == "hf" else text  # which follows from the tokenizer
    return FrozenClip(name, clip, image, text, tokenizer_json, _digest(clip, image, same, tokenizer_json))


def knows(model: str) -> bool:
    """Whether open_clip has a model of this name."""
    return open_clip.get_model_config(model.replace("/", "-")) is not None


def _check_name(model: str) -> None:
    """Refuse a name that open_clip does not know, with those near to it."""
    if ":" not in model and not knows(model):
        near = ", ".join(get_close_matches(model, open_clip.list_models())) or "see open_clip.list_models()"
        folder = f"; of a folder that open_clip wrote: local-dir:{model}" if Path(model).is_dir() else ""
        raise ConfigError(f"open_clip has no model {model!r}: {near}{folder}")


def _check_activation(model: str, pretrained: str | None) -> None:
    """Compare open_clip's configuration of a model with that of its weights, before any download; it only warns.

    The vectors would be plausible but worse: QuickGELU, ``x * sigmoid(1.702 x)``, is near GELU.
    """
    model = model.replace("/", "-")
    plain = model.removesuffix("-quickgelu")
    weights = open_clip.get_pretrained_cfg(plain, pretrained) if pretrained and ":" not in model else None
    right = plain + "-quickgelu" * bool(weights and weights.get("quick_gelu"))
    if (
        weights
        and right != model
        and knows(right)
        and bool(open_clip.get_model_config(model).get("quick_gelu")) != bool(weights.get("quick_gelu"))
    ):
        raise ConfigError(
            f"weights {pretrained!r} were trained with another activation than {model!r} has, so that vectors would be "
            f"wrong: use --model {right} --pretrained {pretrained}"
        )


def cut_where_exact(clip: nn.Module, text: TextConfig, tokenizer_json: str) -> TextConfig:
    """Let texts be cut to their length where the tower then gives the vectors of the whole context.

    That is tried on texts of several lengths: it is so for causal towers that read the end of a text and for those that
    mask their padding, and not where padding is read as the text is.
    """
    shorter = replace(text, dynamic=True, end_id=_end_of(text, tokenizer_json))
    ids = Tokenizer(tokenizer_json, text)(sample_texts()).ids
    try:
        exact = _is_exact(clip, shorter, ids)
    except Exception:  # of torch: the tower takes the whole context only
        exact = False
    found = shorter if exact else text
    return replace(found, buckets=found.lengths)


def _is_exact(clip: nn.Module, text: TextConfig, ids: npt.NDArray[np.int32]) -> bool:
    """Whether texts cut to their length have the vectors of the whole context; raises where the tower takes no less."""
    needed = needed_tokens(ids, text)
    rows = np.argsort(needed, kind="stable")[:: max(len(ids) // _CUTS, 1)]
    tower = TextTower(clip, text)
    with torch.inference_mode():
        whole = F.normalize(clip.encode_text(torch.from_numpy(ids[rows]).long()), dim=-1)  # type: ignore[operator]
        cuts = [tower(torch.from_numpy(ids[row : row + 1, : needed[row]].copy())) for row in rows]
    if _open_clip_tower(clip) is None:  # one of another library may have a length built in
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        with quiet(), torch.no_grad():
            torch.export.export(tower.eval(), (torch.from_numpy(ids[:2]),), dynamic_shapes=(free,), strict=False)
    return bool(needed.min() < text.context_length) and float((torch.cat(cuts) - whole).abs().max()) <= _SAME


def _end_of(text: TextConfig, tokenizer_json: str) -> int | None:
    """The padding's id where it also ends a text, of a tokenizer from Hugging Face."""
    if text.kind == "clip" or text.end_id is not None:
        return text.end_id
    last = Tokenizer(tokenizer_json, text).unpadded("a")[-1]
    return text.pad_id if last == text.pad_id else None


def _image_config(clip: nn.Module) -> ImageConfig:
    cfg = open_clip.get_model_preprocess_cfg(clip)
    side = cfg["size"]
    height, width = (side, side) if isinstance(side, int) else side
    return ImageConfig(
        size=(int(height), int(width)),
        interpolation=cfg.get("interpolation") or "bicubic",
        resize_mode=cfg.get("resize_mode") or "shortest",
        fill_color=int(cfg.get("fill_color") or 0),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )


def _digest(clip: nn.Module, image: ImageConfig, text: TextConfig, tokenizer_json: str) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    for part in (image.to_dict(), {k: v for k, v in text.to_dict().items() if k not in _HOW_IT_IS_CALLED}):
        digest.update(json.dumps(part, sort_keys=True).encode())
    digest.update(tokenizer_json.encode())
    return digest.hexdigest()


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
