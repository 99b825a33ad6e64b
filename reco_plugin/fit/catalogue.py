"""Read a catalogue and encode it block by block into a cache, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import whole_file
from ..data.groups import groups_of, is_itself
from ..data.remote import RemoteImage
from ..data.rows import Rejected, open_rows
from ..errors import DataError, InputError
from ..evaluate.cached import CachedEncoder
from ..evaluate.study.vectors import digest_records
from ..types import Modality, Pair, Records, Vectors
from ..vectors import check_vectors

REJECTED = "rejected.jsonl"
_BLOCK = 1024  # pairs that are encoded and kept together
_WORD = re.compile(r"[^\W\d_]{3}")


@dataclass(frozen=True)
class Catalogue:
    """N encoded pairs.

    Attributes:
        pairs: frozen vectors and payloads.
        groups: (N,) what each shows.
        names: C groups whose names can be asked for, with their vectors (C, D); empty where groups are no names.
        rejected: pairs that are not among them.
        digest: of all of that.
    """

    pairs: Records
    groups: tuple[str, ...]
    names: tuple[str, ...]
    prompts: Vectors
    rejected: tuple[Rejected, ...]
    digest: str

    def __len__(self) -> int:
        return len(self.pairs)


def read_catalogue(
    source: str,
    encoder: CachedEncoder,
    *,
    group: str | None = None,
    max_error_rate: float = 0.05,
    progress: Callable[[int], None] = lambda _: None,
) -> Catalogue:
    """Read and encode a catalogue.

    Args:
        source: whatever :func:`reco_plugin.data.rows.open_rows` reads.
        encoder: the frozen CLIP, with the folder of its cache.
        group: payload column that says what a pair shows; None: its caption.
        max_error_rate: share of pairs that may be rejected.
        progress: told how many pairs each block had.

    Raises:
        DataError: the source cannot be read, mixes vectors with raw images or texts, no pair has a
            value in the column, or too many pairs are rejected.
        VectorError: vectors that are not of this encoder's dimension or length.
    """
    blocks: list[Records] = []
    rejected: list[Rejected] = []
    read = 0
    for block in _blocks(open_rows(source)):
        records, bad = _encoded(block, encoder)
        blocks.append(records)
        rejected += bad
        read += len(block)
        progress(len(block))
        _check_rate(rejected, read, max_error_rate, source)
    if not sum(map(len, blocks)):
        raise DataError(f"{source} holds no pair that can be used" + (f"; {rejected[0]}" if rejected else ""))
    if rejected:
        warnings.warn(
            f"{source}: {len(rejected)} of {read} pairs were rejected, the first: {rejected[0]}", stacklevel=2
        )
    pairs = Records.join(blocks, encoder.fingerprint.dimension)
    groups = groups_of(pairs, group)
    names = _names(groups) if group is not None else ()
    prompts = encoder.texts(names) if names else np.empty((0, encoder.fingerprint.dimension), np.float32)
    digest = digest_records(pairs)
    return Catalogue(pairs, tuple(groups), names, prompts, tuple(rejected), digest)


def write_rejected(rejected: Sequence[Rejected], folder: Path) -> None:
    """List what was rejected, a line each."""
    with whole_file(folder / REJECTED) as part:
        lines = (json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rejected)
        part.write_text("".join(lines), encoding="utf-8")


def _blocks(rows: Iterable[Pair | Rejected]) -> Iterator[list[Pair | Rejected]]:
    source = iter(rows)
    while block := list(islice(source, _BLOCK)):
        yield block


def _check_rate(rejected: Sequence[Rejected], read: int, most: float, source: str) -> None:
    """A hopeless source is left early, but not for the first rows being bad."""
    if len(rejected) > most * max(read, 100):
        raise DataError(
            f"{source}: {len(rejected)} of the first {read} pairs cannot be used, more than --max-error-rate {most} "
            f"allows; the first: {rejected[0]}"
        )


def _encoded(block: Sequence[Pair | Rejected], encoder: CachedEncoder) -> tuple[Records, list[Rejected]]:
    """The pairs with a caption and an image that can be read, and why the others are not among them."""
    bad = [row for row in block if isinstance(row, Rejected)]
    pairs, far = _kept([row for row in block if isinstance(row, Pair)], _remote)
    bad += far
    try:
        image = _side(pairs, "image", encoder)
    except (DataError, InputError):
        pairs, unreadable = _kept(pairs, lambda pair: _unreadable(pair, encoder))
        if not unreadable:
            raise
        bad, image = bad + unreadable, _side(pairs, "image", encoder)
    payloads = [dict(pair.payload) | ({"caption": pair.text} if isinstance(pair.text, str) else {}) for pair in pairs]
    return Records([pair.id for pair in pairs], image, _side(pairs, "text", encoder), payloads), bad


def _kept(pairs: Sequence[Pair], why: Callable[[Pair], str | None]) -> tuple[list[Pair], list[Rejected]]:
    reasons = [(pair, why(pair)) for pair in pairs]
    rejected = [Rejected(f"pair {pair.id}", reason, pair.id) for pair, reason in reasons if reason is not None]
    return [pair for pair, reason in reasons if reason is None], rejected


def _remote(pair: Pair) -> str | None:
    image: Any = pair.image  # of rows it may be one, of pairs not
    if isinstance(image, RemoteImage):
        return "its image is a URL: download the images first, for example by img2dataset"
    return None


def _unreadable(pair: Pair, encoder: CachedEncoder) -> str | None:
    if isinstance(pair.image, np.ndarray):
        return None
    try:
        encoder.encoder.images([pair.image], lambda _: None)
    except InputError as error:
        return str(error).replace(" (in the batch that starts at position 0)", "")
    return None


def _side(pairs: Sequence[Pair], side: Modality, encoder: CachedEncoder) -> Vectors:
    """(B, D) of one side: vectors are checked, images and texts encoded or found in the cache."""
    values: list[Any] = [getattr(pair, side) for pair in pairs]
    given = sum(isinstance(value, np.ndarray) for value in values)
    if not values:
        return np.empty((0, encoder.fingerprint.dimension), np.float32)
    if 0 < given < len(values):
        raise DataError(f"{given} of {len(values)} {side}s are vectors, the others are not: encode all or none")
    if given:
        return check_vectors(np.stack(values), encoder.fingerprint.dimension, f"{side} vectors")
    return encoder.images(values) if side == "image" else encoder.texts(values)


def _names(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups that are named, where they read as names: words rather than numbers or codes."""
    named = sorted({group for group in groups if not is_itself(group)})
    words = sum(bool(_WORD.search(name)) and not any(c.isdigit() for c in name) for name in named)
    return tuple(named) if named and words >= 0.9 * len(named) else ()
