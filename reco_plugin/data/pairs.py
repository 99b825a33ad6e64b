"""Image-text pairs of any source, one by one; the first bad row is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..errors import DataError
from ..types import Pair
from .files import names_shards
from .parts import Rejected
from .remote import RemoteImage
from .rows import Rows, open_rows


class PairStream(Iterator[Pair]):
    """An iterator over pairs.

    Attributes:
        total: their number, where cheap to count, else None.
    """

    def __init__(self, pairs: Iterator[Pair], total: int | None) -> None:
        self._pairs, self.total = pairs, total

    def __next__(self) -> Pair:
        return next(self._pairs)


def read_pairs(source: str | Path) -> PairStream:
    """Read image-text pairs from any source of :func:`~reco_plugin.data.rows.open_rows`; a bad row is an error.

    The text also becomes the payload value ``caption``, to show retrieved pairs. Images or captions without
    a partner in folders and shards are skipped, and counted in a warning at the end.

    Raises:
        DataError: nothing there, no pairs, or a row is not readable; the message names file and row or key. Errors of
            the first pair are raised by this call, later ones during iteration.
        MissingExtra: parquet without pyarrow.
    """
    rows = open_rows(source)
    pairs = _strict(rows)
    first = next(pairs, None)
    if first is None:
        raise DataError(f"{source} holds no pairs: it is empty")
    return PairStream(chain([first], pairs), rows.total)


def _strict(rows: Rows) -> Iterator[Pair]:
    made, halves, example = 0, 0, ""
    for row in rows:
        if isinstance(row, Pair):
            if isinstance(row.image, RemoteImage):
                raise DataError(
                    f"{rows.name}: the image of {row.id!r}, {row.image}, is a URL: download the images first, for "
                    "example by img2dataset, or let `reco memory build` fetch them"
                )
            made += 1
            yield row
        elif row.half:
            halves, example = halves + 1, example or _name(row)
        else:
            raise DataError(str(row))
    if halves:
        shards = names_shards(rows.name)
        alone = "keys without both an image and a caption" if shards else "images without a caption in a .txt"
        alone += "" if shards else " of the same name"
        if not made:
            raise DataError(f"{rows.name} holds no pairs: none of {halves:,} {alone}, as {example!r}")
        warnings.warn(f"{rows.name}: skipped {halves:,} {alone}, the first is {example!r}", stacklevel=2)


def _name(row: Rejected) -> str:
    return row.id or row.where
