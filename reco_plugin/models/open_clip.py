"""Load an open_clip model as a frozen CLIP, with its tokenizer as a file of the ``tokenizers`` library."""

from __future__ import annotations

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from open_clip.transform import PreprocessCfg, image_transform_v2
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from torch import nn

from ..errors import ConfigError
from ..preprocess import ImageConfig, TextConfig
from ..preprocess.text import Clean
from .encoder import FrozenClip, check_same_inputs, freeze
from .parity import sample_images, sample_texts

_CLEAN: tuple[Clean, ...] = ("lower", "whitespace", "canonicalize")


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
    weights = pretrained or ("" if ":" in model else "random-weights")
    name = "/".join(filter(None, (model.removeprefix("local-dir:"), weights)))
    frozen = freeze(name, clip, _image_config(clip), text, tokenizer_json)
    transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(clip)), is_train=False)
    pixels = torch.stack([transform(picture) for picture in sample_images(3)]).numpy()
    check_same_inputs(frozen, tokenizer(sample_texts()).numpy(), pixels)
    return frozen


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
        and (own := open_clip.get_model_config(model)) is not None
        and open_clip.get_model_config(right) is not None
        and bool(own.get("quick_gelu")) != bool(weights.get("quick_gelu"))
    ):
        raise ConfigError(
            f"weights {pretrained!r} were trained with another activation than {model!r} has, so that vectors would be "
            f"wrong: use --model {right} --pretrained {pretrained}"
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
    """The tokenizer's file content and config, for :class:`reco_plugin.preprocess.Tokenizer`."""
    if not source.context_length:
        raise ConfigError("the tokenizer has no context length; give it the one of the model")
    match source:
        case SimpleTokenizer():
            return _export_clip(source)
        case HFTokenizer():
            return _export_hf(source)
    raise ConfigError(f"{type(source).__name__} is neither open_clip's SimpleTokenizer nor HFTokenizer")


def _export_clip(source: SimpleTokenizer) -> tuple[str, TextConfig]:
    """CLIP's byte pairs. The library may know an older Unicode, and split letters of the newest one otherwise."""
    if source.reduction_fn is not None:
        raise ConfigError("reduction_mask drops tokens at random, for training only; make the tokenizer without it")
    special = ["<start_of_text>", "<end_of_text>"]
    merges = [merge for merge in source.bpe_ranks if len(merge) == 2]  # an empty last line gives an empty one
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
