"""The pairs of a memory as rows: of a folder, or of any collection of a Qdrant server. Both are read by scrolling.

A collection does not tell its encoder: to check it, captions are embedded and compared with their vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import load_settings
from ..data.cells import CellError, Vector, text_of, unit_rows
from ..data.rows import Rejected, Rows
from ..errors import FingerprintMismatch, MemoryStoreError
from ..memory import Memory, open_memory
from ..memory.header import check_fingerprint
from ..memory.opening import server_of
from ..memory.options import MemoryOptions
from ..reco import Reco
from ..types import Fingerprint, Pair, Payload
from ..values import strip_marks

if TYPE_CHECKING:
    from ..memory.reading import Described, StoredPoint
    from ..memory.server import Server

_AT_ONCE = 256
_CAPTIONS = 32
_SAME_ENCODER = 0.95


@dataclass(frozen=True)
class MemoryFolderPart:
    """A memory in a folder; open while it is read, and some engines let only one process open it."""

    folder: Path  # not a link, so that another version can be put to use meanwhile
    collection: str  # in a folder of qdrant-client's own engine

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def open(self) -> Memory:
        """The memory itself.

        Raises:
            MemoryLocked: it is open elsewhere.
            MemoryStoreError: it is damaged.
        """
        return open_memory(self.folder, None, create=False, collection=self.collection)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its pairs in order.

        Raises:
            MemoryStoreError: it cannot be read. That ends the run, so that no partial source counts as complete.
        """
        with closing(self.open()) as memory:
            for records in memory.scroll(_AT_ONCE):
                sides = zip(unit_rows(records.image), unit_rows(records.text), strict=True)
                for id_, payload, (image, text) in zip(records.ids, records.payloads, sides, strict=True):
                    yield _row(f"{self.name}, pair {id_!r}", id_, image, text, strip_marks(payload))


@dataclass(frozen=True)
class CollectionNames:
    """Names of the vectors and the caption of a collection's points."""

    image: str  # name of the image vector; empty for the one without a name
    text: str | None = None  # name of the text vector; None: the captions are embedded
    caption: str | None = None  # payload key of the caption; None: payloads stay as they are

    @property
    def vectors(self) -> list[str]:
        """Names of the vectors."""
        return [self.image] if self.text is None else [self.image, self.text]


@dataclass(frozen=True)
class CollectionPart:
    """A collection of a Qdrant server. It does not hold the server's key: the reader takes it from the settings."""

    location: str  # URL of the server
    collection: str  # its own name, not an alias, so that another version can be put to use meanwhile
    columns: CollectionNames
    options: MemoryOptions = field(default_factory=MemoryOptions)  # of the connection
    scaled: bool = False  # normalise vectors of any length; else only those within 1 % of norm 1 are used

    @property
    def name(self) -> str:
        """The server and the collection."""
        return f"{self.location}?collection={self.collection}"

    @property
    def server(self) -> Server:
        """The server, with the key of the settings."""
        here = {"memory": self.location, "memory_options": self.options}
        return server_of(load_settings().model_copy(update=here))

    def read(self) -> Iterator[Pair | Rejected]:
        """Its points in order, as pairs.

        Raises:
            MemoryStoreError: it cannot be read. That ends the run, so that no partial source counts as complete.
        """
        from ..memory.reading import read_points

        with closing(read_points(self.server, self.collection, self.columns.vectors, _AT_ONCE)) as batches:
            for points in batches:
                images = self._side(points, self.columns.image)
                texts = {} if self.columns.text is None else self._side(points, self.columns.text)
                for place, point in enumerate(points):
                    yield self._pair(point, images.get(place), texts.get(place))

    def _side(self, points: Sequence[StoredPoint], name: str) -> Mapping[int, Vector | CellError]:
        """Place -> vector (D,), of the points that have it."""
        places = [place for place, point in enumerate(points) if name in point.vectors]
        if not places:
            return {}
        block = np.asarray([points[place].vectors[name] for place in places], np.float32)  # (N, D)
        if self.scaled:
            norms = np.linalg.norm(block, axis=1, keepdims=True)
            block = np.divide(block, norms, out=block, where=norms > 0)
        return dict(zip(places, unit_rows(block), strict=True))

    def _pair(
        self, point: StoredPoint, image: Vector | CellError | None, text: Vector | CellError | None
    ) -> Pair | Rejected:
        where, names = f"{self.name}, point {point.id}", self.columns
        payload, caption = strip_marks(point.payload), self._caption(point.payload)
        if isinstance(caption, str):
            payload["caption"] = caption
        if image is None or (names.text is not None and text is None):
            missing = names.image if image is None else names.text
            return Rejected(where, f"it has no vector {missing!r}" if missing else "it has no vector", point.id, True)
        if names.text is None and isinstance(caption, CellError):
            half = point.payload.get(names.caption or "") in (None, "")
            return Rejected(where, f"payload {names.caption!r}: {caption}", point.id, half)
        return _row(where, point.id, image, caption if names.text is None else text, payload)

    def _caption(self, payload: Payload) -> str | CellError:
        try:
            return text_of(payload.get(self.columns.caption)) if self.columns.caption is not None else CellError()
        except CellError as error:
            return error


def collection_rows(
    server: Server, found: Described, columns: CollectionNames, fingerprint: Fingerprint | None, *, scaled: bool = False
) -> Rows:
    """The points of a collection; any encoder may have made it if ``fingerprint`` is None.

    Raises:
        FingerprintMismatch: it is a memory of another encoder.
        MemoryStoreError: it lacks one of the vectors, or has another form of it.
    """
    part = CollectionPart(server.location, found.name, columns, server.options, scaled)
    if found.header is not None:
        check_fingerprint(found.header.fingerprint, fingerprint, part.name)
    place = f"the collection {found.name!r} at {server.location!r}"
    found.check_vectors(columns.vectors, fingerprint.dimension if fingerprint else None, place)
    return Rows(part.name, (part,), found.points)


def _row(where: str, id_: str, image: Any, text: Any, payload: Payload) -> Pair | Rejected:
    """A pair of two vectors (D,), or its rejection if a side is an error."""
    for side, value in (("image", image), ("text", text)):
        if isinstance(value, CellError):
            return Rejected(where, f"its {side} vector {value}", id_)
    return Pair(id_, image, text, payload)


def check_captions(server: Server, found: Described, vector: str, field: str, model: Path) -> None:
    """Embed some captions, of the payload key ``field``, and compare them with their stored vectors.

    Raises:
        FingerprintMismatch: they are too different to be of one encoder.
        MemoryStoreError: no such vector, or no point has both.
    """
    rows = collection_rows(server, found, CollectionNames(vector, caption=field), None, scaled=True)
    sample = list(islice((row for row in rows if isinstance(row, Pair)), _CAPTIONS))
    if not sample:
        raise MemoryStoreError(f"no point of {rows.name} has a vector {vector!r} and a text in {field!r}")
    with Reco.open(model, ":memory:", memory_kind="exact") as reco:
        ours = reco.encoder.texts([str(pair.text) for pair in sample])
    stored = np.stack([np.asarray(pair.image, np.float32) for pair in sample])
    if stored.shape == ours.shape and (cosine := float(np.mean(np.sum(ours * stored, axis=1)))) >= _SAME_ENCODER:
        return
    measured = f"a mean cosine of {cosine:.3f}" if stored.shape == ours.shape else f"{stored.shape[1]} dimensions"
    raise FingerprintMismatch(
        f"{len(sample)} captions of {field!r}, embedded by {model}, and their vectors {vector!r} in {found.name!r} "
        f"have {measured}, expected a cosine of at least {_SAME_ENCODER}: the collection is of another encoder, or was "
        "embedded with a prompt around the captions"
    )
