"""Texts -> (B, L) token ids, equal to those of open_clip's tokenizers, by the ``tokenizers`` library.

The tokenizer file comes from :func:`reco_plugin.export.open_clip.export_tokenizer`. Letters that are newer than the
library's Unicode may be split otherwise. Cleaning depends on the versions of ftfy and of Python, as in open_clip.
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
"""Lengths that a batch is cut to on a server: few, so that its batches still merge."""
_A_CALL = 16  # tokens of padding that cost as much as one more call of the graph
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PLAIN = re.compile(r"[\t\n -%'-~]*")  # ASCII without ampersand and control characters: nothing to clean
_CHARACTERS, _PER_TOKEN = 4_000, 50
"""Characters of a text that are read, or per token of a long context: ftfy's time grows with the square of some
texts."""


@dataclass(frozen=True)
class TextConfig:
    """Text preprocessing of the encoder; a manifest's values are checked when it is read."""

    kind: TokenizerKind  # clip is open_clip's own byte-pair tokenizer, hf one from Hugging Face
    context_length: Annotated[int, Field(ge=1, le=CONTEXT_LENGTH)]  # L
    clean: Clean
    """Before the tokenizer: open_clip's ``lower``, ``whitespace`` and ``canonicalize`` mend a text and collapse white
    space, the first and the last lower its case, the last drops ASCII punctuation; ``case`` only lowers the case."""
    pad_id: TokenId  # fills a row up to L
    end_id: TokenId | None = None  # ends a text, also a truncated one; of kind hf where texts are padded with it
    strip_id: TokenId | None = None  # becomes 0 at the end (open_clip's ``strip_sep_token``); only for kind hf
    dynamic: bool = False  # the graph takes fewer than L tokens and gives the same vectors
    buckets: tuple[Annotated[int, Field(ge=1)], ...] = BUCKETS
    """Lengths that a batch is cut to where ``dynamic``, beside L; no part of the fingerprint."""

    def __post_init__(self) -> None:
        if self.kind == "clip" and (self.end_id is None or self.strip_id is not None):
            raise ConfigError(f"kind clip needs end_id, not strip_id; got {self.end_id!r} and {self.strip_id!r}")
        if self.kind == "hf" and self.end_id not in (None, self.pad_id):
            raise ConfigError(f"kind hf takes end_id only where it is the pad_id {self.pad_id}, not {self.end_id}")

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Every L that the graph is given, ascending; the last is the context length."""
        shorter = {length for length in self.buckets if length < self.context_length} if self.dynamic else set()
        return (*sorted(shorter), self.context_length)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-like values."""
        return asdict(self)


@dataclass(frozen=True)
class Tokens:
    """Tokens of B texts."""

    ids: TokenIds  # (B, L) int32, padded to the context length
    truncated: npt.NDArray[np.bool_]  # (B,) True where the text was truncated


class Tokenizer:
    """Cleans and tokenizes texts; may be shared between threads.

    Args:
        tokenizer_json: the file, or its content.
        config: must be the one exported with it.

    Raises:
        ArtifactError: the file is missing or not a tokenizer.
    """

    def __init__(self, tokenizer_json: str | Path, config: TextConfig) -> None:
        self.config = config
        self._backend = _load(tokenizer_json)
        if config.kind == "clip":
            self._prepare_clip()
        else:
            self._prepare_hf()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize texts; ids (B, L). An empty text is valid.

        Raises:
            InputError: there is no text, or one of them is not a string.
        """
        if isinstance(texts, str) or not hasattr(texts, "__len__"):
            raise InputError(f"texts is a single {type(texts).__name__}; pass a list of texts, [text]")
        if not len(texts):
            raise InputError("texts is empty; pass at least one text")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {index} is a {type(text).__name__}, not a string")
        most = max(_CHARACTERS, _PER_TOKEN * self.config.context_length)
        cleaned = [clean(text[:most], self.config.clean) for text in texts]
        return self._clip(cleaned) if self.config.kind == "clip" else self._hf(cleaned)

    def unpadded(self, text: str) -> list[int]:
        """Ids of a text with what frames it, without padding."""
        encoding = self._backend.encode(text)
        return [id for id, mask in zip(encoding.ids, encoding.attention_mask, strict=True) if mask]

    def _prepare_clip(self) -> None:
        self._special = {token.content: id for id, token in self._backend.get_added_tokens_decoder().items()}
        frame = self._backend.encode("").ids
        if len(frame) != 2 or frame[-1] != self.config.end_id:
            raise ArtifactError(
                f"the tokenizer frames a text by {frame}, its config says that a text ends with {self.config.end_id}; "
                "export both together"
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
        """Tokenize a text with a literal special token, which counts unless punctuation precedes it.

        ``a <end_of_text>`` holds the token; in ``a !<end_of_text>``, open_clip alone takes ``!<`` as one piece.
        """
        pre_tokenizer, model = self._backend.pre_tokenizer, self._backend.model
        row = [self._start]
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            row += [self._special[piece]] if piece in self._special else [t.id for t in model.tokenize(piece)]
        return [*row, self._end]

    def _prepare_hf(self) -> None:
        backend, length = self._backend, self.config.context_length
        if backend.truncation is None or backend.padding is None:
            raise ArtifactError("the tokenizer says nothing of truncation and padding; export it again")
        backend.enable_truncation(**backend.truncation | {"max_length": length})
        backend.enable_padding(**backend.padding | {"length": length, "pad_id": self.config.pad_id})

    def _hf(self, texts: list[str]) -> Tokens:
        encodings = self._backend.encode_batch_fast(texts)
        ids: TokenIds = np.array([encoding.ids for encoding in encodings], np.int32)  # (B, L)
        if self.config.strip_id is not None:
            ids[ids == self.config.strip_id] = 0
        return Tokens(ids, np.array([bool(encoding.overflowing) for encoding in encodings]))


def clean(text: str, how: Clean) -> str:
    """Clean a text, as open_clip does or hardly at all: mojibake, HTML entities (escaped twice at most), white space.

    >>> clean("  Fran&amp;ccedil;ois   â€” schÃ¶n ", "lower")
    'françois — schön'
    """
    if how in ("none", "case"):
        return text.lower() if how == "case" else text
    if not _PLAIN.fullmatch(text):
        from ftfy import fix_text

        text = html.unescape(html.unescape(fix_text(text)))
    text = text.strip()
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
        return " ".join(text.split())
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


def cut_to_longest(ids: TokenIds, config: TextConfig, *, exact: bool = False) -> TokenIds:
    """Cut a batch after its longest text; the vectors stay the same where ``config.dynamic``.

    A causal tower that reads the end token does not attend beyond it.

    Args:
        ids: (B, L) from a tokenizer.
        config: without ``dynamic``, ids stay unchanged.
        exact: not rounded up to a bucket, for a graph in this process.

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
    """Cut a batch into batches of texts of about the same length, so that a short text is not padded to a long one.

    They are the cheapest ones, where a call of the graph costs as much as some tokens of padding.

    Args:
        ids: (B, L) from a tokenizer.
        config: as in :func:`cut_to_longest`.
        exact: as there.

    Returns:
        The rows of each batch, ascending, and their ids; B texts in all.

    >>> config = TextConfig("clip", 80, "lower", pad_id=0, end_id=9, dynamic=True)
    >>> ids = np.zeros((4, 80), np.int32)
    >>> ids[range(4), [3, 5, 60, 7]] = 9
    >>> [(rows.tolist(), cut.shape) for rows, cut in cut_by_length(ids, config)]
    [([0, 1, 3], (3, 16)), ([2], (1, 64))]
    >>> [(rows.tolist(), cut.shape) for rows, cut in cut_by_length(ids, config, exact=True)]
    [([0, 1, 3], (3, 8)), ([2], (1, 61))]
    """
    lengths, parts, cut = lengths_of(ids, config, exact), [], 0
    if lengths.min() == (longest := lengths.max()):  # as of a single text
        return [(np.arange(len(ids)), np.ascontiguousarray(ids[:, :longest]))]
    for step in _cheapest_cuts(*np.unique(lengths, return_counts=True)):
        rows = np.flatnonzero((lengths > cut) & (lengths <= step))
        parts.append((rows, np.ascontiguousarray(ids[rows, :step])))
        cut = step
    return parts


def _cheapest_cuts(lengths: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]) -> list[int]:
    """Lengths to cut to, the last of them the longest; given the lengths that occur, ascending, and how often each.

    >>> _cheapest_cuts(np.array([8, 9, 30]), np.array([4, 9, 1]))
    [9, 30]
    """
    steps, upto = lengths.tolist(), [0, *np.cumsum(counts).tolist()]
    cheapest = [(0, 0)]  # of the first so many lengths: the cost, and where the last batch begins
    for end, step in enumerate(steps, 1):
        cheapest.append(
            min((cheapest[start][0] + _A_CALL + (upto[end] - upto[start]) * step, start) for start in range(end))
        )
    cuts, end = list[int](), len(steps)
    while end:
        cuts.append(steps[end - 1])
        end = cheapest[end][1]
    return cuts[::-1]


def needed_tokens(ids: TokenIds, config: TextConfig) -> npt.NDArray[np.intp]:
    """How many tokens of each row (B, L) are of the text, with the one that ends it: (B,).

    L where that cannot be told. A text may hold the token that ends it, or fills it.
    """
    length = ids.shape[1]
    marks = ids == config.end_id if config.kind == "clip" else ids != config.pad_id
    last = length - np.argmax(marks[:, ::-1], axis=1)
    if config.kind == "hf" and config.end_id is not None:  # the first of the padding ends the text
        last = np.minimum(last + 1, length)
    return np.asarray(np.where(marks.any(axis=1), last, length), np.intp)


def lengths_of(ids: TokenIds, config: TextConfig, exact: bool) -> npt.NDArray[np.intp]:
    """How many tokens of each row (B, L) the graph needs, rounded up to a bucket unless they are to be exact: (B,)."""
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
    except Exception as error:  # the library raises bare Exception
        where = "the given text" if content else repr(os.fspath(source))
        raise ArtifactError(f"{where} is not a tokenizer file ({error}); export it again") from error
