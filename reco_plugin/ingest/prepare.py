"""Steps of a row (load, sift, fetch, prepare, encode), and how they run concurrently and in order."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..encoders.local import Encoder, Preparation
from ..errors import ImageError, InputError, RecoError, UnusableFeatures
from ..memory.checks import check_ids, check_pair
from ..sources.images import RemoteImage
from ..sources.rows import Rejected, SourcePart, digest
from ..types import MODALITIES, Modality, Pair, Payload, Vectors
from ..values import ROW, SOURCE, strip_marks


@dataclass(frozen=True)
class Loaded:
    """A row with the bytes of its image, not decoded, or with the URL of a remote image."""

    where: str  # in the source, for messages
    pair: Pair  # with an image that is bytes, a vector or a RemoteImage
    digest: str  # of its content, see :func:`~reco_plugin.sources.rows.digest`

    @property
    def id(self) -> str:
        """The id of its pair."""
        return self.pair.id


@dataclass(frozen=True)
class Skipped:
    """A row that needs no encoding."""

    id: str  # of the pair
    digest: str  # of the row
    why: Literal["unchanged", "missing"]  # missing: an unknown id, of a run that only updates


@dataclass(frozen=True)
class Prepared:
    """A row as input of the encoder."""

    where: str  # in the source, for messages
    id: str  # of the pair
    digest: str  # of the row
    payload: Payload  # JSON values only
    image: npt.NDArray[np.uint8] | Vectors  # (H, W, 3) uint8 of the encoder's size, or a vector (D,) float32
    text: npt.NDArray[np.int32] | Vectors  # (L,) int32 token ids, or a vector (D,) float32
    is_truncated: bool = False  # whether the text is longer than the encoder reads
    given: tuple[Modality, ...] = ()  # sides that the source provided as vectors


@dataclass(frozen=True)
class Encoded(Prepared):
    """A row as vectors (D,) float32, unit-norm."""

    image: Vectors
    text: Vectors


WriterItem: TypeAlias = "Encoded | Skipped | Rejected"


def given_vectors(batch: Iterable[WriterItem | Loaded]) -> Iterator[tuple[Mapping[Modality, Any], Payload]]:
    """The vectors (D,) that the source provided for rows of a batch, and the rows' payloads."""
    for row in batch:
        if isinstance(row, Encoded) and row.given:
            yield {modality: row.image if modality == "image" else row.text for modality in row.given}, row.payload


Hashes = npt.NDArray[np.uint64]


def add_marks(payload: Payload, digest: str, source: str | None) -> dict[str, Any]:
    """Add the row's digest and source to a payload."""
    return {**payload, ROW: digest, **({SOURCE: source} if source is not None else {})}


@dataclass(frozen=True)
class StoredRows:
    """Ids and rows of a memory as hashes of 64 bits, for workers that cannot read it.

    If all of 10 million rows change, a collision makes one of them count as unchanged in one of 200,000 runs.
    """

    ids: Hashes  # (N,) of the ids, ascending
    rows: Hashes  # (R,) of ids with their rows' digests, ascending; only of pairs from a source
    only_known: bool = False  # whether to skip rows with an unknown id

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Payload]], *, only_known: bool = False) -> StoredRows:
        """Hash a memory's ids and payloads."""
        ids, rows = [], []
        for id_, payload in pairs:
            ids.append(hash64(id_))
            if isinstance(digest := payload.get(ROW), str):
                rows.append(hash64(id_, digest))
        return cls(np.sort(np.array(ids, np.uint64)), np.sort(np.array(rows, np.uint64)), only_known)

    def sift(self, row: Loaded | Rejected) -> Loaded | Skipped | Rejected:
        """Skip a row that needs no encoding; return any other unchanged."""
        if isinstance(row, Rejected):
            return row
        id_ = row.pair.id
        if _holds(self.rows, hash64(id_, row.digest)):
            return Skipped(id_, row.digest, "unchanged")
        if self.only_known and not _holds(self.ids, hash64(id_)):
            return Skipped(id_, row.digest, "missing")
        return row


def hash64(*words: str) -> int:
    """Hash texts to 64 bits; a run keeps one such number per row."""
    joined = "\0".join(words).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def _holds(numbers: Hashes, number: int) -> bool:
    wanted = np.uint64(number)  # a Python int would turn both sides into float64
    place = int(np.searchsorted(numbers, wanted))
    return place < len(numbers) and bool(numbers[place] == wanted)


DOWNLOADS = 16  # at the same time


def read_rows(parts: Iterable[SourcePart]) -> Iterator[tuple[str, Pair] | Rejected]:
    """Read the rows of all parts in order, each pair with its place in the source."""
    for part in parts:
        for number, row in enumerate(part.read(), 1):
            yield row if isinstance(row, Rejected) else (row.where or f"row {number} of {part.name}", row)


def load(row: tuple[str, Pair] | Rejected) -> Loaded | Rejected:
    """Read a row's image file and compute the row's digest; a remote image is not fetched."""
    if isinstance(row, Rejected):
        return row
    where, pair = row
    try:
        check_ids([pair.id], "its id")
    except InputError as error:
        return Rejected(where, str(error))
    image: Any = pair.image
    if isinstance(image, str | os.PathLike):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            return Rejected(where, f"its image {str(pair.image)!r} cannot be read: {error.strerror or error}", pair.id)
    loaded = Pair(pair.id, image, pair.text, strip_marks(pair.payload))
    return Loaded(where, loaded, digest(loaded))


def prepare(row: Loaded | Skipped | Rejected, preparation: Preparation) -> Prepared | Skipped | Rejected:
    """Make the encoder's input of a loaded row; return any other row unchanged. Images must have been fetched."""
    if not isinstance(row, Loaded):
        return row
    pair = row.pair
    try:
        payload = check_pair(pair.id, pair.text, pair.payload)
        text = preparation.side(pair.text, "text")
        image = preparation.side(pair.image, "image")
    except ImageError as error:
        return Rejected(row.where, f"its image {error.problem}", pair.id)
    except InputError as error:
        return Rejected(row.where, str(error), pair.id)
    given = tuple(modality for modality in MODALITIES if isinstance(getattr(pair, modality), np.ndarray))
    return Prepared(row.where, pair.id, row.digest, payload, image.array, text.array, text.truncated, given)


def fetch_image(row: Loaded | Skipped | Rejected, *, allow_private: bool) -> Loaded | Skipped | Rejected:
    """Download the image of a row, if it is remote; return any other row unchanged."""
    if not isinstance(row, Loaded) or not isinstance(image := cast(object, row.pair.image), RemoteImage):
        return row
    try:
        return replace(row, pair=replace(row.pair, image=replace(image, allow_private=allow_private).read()))
    except (RecoError, OSError) as error:
        return Rejected(row.where, str(error), row.pair.id)


def encode(rows: Sequence[Prepared | Skipped | Rejected], encoder: Encoder) -> list[WriterItem]:
    """Encode the prepared rows of a batch to vectors (D,); other rows are returned unchanged.

    If a batch fails because of an item, its rows are encoded one by one, and only bad items are rejected.

    Raises:
        SessionError: the encoder failed.
    """
    prepared = [row for row in rows if isinstance(row, Prepared)]
    try:
        made = iter(_encode(prepared, encoder))
    except (InputError, UnusableFeatures):
        made = iter([_encode_alone(row, encoder) for row in prepared])
    return [next(made) if isinstance(row, Prepared) else row for row in rows]


def _encode_alone(row: Prepared, encoder: Encoder) -> WriterItem:
    try:
        return _encode([row], encoder)[0]
    except (InputError, UnusableFeatures) as error:
        return Rejected(row.where, str(error), row.id)


def _encode(prepared: Sequence[Prepared], encoder: Encoder) -> list[WriterItem]:
    images = encoder.arrays([row.image for row in prepared], "image")
    texts = encoder.arrays([row.text for row in prepared], "text")
    return [
        Encoded(row.where, row.id, row.digest, row.payload, image, text, row.is_truncated, row.given)
        for row, image, text in zip(prepared, images, texts, strict=True)
    ]


T = TypeVar("T")
R = TypeVar("R")

_PIECES = 16  # tasks per list: few, since each has a cost, but enough to keep all threads of a pool busy
_END = object()


def make_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group items into lists of ``size``; a RecoError is raised after the items before it."""
    chunk: list[T] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except RecoError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def read_ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """Iterate over ``items`` in another thread: at most ``size`` of them wait, and one more is in progress.

    Errors of the thread are raised here. Closing this generator closes ``items`` in that thread, and waits for it.
    """
    with ThreadPoolExecutor(1, "reco-ingest") as thread:
        waiting: deque[Future[Any]] = deque(thread.submit(next, items, _END) for _ in range(size + 1))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            thread.submit(items.close)


def map_in_order(
    pool: Executor, work: Callable[[T], R], chunks: Iterable[list[T]], *, window: int
) -> Generator[list[R], None, None]:
    """Apply ``work`` to each item in a pool; yields the lists in order, with ``window`` lists in progress."""
    begun: deque[list[Future[list[R]]]] = deque()

    def do(piece: list[T]) -> list[R]:
        return [work(item) for item in piece]

    def done() -> list[R]:
        return [result for piece in begun.popleft() for result in piece.result()]

    try:
        for chunk in chunks:
            begun.append([pool.submit(do, piece) for piece in make_chunks(chunk, -(-len(chunk) // _PIECES))])
            if len(begun) >= window:
                yield done()
        while begun:
            yield done()
    finally:
        for piece in (piece for pieces in begun for piece in pieces):
            piece.cancel()
