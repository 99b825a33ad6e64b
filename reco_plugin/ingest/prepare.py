"""A row's states and steps: loaded, sifted, fetched, prepared and encoded; and how steps run concurrently, in order."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
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
    """A row with the bytes of its image (of a remote one: its URL), not decoded."""

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
    why: Literal["unchanged", "missing"]  # missing: the memory does not hold its id, and only known ids are wanted


@dataclass(frozen=True)
class Prepared:
    """A row as input of the encoder."""

    where: str  # in the source, for messages
    id: str  # of the pair
    digest: str  # of the row
    payload: Payload  # JSON values only
    image: npt.NDArray[np.uint8] | Vectors  # (H, W, 3) uint8 of the encoder's size, or a vector (D,) float32
    text: npt.NDArray[np.int32] | Vectors  # (L,) int32 token ids, or a vector (D,) float32
    cut: bool = False  # the text is longer than the encoder reads
    given: tuple[Modality, ...] = ()  # sides that the source brought as vectors


@dataclass(frozen=True)
class Encoded(Prepared):
    """A row as vectors (D,) float32, unit-norm."""

    image: Vectors
    text: Vectors


WriterItem: TypeAlias = "Encoded | Skipped | Rejected"
"""Input of the writer."""


def given_vectors(batch: Iterable[WriterItem | Loaded]) -> Iterator[tuple[Mapping[Modality, Any], Payload]]:
    """The vectors (D,) that encoded rows of a batch brought along, and their payloads."""
    for row in batch:
        if isinstance(row, Encoded) and row.given:
            yield {modality: row.image if modality == "image" else row.text for modality in row.given}, row.payload


Hashes = npt.NDArray[np.uint64]


def add_marks(payload: Payload, digest: str, source: str | None) -> dict[str, Any]:
    """A payload with the row's digest and source."""
    return {**payload, ROW: digest, **({SOURCE: source} if source is not None else {})}


@dataclass(frozen=True)
class Known:
    """Ids and rows of a memory, each as a hash of 64 bits.

    If 10 million rows of as many change, one of them counts as unchanged by collision once in 200,000 runs.
    """

    ids: Hashes  # (N,) of the ids, ascending
    rows: Hashes  # (R,) of the ids with the digests of their rows, ascending; of pairs that ingest wrote
    only_known: bool = False  # skip rows with an unknown id

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Payload]], *, only_known: bool = False) -> Known:
        """Made from a memory's ids and payloads."""
        ids, rows = [], []
        for id_, payload in pairs:
            ids.append(key_of(id_))
            if isinstance(digest := payload.get(ROW), str):
                rows.append(key_of(id_, digest))
        return cls(np.sort(np.array(ids, np.uint64)), np.sort(np.array(rows, np.uint64)), only_known)

    def sift(self, row: Loaded | Rejected) -> Loaded | Skipped | Rejected:
        """The row, or why it needs no encoding; a rejected one as it is."""
        if isinstance(row, Rejected):
            return row
        id_ = row.pair.id
        if _holds(self.rows, key_of(id_, row.digest)):
            return Skipped(id_, row.digest, "unchanged")
        if self.only_known and not _holds(self.ids, key_of(id_)):
            return Skipped(id_, row.digest, "missing")
        return row


def key_of(*words: str) -> int:
    """A hash of 64 bits; of an id, a run keeps it for each row until its end."""
    joined = "\0".join(words).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def _holds(numbers: Hashes, number: int) -> bool:
    wanted = np.uint64(number)  # a Python int would make both sides float64
    place = int(np.searchsorted(numbers, wanted))
    return place < len(numbers) and bool(numbers[place] == wanted)


DOWNLOADS = 16
"""Images that are fetched at the same time."""


def read_rows(parts: Iterable[SourcePart]) -> Iterator[tuple[str, Pair] | Rejected]:
    """The rows of all parts in order, each pair with its place in the source."""
    for part in parts:
        for number, row in enumerate(part.read(), 1):
            yield row if isinstance(row, Rejected) else (row.where or f"row {number} of {part.name}", row)


def load(row: tuple[str, Pair] | Rejected) -> Loaded | Rejected:
    """Read a row's image file and compute its digest; a remote image is not fetched."""
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
    ours = Pair(pair.id, image, pair.text, strip_marks(pair.payload))
    return Loaded(where, ours, digest(ours))


def prepare(row: Loaded | Skipped | Rejected, preparation: Preparation) -> Prepared | Skipped | Rejected:
    """A loaded row as input of the encoder, any other as it is; no image may be remote, see :func:`fetch_image`."""
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
    """A row with its image downloaded, if it is remote; any other row as it is."""
    if not isinstance(row, Loaded) or not isinstance(image := cast(object, row.pair.image), RemoteImage):
        return row
    try:
        return replace(row, pair=replace(row.pair, image=replace(image, allow_private=allow_private).read()))
    except (RecoError, OSError) as error:
        return Rejected(row.where, str(error), row.pair.id)


def encode(rows: Sequence[Prepared | Skipped | Rejected], encoder: Encoder) -> list[WriterItem]:
    """A batch with its prepared rows encoded to vectors (D,); vectors are kept, other rows stay in their place.

    What an API refuses, or a graph makes no vector of, is rejected alone: a batch with one bad item has no answer.

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
        Encoded(row.where, row.id, row.digest, row.payload, image, text, row.cut, row.given)
        for row, image, text in zip(prepared, images, texts, strict=True)
    ]


T = TypeVar("T")
R = TypeVar("R")

_LOOK_S = 0.1
"""How often a thread that waits for room checks whether its reader stopped."""
_PIECES = 16
"""Tasks per list: few, since each costs some microseconds, but enough to keep all threads of a pool busy."""
_END = object()


@dataclass(frozen=True)
class _Failed:
    error: BaseException


def make_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of ``size``, the last one shorter; an error of ours is raised after the last list."""
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


def ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """The same items, made ahead in a separate thread, at most ``size`` of them.

    Errors of the thread are raised here. Closing this closes ``items``, in their thread, and waits for it.
    """
    waiting: Queue[Any] = Queue(size)
    stop = Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not put(item):
                        return
        except BaseException as error:
            put(_Failed(error))
        else:
            put(_END)

    thread = Thread(target=work, name="reco-ingest", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join()


def in_order(
    pool: Executor, work: Callable[[T], R], chunks: Iterable[list[T]], *, window: int
) -> Generator[list[R], None, None]:
    """Do work on each item in a pool; returns whole lists in order, with ``window`` of them in progress."""
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
