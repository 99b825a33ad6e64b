"""Any source of pairs: all that :func:`~reco_plugin.data.open_rows` reads, and memories and collections, by scrolling.

::

    open_source ──► a file or folder ─────────────► open_rows
                ──► a memory in a folder ─────────► MemoryFolderPart
                ──► http(s):// grpc(s)://host ────► CollectionPart
                ──► opensearch://host/products … ─► IndexPart

A collection does not tell its encoder: to check it, captions are embedded and compared with their vectors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import Artifact
from ..config import Settings, load_settings
from ..data.cells import CellError, Vector, text_of, unit_rows
from ..data.opening import open_rows
from ..data.rows import Rejected, Rows
from ..data.source import PREFIX, Location, parse_source
from ..data.tables import SUFFIXES
from ..engines import is_index
from ..engines.address import SCHEMES
from ..errors import ConfigError, DataError, FingerprintMismatch, MemoryStoreError
from ..files import in_home
from ..memory import Memory, open_memory
from ..memory.header import HEADER_NAME, check_fingerprint, read_header
from ..memory.opening import SERVERS, server_of
from ..memory.options import MemoryOptions
from ..reco import Reco
from ..types import Fingerprint, Pair, Payload
from ..values import strip_marks
from .index_rows import open_index_rows

if TYPE_CHECKING:
    from ..memory.reading import Described, StoredPoint
    from ..memory.server import Server

_AT_ONCE = 256
_CAPTIONS = 32
_SAME_ENCODER = 0.95


@dataclass(frozen=True)
class MemoryFolderPart:
    """A memory in a folder; open while it is read, and only one process can open it."""

    folder: Path  # not a link, so that another version can be put to use meanwhile

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def open(self) -> Memory:
        """The memory itself."""
        return open_memory(self.folder, None, create=False)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its pairs in order."""
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
        """Its points in order, as pairs."""
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
    with Reco.open(model, ":memory:") as reco:
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


_FILES = (*SUFFIXES, ".json", ".parquet", ".tar", ".npz")
_COLUMNS = ("image", "text", "caption")
_REACHED = tuple(MemoryOptions.model_fields)
"""Options of the server and of reading from it; those of the settings may belong to the memory that is filled."""


def open_source(source: str | Path, *, model: Path | None = None, into: Settings | None = None) -> Rows:
    """Open a source of image-text pairs; of a memory, reads the header and the number of pairs.

    Args:
        source: as :func:`~reco_plugin.data.open_rows` takes it, or a memory's folder, or a Qdrant server's URL as
            in ``http://host:6333?collection=shop&image=photo&text=title&caption=name&check=1``, or the address of
            another engine's index (:func:`~reco_plugin.ingest.index_rows.open_index_rows`).
        model: folder of the model whose encoder a memory must have; None: any.
        into: settings of the memory that is filled, which must not be the source.

    Raises:
        FingerprintMismatch: another encoder made the memory.
        MemoryLocked: the memory is open elsewhere.
        MemoryStoreError: no such collection or vector, or the server fails.
        ConfigError: an unknown option; a collection that is not a memory, without names of its vectors; or the memory
            that is filled.
        DataError: an empty source, and all errors of ``open_rows``.
    """
    if is_index(str(source)):
        return open_index_rows(str(source), model)
    where = parse_source(source)
    if not is_memory(where):
        if "://" in where.name and not where.path.exists():
            scheme = where.name.partition("://")[0]
            raise DataError(
                f"{scheme}:// begins no source that can be read: give a file or a folder, or the index of an engine "
                f"({', '.join(SCHEMES)}); see docs/sources.md"
            )
        return open_rows(source)
    fingerprint = Artifact.load(model).manifest.fingerprint if model is not None else None
    rows = (
        _open_served(where, fingerprint, model, into) if _is_served(where.name) else _folder(where, fingerprint, into)
    )
    if not rows.total:
        raise DataError(f"{rows.name} holds no pairs: it is empty")
    return rows


def names_of(rows: Rows) -> tuple[str, frozenset[str]]:
    """The name under which a source's pairs are stored, and others that older versions or other spellings gave it.

    A path becomes whole, so that a cron job with another working folder or ``./`` means the same source; links stay, as
    a link may lead to another file each day.
    """
    name = rows.name
    if "://" in name or name.startswith(PREFIX) or is_index(name):
        return name, frozenset()
    short = os.path.normpath(name)
    return os.path.normpath(Path(name).absolute()), frozenset({name, short, f"{os.curdir}{os.sep}{short}"})


def is_memory(where: Location) -> bool:
    """Whether a source is a memory, or a collection of a Qdrant server."""
    return _is_served(where.name) or (where.path / HEADER_NAME).is_file()


def _is_served(name: str) -> bool:
    return name.startswith(SERVERS)


def _folder(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> Rows:
    where.without("check").only()
    part = MemoryFolderPart(where.path.resolve())
    if into is not None and not _is_served(into.memory) and in_home(into.memory).resolve() == part.folder:
        raise _itself(where)
    if (found := read_header(where.path)) is not None:
        check_fingerprint(found[1].fingerprint, fingerprint, where.name)
    with closing(part.open()) as memory:
        return Rows(where.name, (part,), memory.count(), where.flag("check"), told=True)


def _open_served(where: Location, fingerprint: Fingerprint | None, model: Path | None, into: Settings | None) -> Rows:
    reached = {name: where.options[name] for name in _REACHED if name in where.options}
    settings = load_settings(
        memory=where.name, memory_collection=where.options.get("collection"), memory_options=reached or None
    )
    server, collection = server_of(settings), settings.memory_collection
    if server.path.lower().endswith(_FILES):
        raise DataError(f"{where.name} is a file behind a URL: download it first. URLs name Qdrant servers here")
    where.only("collection", *_COLUMNS, "check", *_REACHED)  # after the URL was checked, since it may hold secrets
    from ..memory.reading import describe

    found = describe(server, collection)
    if into is not None and _is_served(into.memory) and _holds(server_of(into), into.memory_collection, server, found):
        raise _itself(where)
    columns = _columns(where, found, collection)
    rows = collection_rows(server, found, columns, fingerprint)
    check = where.flag("check")
    if check:
        _check(where, server, found, columns, model)
        check = None  # done
    return Rows(f"{where.name}?collection={collection}", rows.parts, rows.total, check, told=found.header is not None)


def _columns(where: Location, found: Described, collection: str) -> CollectionNames:
    """The names that were given, else those of a memory."""
    image, text, caption = (where.options.get(name) for name in _COLUMNS)
    if found.layout is not None:
        image, text = found.layout.image if image is None else image, found.layout.text if text is None else text
    if image is None or (text is None and caption is None):
        raise ConfigError(
            f"the collection {collection!r} at {where.name!r} is no memory of ours: name its vectors, as in "
            f"'{where.name}?collection={collection}&image=NAME&text=NAME&caption=KEY', where text or caption may be "
            f"left out. Its vectors: {found.known()}"
        )
    return CollectionNames(image, text, caption)


def _check(where: Location, server: Server, found: Described, columns: CollectionNames, model: Path | None) -> None:
    """Compare captions with their vectors."""
    if columns.text is None or columns.caption is None or model is None:
        beside = "is for commands with a model" if model is None else "needs text=NAME and caption=KEY"
        raise ConfigError(f"{where.name}: check=1 compares captions with their vectors, and {beside}")
    check_captions(server, found, columns.text, columns.caption, model)


def _holds(filled: Server, alias: str, server: Server, found: Described) -> bool:
    """Whether the memory of this alias is that collection."""
    from ..memory.reading import own_name

    return own_name(filled, alias) == found.name and filled.has_address_of(server)


def _itself(where: Location) -> ConfigError:
    return ConfigError(
        f"{where.name} is the memory that would be filled, and cannot be read into itself: name another one with "
        "--memory, build that, and let readers use it"
    )
