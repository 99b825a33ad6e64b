"""Loads an open_clip model as a frozen CLIP, and converts its tokenizer to a file of the ``tokenizers`` library."""

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
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import TextTransformer, text_global_pool
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

from ..encoders.preprocess import ImageConfig, TextConfig, images_to_array
from ..encoders.preprocess.text import Clean
from ..encoders.preprocess.text import Tokenizer as ClipTokenizer
from ..errors import ConfigError, InputError
from ..progress import progress_bar
from ..types import ImageInput, Modality, Vectors
from .parity import sample_images, sample_texts, takes_short_texts

_CLEAN: tuple[Clean, ...] = ("lower", "whitespace", "canonicalize")


_ROUNDING = 1e-5  # largest difference of a normalised pixel; one step of 256 is 0.015


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
        """The dimension D of the vectors."""
        tokens = torch.zeros(1, self.text.context_length, dtype=torch.int32)
        with torch.no_grad():
            return int(self.tower("text")(tokens).shape[1])

    def tower(self, modality: Modality) -> nn.Module:
        """Return the module to export: pixels or tokens -> (B, D), unit-norm."""
        return ImageTower(self.model, self.image) if modality == "image" else TextTower(self.model, self.text)

    def images(self, images: Sequence[ImageInput], batch_size: int = 128) -> Vectors:
        """Encode images in torch to (N, D)."""
        return self._encode(images, "image", lambda part: images_to_array(part, self.image), batch_size)

    def texts(self, texts: Sequence[str], batch_size: int = 256) -> Vectors:
        """Encode texts in torch to (N, D)."""
        tokenizer = ClipTokenizer(self.tokenizer_json, self.text)
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
    """Normalises and encodes pixels: (B, H, W, 3) uint8 -> (B, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: ImageConfig) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(config.std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch (B, H, W, 3) to (B, D)."""
        x = pixels.float().permute(0, 3, 1, 2)  # cast first, since TensorRT takes bytes only into a cast
        x = (x / 255.0 - self.mean) / self.std
        return F.normalize(self.model.encode_image(x), dim=-1)


class TextTower(nn.Module):
    """Encodes tokens: (B, L) int32 -> (B, D); L may be shorter than the context if ``dynamic``."""

    def __init__(self, model: nn.Module, config: TextConfig) -> None:
        super().__init__()
        self.model = model
        self.dynamic = config.dynamic

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode a batch (B, L) to (B, D)."""
        model: Any = self.model
        tower = _causal_tower(model) if self.dynamic else None
        features = model.encode_text(tokens.long()) if tower is None else _encode_cut(tower, tokens.long())
        return F.normalize(features, dim=-1)


def _causal_tower(model: Any) -> Any:
    """Return the module with open_clip's causal text tower; None for other towers."""
    tower = getattr(model, "text", model)
    plain = isinstance(tower, TextTransformer) and tower.cls_emb is None and not tower.use_pad_mask
    return tower if plain or isinstance(tower, open_clip.CLIP) else None


def _encode_cut(tower: Any, tokens: Tensor) -> Tensor:
    """Run open_clip's text tower, (B, L) -> (B, D), with positions and causal mask shortened to L."""
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
    """Add the fingerprint to a model, and set ``dynamic`` if texts have the same vectors at their own length."""
    cut = cut_where_exact(clip, text, tokenizer_json)
    same = replace(cut, end_id=None) if cut.kind == "hf" else cut  # end_id follows from the tokenizer
    digest = hashlib.sha256()
    for key, tensor in sorted(clip.state_dict().items()):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    for part in (image.to_dict(), {k: v for k, v in same.to_dict().items() if k not in ("dynamic", "buckets")}):
        digest.update(json.dumps(part, sort_keys=True).encode())  # dynamic and buckets change no vector
    digest.update(tokenizer_json.encode())
    return FrozenClip(name, clip, image, cut, tokenizer_json, digest.hexdigest())


def cut_where_exact(clip: nn.Module, text: TextConfig, tokenizer_json: str) -> TextConfig:
    """Set ``dynamic`` if texts have the same vectors at their own length, as a test on sample texts shows.

    This holds for causal towers that read the end token, but not for towers that attend to padding.
    """
    if _causal_tower(clip) is None:
        return replace(text, buckets=text.lengths)
    shorter = replace(text, dynamic=True, end_id=_end_of(text, tokenizer_json))
    ids = ClipTokenizer(tokenizer_json, text)(sample_texts()).ids
    tower = TextTower(clip, shorter).eval()

    def run(rows: npt.NDArray[np.int32]) -> Vectors:
        with torch.inference_mode():
            return np.asarray(tower(torch.from_numpy(rows)).numpy(), np.float32)

    config = shorter if takes_short_texts(run, ids, shorter) else text
    return replace(config, buckets=config.lengths)


def _end_of(text: TextConfig, tokenizer_json: str) -> int | None:
    """Return the id of the padding if it also ends a text, for a tokenizer of Hugging Face."""
    if text.kind == "clip" or text.end_id is not None:
        return text.end_id
    last = ClipTokenizer(tokenizer_json, text).unpadded("a")[-1]
    return text.pad_id if last == text.pad_id else None


def check_same_inputs(clip: FrozenClip, ids: npt.NDArray[np.int64], pixels: npt.NDArray[np.float32]) -> None:
    """Compare the exported preprocessing of samples with open_clip's.

    Args:
        clip: the encoder.
        ids: ids (B, L) of :func:`.parity.sample_texts` by open_clip's tokenizer.
        pixels: pixels (B, 3, H, W) of three :func:`.parity.sample_images` by open_clip's transform.

    Raises:
        ConfigError: they differ.
    """
    ours = ClipTokenizer(clip.tokenizer_json, clip.text)(sample_texts()).ids
    if ours.shape != ids.shape or not np.array_equal(ours, ids):
        row = 0 if ours.shape != ids.shape else int((ours != ids).any(axis=1).argmax())
        raise ConfigError(
            f"the exported tokenizer of {clip.name} differs from the original on {sample_texts()[row][:60]!r}: "
            f"{ours[row][:12].tolist()}… of {ours.shape[1]} against {ids[row][:12].tolist()}… of {ids.shape[1]}"
        )
    mean, std = np.array(clip.image.mean, np.float32), np.array(clip.image.std, np.float32)
    made = ((images_to_array(sample_images(3), clip.image) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    if made.shape != pixels.shape or float(np.abs(made - pixels).max()) > _ROUNDING:
        raise ConfigError(
            f"the preprocessing of images by {clip.name} cannot be exported: {clip.image} does not reproduce it"
        )


def load_frozen(model: str, pretrained: str | None = None, *, random_weights: bool = False) -> FrozenClip:
    """Load any open_clip model: a built-in name with ``pretrained``, ``hf-hub:ORG/NAME`` or ``local-dir:PATH``.

    Args:
        model: name of the model in open_clip.
        pretrained: tag of open_clip or a checkpoint file; unused with a prefix such as ``hf-hub:``.
        random_weights: allow random weights, the same each time, for tests of speed and size.

    Raises:
        ConfigError: the model or the weights are unknown or missing, the weights were trained with another
            activation, or the preprocessing cannot be exported exactly.
    """
    if not (pretrained or random_weights or ":" in model):
        raise ConfigError(
            f"model {model!r} has no weights: name them with --pretrained (see open_clip.list_pretrained()), "
            "or pass --random-weights to export noise on purpose"
        )
    _check_activation(model, pretrained)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights must be reproducible, since a fusion may be trained on them
            clip = open_clip.create_model(model, pretrained=pretrained, require_pretrained=not random_weights)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip raises RuntimeError, ValueError, OSError and hub errors
        raise ConfigError(f"open_clip cannot load model {model!r} with weights {pretrained!r}: {error}") from error
    clip = clip.eval().float().requires_grad_(False)
    tokenizer_json, text = export_tokenizer(tokenizer)
    weights = pretrained or ("" if ":" in model else "random-weights")
    name = "/".join(filter(None, (model.removeprefix("local-dir:"), weights)))
    frozen = freeze(name, clip, _image_config(clip), text, tokenizer_json)
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(clip)), is_train=False)
    pixels = torch.stack([transform(picture) for picture in sample_images(3)]).numpy()
    check_same_inputs(frozen, tokenizer(sample_texts()).numpy(), pixels)
    return frozen


def _check_activation(model: str, pretrained: str | None) -> None:
    """Check that the weights were trained with the activation of the model, for which open_clip only warns.

    With another activation vectors would be worse, since QuickGELU, ``x * sigmoid(1.702 x)``, is only near GELU.
    """
    model = model.replace("/", "-")
    plain = model.removesuffix("-quickgelu")
    weights = open_clip.get_pretrained_cfg(plain, pretrained) if pretrained and ":" not in model else None
    right = plain + "-quickgelu" * bool(weights and weights.get("quick_gelu"))
    if (
        weights
        and right != model
        and (config := open_clip.get_model_config(model)) is not None
        and open_clip.get_model_config(right) is not None
        and bool(config.get("quick_gelu")) != bool(weights.get("quick_gelu"))
    ):
        raise ConfigError(
            f"weights {pretrained!r} were trained with another activation than that of {model!r}: use --model {right} "
            f"--pretrained {pretrained}"
        )


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


def export_tokenizer(source: SimpleTokenizer | HFTokenizer) -> tuple[str, TextConfig]:
    """Return the content of ``tokenizer.json`` and its configuration."""
    if not source.context_length:
        raise ConfigError("the tokenizer has no context length: set that of the model")
    match source:
        case SimpleTokenizer():
            return _export_clip(source)
        case HFTokenizer():
            return _export_hf(source)
    raise ConfigError(f"{type(source).__name__} is neither open_clip's SimpleTokenizer nor HFTokenizer")


def _export_clip(source: SimpleTokenizer) -> tuple[str, TextConfig]:
    """Convert CLIP's byte-pair tokenizer."""
    if source.reduction_fn is not None:
        raise ConfigError(
            "reduction_mask drops tokens at random, which is for training only: make the tokenizer without it"
        )
    special = ["<start_of_text>", "<end_of_text>"]
    merges = [merge for merge in source.bpe_ranks if len(merge) == 2]  # an empty last line gives an empty merge
    backend = Tokenizer(models.BPE(vocab=source.encoder, merges=merges, end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(source.pat.pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[1]}", special_tokens=[(token, source.encoder[token]) for token in special]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    length, end = int(source.context_length), source.encoder[special[1]]
    return backend.to_str(), TextConfig("clip", length, _clean(source), pad_id=0, end_id=end)


def _export_hf(source: HFTokenizer) -> tuple[str, TextConfig]:
    if source.tokenizer_mode or hasattr(source, "set_lang_fn"):
        raise ConfigError("a tokenizer_mode, or a language that is set at run time, cannot be exported")
    wrapped, length = source.tokenizer, int(source.context_length)
    if not wrapped.is_fast or wrapped.pad_token_id is None:
        raise ConfigError(
            f"{type(wrapped).__name__} has no fast (Rust) version, or no pad token: it cannot be exported"
        )
    strip_id = wrapped.sep_token_id if source.strip_sep_token else None
    backend = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    backend.enable_truncation(length, direction=wrapped.truncation_side)
    backend.enable_padding(
        length=length,
        direction=wrapped.padding_side,
        pad_id=wrapped.pad_token_id,
        pad_token=wrapped.pad_token,
        pad_type_id=wrapped.pad_token_type_id,
    )
    return backend.to_str(), TextConfig("hf", length, _clean(source), pad_id=wrapped.pad_token_id, strip_id=strip_id)


def _clean(source: SimpleTokenizer | HFTokenizer) -> Clean:
    for name in _CLEAN:
        if source.clean_fn is get_clean_fn(name):
            return name
    raise ConfigError(f"the cleaning function {source.clean_fn!r} is none of open_clip's {_CLEAN}")
