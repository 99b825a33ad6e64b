"""open_clip's tokenizers as a file of the ``tokenizers`` library, and their config."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import regex  # type: ignore[import-untyped]
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

from ..errors import ConfigError
from ..preprocess import TextConfig
from ..preprocess.text import Clean

_LITERALS = ("<start_of_text>", "<end_of_text>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_CLASSES = (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]")
_PATTERN = "|".join((*_LITERALS, r"[\p{L}]+", r"[\p{N}]", r"[^\s\p{L}\p{N}]+"))
"""What open_clip splits by, ignoring case; letters, one digit, or punctuation."""
_CLEAN: tuple[Clean, ...] = ("lower", "whitespace", "canonicalize")


def export_tokenizer(open_clip_tokenizer: SimpleTokenizer | HFTokenizer) -> tuple[str, TextConfig]:
    """The tokenizer's file content and config, for :class:`reco_plugin.preprocess.Tokenizer`."""
    match open_clip_tokenizer:
        case SimpleTokenizer():
            return _export_clip(open_clip_tokenizer)
        case HFTokenizer():
            return _export_hf(open_clip_tokenizer)
    raise ConfigError(f"{type(open_clip_tokenizer).__name__} is neither open_clip's SimpleTokenizer nor HFTokenizer")


def _export_clip(source: SimpleTokenizer) -> tuple[str, TextConfig]:
    if source.reduction_fn is not None:
        raise ConfigError("reduction_mask drops tokens at random, for training only; make the tokenizer without it")
    if source.pat.pattern != _PATTERN or source.pat.flags & regex.IGNORECASE == 0:
        raise ConfigError(f"splitting by {source.pat.pattern!r} (additional special tokens?) is not supported")
    config = TextConfig(
        "clip", _context_length(source), _clean(source), pad_id=0, end_id=source.encoder["<end_of_text>"]
    )
    merges = [merge for merge in source.bpe_ranks if len(merge) == 2]  # an empty last line gives an empty one
    _check_merges(merges)
    backend = Tokenizer(models.BPE(vocab=source.encoder, merges=merges, end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_spelled_out()), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    special = ["<start_of_text>", "<end_of_text>"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[1]}", special_tokens=[(token, source.encoder[token]) for token in special]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return backend.to_str(), config


def _check_merges(merges: list[tuple[str, ...]]) -> None:
    """Refuse merges out of order: open_clip merges all pairs of a kind at once, the library one by one.

    In the order in which they were learnt, each pair of older symbols and one pair per symbol, both do the same.
    """
    made = {"".join(merge): rank for rank, merge in enumerate(merges)}
    for rank, merge in enumerate(merges):
        if made["".join(merge)] != rank or any(made.get(part, -1) >= rank for part in merge):
            raise ConfigError(f"merge {rank} of the byte-pair file, {' '.join(merge)!r}, is repeated or out of order")


def _export_hf(source: HFTokenizer) -> tuple[str, TextConfig]:
    if source.tokenizer_mode:
        raise ConfigError(f"tokenizer_mode {source.tokenizer_mode!r} is not supported, only the standard one")
    if hasattr(source, "set_lang_fn"):
        raise ConfigError("the tokenizer depends on a language that is set at run time, which is not supported")
    wrapped = source.tokenizer
    if not wrapped.is_fast:
        raise ConfigError(f"{type(wrapped).__name__} has no fast (Rust) version, so no tokenizer file")
    if wrapped.split_special_tokens:
        raise ConfigError("split_special_tokens is not supported: the tokenizer file cannot say it")
    if wrapped.pad_token_id is None or (source.strip_sep_token and wrapped.sep_token_id is None):
        raise ConfigError("the tokenizer lacks a pad token, or the sep token that strip_sep_token needs")
    length = _context_length(source)
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


def _context_length(source: SimpleTokenizer | HFTokenizer) -> int:
    if not source.context_length:
        raise ConfigError("the tokenizer has no context length; give it the one of the model")
    return int(source.context_length)


def _clean(source: SimpleTokenizer | HFTokenizer) -> Clean:
    for name in _CLEAN:
        if source.clean_fn is get_clean_fn(name):
            return name
    raise ConfigError(f"the cleaning function {source.clean_fn!r} is none of open_clip's {_CLEAN}")


@cache
def _spelled_out() -> str:
    """open_clip's pattern with every character spelled out, so that another regex engine reads it the same.

    The library's engine knows an older Unicode (17,144 letters fewer than `regex` 2026.11), folds ``st`` into a
    ligature, and does not drop U+0345, which `regex`, ignoring case, takes for neither a letter nor anything else.
    """
    letters, number, others = map(_character_set, _CLASSES)
    literals = ["".join(map(_character_set, literal)) for literal in _LITERALS]
    return "|".join([*literals, f"{letters}+", number, f"{others}+"])


@cache
def _character_set(expression: str) -> str:
    """``[...]`` of all characters that match a one-character expression, ignoring case."""
    found = regex.findall(expression, _every_character(), regex.IGNORECASE)
    return f"[{''.join(_ranges(sorted(map(ord, found))))}]"


@cache
def _every_character() -> str:
    codes = np.delete(np.arange(0x110000, dtype="<u4"), np.s_[0xD800:0xE000])
    return codes.tobytes().decode("utf-32-le")


def _ranges(codes: list[int]) -> Iterator[str]:
    first = codes[0]
    for code, after in zip(codes, [*codes[1:], -1], strict=True):
        if after != code + 1:
            yield rf"\x{{{first:X}}}-\x{{{code:X}}}"
            first = after
