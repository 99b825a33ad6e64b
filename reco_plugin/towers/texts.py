"""How a model's own files have its texts prepared: tokenizer, length, padding, case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from ..errors import ArtifactError, ConfigError
from ..preprocess import BUCKETS, TextConfig
from ..preprocess.text import Clean
from ..values import CONTEXT_LENGTH
from .source import Files

_LONGER = (128, 256, 512)
"""Lengths that a batch is cut to, of towers that read more than CLIP."""
_LOWER = "ABC"  # what a tokenizer that lowers the case by itself does not keep


@dataclass(frozen=True)
class TextSteps:
    """A tokenizer and how it is used."""

    tokenizer_json: str
    text: TextConfig  # not dynamic yet; its buckets are what a batch might be cut to
    masked: bool
    """Whether the model was trained with a mask of its padding, where its graph takes one."""


def read_texts(files: Files) -> TextSteps:
    """Read how texts are prepared.

    Raises:
        ConfigError: a value that is missing, or cannot be one.
        ArtifactError: the tokenizer cannot be read.
    """
    try:
        return _read_texts(files)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"config.json or tokenizer_config.json beside {files.tokenizer} holds a value that cannot be read "
            f"({error}): mend it, or fetch it again"
        ) from None


def _read_texts(files: Files) -> TextSteps:
    backend, config = _load(files), files.tokenizing
    siglip = str(files.config.get("model_type", "")).startswith("siglip")
    # SigLIP2's tokenizer says left, and its processor pads right
    side = "right" if siglip else config.get("padding_side") or "right"
    limit, pad = _length(files), _pad_token(backend, config, files)
    pad_id = backend.token_to_id(pad)
    if pad_id is None:
        raise ConfigError(f"{files.tokenizer} has no token {pad!r}, with which tokenizer_config.json fills texts")
    backend.no_padding()  # a file may hold it: its last token would be taken for the one that ends a text
    backend.no_truncation()
    frame = backend.encode("").ids
    end_id = pad_id if frame and frame[-1] == pad_id else None
    backend.enable_truncation(limit, direction=config.get("truncation_side") or "right")
    backend.enable_padding(length=limit, direction=side, pad_id=pad_id, pad_token=pad)
    buckets = (*BUCKETS, *(one for one in _LONGER if one > BUCKETS[-1]))
    text = TextConfig("hf", limit, _clean(files, backend, siglip=siglip), pad_id, end_id, buckets=buckets)
    names = config.get("model_input_names")
    # SigLIP was trained on texts padded to one length, whose padding is read as the text is
    masked = (names is None or "attention_mask" in names) and not siglip
    return TextSteps(backend.to_str(), text, masked)


def _load(files: Files) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(files.tokenizer.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{files.tokenizer} is no file of the tokenizers library ({error})") from None


def _length(files: Files) -> int:
    """Most tokens of a text: the least that any of the files says."""
    own = files.config.get("text_config", files.config)
    said = {
        "max_position_embeddings": own.get("max_position_embeddings") if isinstance(own, Mapping) else None,
        "model_max_length": files.tokenizing.get("model_max_length"),
    }
    lengths = [int(value) for value in said.values() if isinstance(value, int | float) and 0 < value <= CONTEXT_LENGTH]
    if not lengths:
        raise ConfigError(
            f"no file beside {files.tokenizer} says how many tokens a text may have: set max_position_embeddings in "
            "config.json or model_max_length in tokenizer_config.json"
        )
    return min(lengths)


def _pad_token(backend: tokenizers.Tokenizer, config: Mapping[str, Any], files: Files) -> str:
    """The token that texts are filled with."""
    said = config.get("pad_token") or (backend.padding or {}).get("pad_token")
    token = said.get("content") if isinstance(said, Mapping) else said
    if not isinstance(token, str):
        raise ConfigError(
            f"no file says which token of {files.tokenizer} fills texts: set pad_token in tokenizer_config.json"
        )
    return token


def _clean(files: Files, backend: tokenizers.Tokenizer, *, siglip: bool) -> Clean:
    """What is done to a text before the tokenizer, which may lower its case and collapse white space by itself."""
    normalised = backend.normalizer.normalize_str(_LOWER) if backend.normalizer else _LOWER
    if _LOWER not in normalised:
        return "none"
    # the first SigLIP's tokenizer drops punctuation before its file is asked
    if siglip and str(files.tokenizing.get("tokenizer_class", "")).startswith("SiglipTokenizer"):
        return "canonicalize"
    return "case" if files.tokenizing.get("do_lower_case") or siglip else "none"
