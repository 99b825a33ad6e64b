"""How a model's own files have its texts prepared: tokenizer, length, padding, case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ..errors import ArtifactError, ConfigError
from ..preprocess import BUCKETS, TextConfig
from ..preprocess.text import Clean
from ..values import CONTEXT_LENGTH
from .options import AddOptions
from .source import Files

_LONGER = (128, 256, 512)
"""Lengths that a batch is cut to, of towers that read more than CLIP."""
_OPEN_CLIP: dict[str, Clean] = {"canonicalize": "canonicalize", "lower": "lower", "whitespace": "whitespace"}
_LOWER = "ABC"  # what a tokenizer that lowers the case by itself does not keep


@dataclass(frozen=True)
class TextSteps:
    """A tokenizer and how it is used."""

    tokenizer_json: str
    text: TextConfig  # not dynamic yet; its buckets are what a batch might be cut to
    largest: int  # token id
    masked: bool
    """Whether the model was trained with a mask of its padding, where its graph takes one."""


def read_texts(files: Files, options: AddOptions, length: int | None) -> TextSteps:
    """Read how texts are prepared.

    Args:
        files: the model's.
        options: what the caller says instead.
        length: L of the graph, None where it takes any.

    Raises:
        ConfigError: what is missing, with the flag that gives it; a value in the files that cannot be one.
        ArtifactError: the tokenizer cannot be read.
    """
    try:
        return _read_texts(files, options, length)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"config.json or tokenizer_config.json beside {files.tokenizer} holds a value that cannot be read "
            f"({error}): mend it, or fetch it again"
        ) from None


def _read_texts(files: Files, options: AddOptions, length: int | None) -> TextSteps:
    backend = _load(files.tokenizer)
    config = files.tokenizing
    side = config.get("padding_side") or "right"
    if _cuts_texts(files):
        side = "right"  # SigLIP2's tokenizer says left, and its processor pads right
    limit = _length(files, options, length)
    pad = _pad_token(backend, config, options, files.tokenizer)
    pad_id = backend.token_to_id(pad)
    if pad_id is None:
        raise ConfigError(f"{files.tokenizer} has no token {pad!r} to fill texts with: name another by --pad-token")
    backend.no_padding()  # a file may hold it: its last token would be taken for the one that ends a text
    backend.no_truncation()
    frame = backend.encode("").ids
    if limit <= len(frame):
        raise ConfigError(
            f"texts of {limit} tokens hold no word, since {files.tokenizer} puts {len(frame)} around each: give a "
            "larger --context-length"
        )
    end_id = pad_id if frame and frame[-1] == pad_id else None
    backend.enable_truncation(limit, direction=config.get("truncation_side") or "right")
    backend.enable_padding(length=limit, direction=side, pad_id=pad_id, pad_token=pad)
    buckets = (*BUCKETS, *(one for one in _LONGER if one > BUCKETS[-1]))
    text = TextConfig("hf", limit, _clean(files, backend, options), pad_id, end_id, buckets=buckets)
    names = config.get("model_input_names")
    masked = (names is None or "attention_mask" in names) and not _pads_without_mask(files)
    return TextSteps(backend.to_str(), text, max(backend.get_vocab().values()), masked)


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(
            f"{path} is no file of the tokenizers library ({error}): give its tokenizer.json by --tokenizer"
        ) from None


def _of_open_clip(files: Files) -> Mapping[str, Any] | None:
    """open_clip's description of the text tower, where the folder has it."""
    config = files.config.get("model_cfg", files.config)
    found = config.get("text_cfg")
    return found if isinstance(found, Mapping) and "vision_cfg" in config else None


def _siglip(files: Files) -> bool:
    return str(files.config.get("model_type", "")).startswith("siglip")


def _cuts_texts(files: Files) -> bool:
    return _siglip(files)


def _pads_without_mask(files: Files) -> bool:
    """SigLIP was trained on texts padded to one length, whose padding is read as the text is."""
    return _siglip(files)


def _length(files: Files, options: AddOptions, of_graph: int | None) -> int:
    """Most tokens of a text: the least that any of the files says."""
    if options.context_length and of_graph not in (None, options.context_length):
        raise ConfigError(
            f"--context-length {options.context_length} is not the {of_graph} tokens that {files.text} takes"
        )
    if found := options.context_length or of_graph:
        return found
    own, open_clip = files.config.get("text_config", files.config), _of_open_clip(files)
    said = {
        "max_position_embeddings": own.get("max_position_embeddings") if isinstance(own, Mapping) else None,
        "model_max_length": files.tokenizing.get("model_max_length"),
        "context_length": (open_clip or files.config).get("context_length", 77 if open_clip else None),
    }
    lengths = [int(value) for value in said.values() if isinstance(value, int | float) and 0 < value <= CONTEXT_LENGTH]
    if not lengths:
        raise ConfigError(
            f"no file says how many tokens a text may have ({', '.join(said)} of config.json and "
            "tokenizer_config.json): give --context-length"
        )
    return min(lengths)


def _pad_token(backend: tokenizers.Tokenizer, config: Mapping[str, Any], options: AddOptions, path: Path) -> str:
    """The token that texts are filled with."""
    said = options.pad_token or config.get("pad_token") or (backend.padding or {}).get("pad_token")
    token = said.get("content") if isinstance(said, Mapping) else said
    if isinstance(token, str):
        return token
    for usual in ("<pad>", "[PAD]", "<|endoftext|>"):
        if backend.token_to_id(usual) is not None:
            return usual
    raise ConfigError(f"no file says which token of {path} fills texts (pad_token): give --pad-token")


def _clean(files: Files, backend: tokenizers.Tokenizer, options: AddOptions) -> Clean:
    """What is done to a text before the tokenizer, which may lower its case and collapse white space by itself."""
    open_clip = _of_open_clip(files)
    if open_clip is not None and options.lower is None:
        usual = "whitespace" if open_clip.get("hf_tokenizer_name") else "lower"
        named = (open_clip.get("tokenizer_kwargs") or {}).get("clean", usual)
        if named not in _OPEN_CLIP:
            raise ConfigError(f"cleaning {named!r} of texts (tokenizer_kwargs.clean) is none of {sorted(_OPEN_CLIP)}")
        return _OPEN_CLIP[named]
    normalised = backend.normalizer.normalize_str(_LOWER) if backend.normalizer else _LOWER
    if _LOWER not in normalised:
        if options.lower is False:
            raise ConfigError(f"{files.tokenizer} lower-cases by itself: leave --no-lower out")
        return "none"
    if options.lower is not None:
        return "case" if options.lower else "none"
    if _siglip(files) and _takes_sentencepiece(files):
        return "canonicalize"
    return "case" if files.tokenizing.get("do_lower_case") or _siglip(files) else "none"


def _takes_sentencepiece(files: Files) -> bool:
    """Whether texts are those of the first SigLIP, whose tokenizer drops punctuation before its file is asked."""
    return str(files.tokenizing.get("tokenizer_class", "")).startswith("SiglipTokenizer")
