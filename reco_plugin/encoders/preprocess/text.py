"""Texts -> (B, L) token ids by the ``tokenizers`` library, equal to those of open_clip's tokenizers.

:func:`reco_plugin.export.open_clip.export_tokenizer` writes the tokenizer file. Letters that are newer than the Unicode
version of the library may be split differently. Cleaning depends on the versions of ftfy and Python, as in open_clip.
"""

from __future__ import annotations

import html
import os
import re
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ...errors import ArtifactError, ConfigError, InputError
from ...values import CONTEXT_LENGTH

if TYPE_CHECKING:
    import tokenizers

TokenizerKind: TypeAlias = Literal["clip", "hf"]
Clean: TypeAlias = Literal["lower", "whitespace", "canonicalize", "none", "case"]
TokenId: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds: TypeAlias = npt.NDArray[np.int32]

BUCKETS = (16, 32, 48, 64, 77)
"""Lengths that a batch is cut to for a server, which merges requests of equal length only."""
_CALL_TOKENS = 16  # tokens of padding that cost as much as one more call of the graph
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLEAN = re.compile(r"[\t\n -%'-~]*")  # ASCII without ampersand and control characters needs no cleaning
_MAX_CHARS, _CHARS_PER_TOKEN = 4_000, 50
"""Characters of a text that are read; in a long context, so many per token. On some texts, the time of ftfy is
quadratic."""


@dataclass(frozen=True)
class TextConfig:
    """Text preprocessing of the encoder; reading a manifest checks the values."""

    kind: TokenizerKind  # clip: open_clip's byte-pair tokenizer; hf: a tokenizer of Hugging Face
    context_length: Annotated[int, Field(ge=1, le=CONTEXT_LENGTH)]  # L
    clean: Clean
    """Cleaning before the tokenizer. open_clip's ``whitespace`` repairs a text and collapses white space, ``lower``
    also lowers its case, and ``canonicalize`` also drops ASCII punctuation. ``case`` only lowers the case."""
    pad_id: TokenId  # fills a row up to L
    end_id: TokenId | None = None  # last token of every text; for kind hf only if it is the padding, too
    strip_id: TokenId | None = None  # replaced by 0 (open_clip's ``strip_sep_token``); for kind hf only
    dynamic: bool = False  # whether the graph takes fewer than L tokens and computes the same vectors
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = BUCKETS
    """Lengths besides L that a batch is cut to if ``dynamic``; no part of the fingerprint."""

    def __post_init__(self) -> None:
        if self.kind == "clip" and (self.end_id is None or self.strip_id is not None):
            raise ConfigError(f"kind clip needs end_id, not strip_id; got {self.end_id!r} and {self.strip_id!r}")
        if self.kind == "hf" and self.end_id not in (None, self.pad_id):
            raise ConfigError(f"kind hf takes end_id only where it is the pad_id {self.pad_id}, not {self.end_id}")

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """All lengths of the graph's inputs, ascending; the last is the context length."""
        shorter = {length for length in self.buckets if length < self.context_length} if self.dynamic else set()
        return (*sorted(shorter), self.context_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-like values."""
        return asdict(self)


@dataclass(frozen=True)
class Tokens:
    """Tokens of B texts."""

    ids: TokenIds  # (B, L) int32, padded to the context length
    truncated: npt.NDArray[np.bool_]  # (B,) whether each text was truncated


class Tokenizer:
    """Cleans and tokenizes texts; may be shared between threads.

    Args:
        tokenizer_json: path of ``tokenizer.json``, or its content.
        config: the configuration that was exported with the tokenizer.

    Raises:
        ArtifactError: the file is missing or is not a tokenizer.
    """

    def __init__(self, tokenizer_json: str | Path, config: TextConfig) -> None:
        self.config = config
        self._backend = _load(tokenizer_json)
        if config.kind == "clip":
            self._prepare_clip()
        else:
            self._prepare_hf()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize B texts to ids (B, L); an empty text is valid.

        Raises:
            InputError: the list is empty, or an item is not a string.
        """
        if isinstance(texts, str) or not hasattr(texts, "__len__"):
            raise InputError(f"texts is a single {type(texts).__name__}; pass a list of texts, [text]")
        if not len(texts):
            raise InputError("texts is empty; pass at least one text")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {index} is a {type(text).__name__}, not a string")
        limit = max(_MAX_CHARS, _CHARS_PER_TOKEN * self.config.context_length)
        cleaned = [clean(text[:limit], self.config.clean) for text in texts]
        return self._clip(cleaned) if self.config.kind == "clip" else self._hf(cleaned)

    def unpadded(self, text: str) -> list[int]:
        """Return the ids of a text, start and end included, without padding."""
        encoding = self._backend.encode(text)
        return [id for id, mask in zip(encoding.ids, encoding.attention_mask, strict=True) if mask]

    def _prepare_clip(self) -> None:
        self._special = {token.content: id for id, token in self._backend.get_added_tokens_decoder().items()}
        frame = self._backend.encode("").ids
        if len(frame) != 2 or frame[-1] != self.config.end_id:
            raise ArtifactError(
                f"the tokenizer puts {frame} around a text, but end_id is {self.config.end_id}: export the model again"
            )
        self._start, self._end = frame

    def _clip(self, texts: list[str]) -> Tokens:
        length = self.config.context_length
        ids: TokenIds = np.full((len(texts), length), self.config.pad_id, np.int32)
        truncated = np.zeros(len(texts), bool)
        for index, encoding in enumerate(self._backend.encode_batch_fast(texts)):
            row = encoding.ids
            for token in self._special:
                if token in texts[index]:
                    row = self._with_special(texts[index])
            truncated[index] = len(row) > length
            ids[index, : len(row)] = row[:length]
        ids[truncated, -1] = self._end
        return Tokens(ids, truncated)

    def _with_special(self, text: str) -> list[int]:
        """Tokenize a text that contains a special token literally, as open_clip does.

        ``a <end_of_text>`` has the token. ``a !<end_of_text>`` does not, since open_clip takes ``!<`` as one piece.
        """
        pre_tokenizer, model = self._backend.pre_tokenizer, self._backend.model
        row = [self._start]
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            row += [self._special[piece]] if piece in self._special else [t.id for t in model.tokenize(piece)]
        return [*row, self._end]

    def _prepare_hf(self) -> None:
        backend, length = self._backend, self.config.context_length
        if backend.truncation is None or backend.padding is None:
            raise ArtifactError("the tokenizer has no truncation and padding: export the model again")
        backend.enable_truncation(**backend.truncation | {"max_length": length})
        backend.enable_padding(**backend.padding | {"length": length, "pad_id": self.config.pad_id})

    def _hf(self, texts: list[str]) -> Tokens:
        encodings = self._backend.encode_batch_fast(texts)
        ids: TokenIds = np.array([encoding.ids for encoding in encodings], np.int32)  # (B, L)
        if self.config.strip_id is not None:
            ids[ids == self.config.strip_id] = 0
        return Tokens(ids, np.array([bool(encoding.overflowing) for encoding in encodings]))


def clean(text: str, how: Clean) -> str:
    """Clean a text as :attr:`TextConfig.clean` states: mojibake, HTML entities (escaped up to twice), white space.

    >>> clean("  Fran&amp;ccedil;ois   â€” schÃ¶n ", "lower")
    'françois — schön'
    """
    if how in ("none", "case"):
        return text.lower() if how == "case" else text
    if not _CLEAN.fullmatch(text):
        from ftfy import fix_text

        text = html.unescape(html.unescape(fix_text(text)))
    text = text.strip()
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
        return " ".join(text.split())
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


def cut_to_longest(ids: TokenIds, config: TextConfig, *, exact: bool = False) -> TokenIds:
    """Cut a batch to the length of its longest text. The vectors stay the same, since no token reads the padding.

    Args:
        ids: (B, L) from a tokenizer.
        config: unless it is ``dynamic``, ids stay unchanged.
        exact: whether the length is not rounded up to a bucket.

    >>> config = TextConfig("clip", 8, "lower", pad_id=0, end_id=9, dynamic=True, buckets=(2, 4))
    >>> ids = np.array([[1, 5, 9, 0, 0, 0, 0, 0]], np.int32)
    >>> cut_to_longest(ids, config)
    array([[1, 5, 9, 0]], dtype=int32)
    >>> cut_to_longest(ids, config, exact=True)
    array([[1, 5, 9]], dtype=int32)
    """
    return np.ascontiguousarray(ids[:, : lengths_of(ids, config, exact).max()]) if len(ids) else ids


def cut_by_length(
    ids: TokenIds, config: TextConfig, *, exact: bool = False
) -> list[tuple[npt.NDArray[np.intp], TokenIds]]:
    """Split a batch into batches of similar length, at the least cost of padding and calls of the graph.

    Args:
        ids: (B, L) from a tokenizer.
        config: as in :func:`cut_to_longest`.
        exact: as in :func:`cut_to_longest`.

    Returns:
        The rows of each batch, ascending, and their ids; B rows in all.

    >>> config = TextConfig("clip", 80, "lower", pad_id=0, end_id=9, dynamic=True)
    >>> ids = np.zeros((4, 80), np.int32)
    >>> ids[range(4), [3, 5, 60, 7]] = 9
    >>> [(rows.tolist(), cut.shape) for rows, cut in cut_by_length(ids, config)]
    [([0, 1, 3], (3, 16)), ([2], (1, 64))]
    >>> [(rows.tolist(), cut.shape) for rows, cut in cut_by_length(ids, config, exact=True)]
    [([0, 1, 3], (3, 8)), ([2], (1, 61))]
    """
    lengths, parts, cut = lengths_of(ids, config, exact), [], 0
    if lengths.min() == (longest := lengths.max()):  # for example a single text
        return [(np.arange(len(ids)), np.ascontiguousarray(ids[:, :longest]))]
    for step in _cheapest_cuts(*np.unique(lengths, return_counts=True)):
        rows = np.flatnonzero((lengths > cut) & (lengths <= step))
        parts.append((rows, np.ascontiguousarray(ids[rows, :step])))
        cut = step
    return parts


def _cheapest_cuts(lengths: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]) -> list[int]:
    """Return the lengths to cut to, the longest last, for the ascending lengths of texts and their counts.

    >>> _cheapest_cuts(np.array([8, 9, 30]), np.array([4, 9, 1]))
    [9, 30]
    """
    steps, upto = lengths.tolist(), [0, *np.cumsum(counts).tolist()]
    cheapest = [(0, 0)]  # for the first n lengths: cost, and first length of the last batch
    for end, step in enumerate(steps, 1):
        cheapest.append(
            min((cheapest[start][0] + _CALL_TOKENS + (upto[end] - upto[start]) * step, start) for start in range(end))
        )
    cuts, end = list[int](), len(steps)
    while end:
        cuts.append(steps[end - 1])
        end = cheapest[end][1]
    return cuts[::-1]


def needed_tokens(ids: TokenIds, config: TextConfig) -> npt.NDArray[np.intp]:
    """Count the tokens of each row (B, L) without padding, the end token included: (B,).

    The count is L if a row has neither an end token nor a token of a text.
    """
    length = ids.shape[1]
    marks = ids == config.end_id if config.kind == "clip" else ids != config.pad_id
    last = length - np.argmax(marks[:, ::-1], axis=1)
    if config.kind == "hf" and config.end_id is not None:  # the first token of the padding is the end token
        last = np.minimum(last + 1, length)
    return np.asarray(np.where(marks.any(axis=1), last, length), np.intp)


def lengths_of(ids: TokenIds, config: TextConfig, exact: bool) -> npt.NDArray[np.intp]:
    """Return the input length of each row (B, L): (B,), rounded up to a bucket unless ``exact``."""
    if not config.dynamic:
        return np.full(len(ids), ids.shape[1])
    needed = needed_tokens(ids, config)
    if exact:
        return needed
    rounded: npt.NDArray[np.intp] = np.asarray(config.lengths)[np.searchsorted(config.lengths, needed)]
    return rounded


def _load(source: str | Path) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend

    content = isinstance(source, str) and source.lstrip().startswith("{")
    try:
        return Backend.from_str(str(source) if content else Path(source).read_text("utf-8"))
    except OSError as error:
        raise ArtifactError(f"the tokenizer {os.fspath(source)!r} cannot be read ({error}); export it again") from error
    except Exception as error:  # the library raises Exception itself
        name = "the given text" if content else repr(os.fspath(source))
        raise ArtifactError(f"{name} is not a tokenizer file ({error}); export it again") from error
