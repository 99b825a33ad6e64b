"""Any source of pairs: all that :func:`~reco_plugin.data.open_rows` reads, memories, and indexes of search engines.

::

    open_source ──► a file or folder ─────────────► open_rows
                ──► a memory ─────────────────────► MemoryPart
                ──► opensearch://host/products … ─► IndexPart
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from ..config import Settings, load_settings
from ..data import open_rows
from ..data.cells import CellError, image_of, text_of, unit_rows
from ..data.rows import Rejected, Rows
from ..data.source import PREFIX, Location, parse_source
from ..data.tables import SUFFIXES
from ..encoder_api import load_model
from ..engines import Description, Document, IndexAddress, is_index, open_index, parse_address
from ..engines.address import SCHEMES
from ..errors import ConfigError, DataError, FingerprintMismatch
from ..files import in_home
from ..memory import Memory, memory_of
from ..memory.checks import SERVERS
from ..memory.header import HEADER_NAME, check_fingerprint, read_header
from ..memory.opening import server_of
from ..types import Fingerprint, Pair
from ..values import check_choice, strip_marks

_AT_ONCE = 256
_FILES = (*SUFFIXES, ".json", ".parquet", ".tar", ".npz")


@dataclass(frozen=True)
class MemoryPart:
    """A memory; open while it is read. It does not hold a server's key: the reader takes it from the settings."""

    name: str  # a folder, no link, or the address of a collection by its own name, so that others can be put to use

    def open(self) -> Memory:
        """The memory itself."""
        return memory_of(load_settings(memory=self.name), None, create=False)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its pairs in order."""
        with closing(self.open()) as memory:
            for records in memory.scroll(_AT_ONCE):
                sides = zip(unit_rows(records.image), unit_rows(records.text), strict=True)
                for id_, payload, (image, text) in zip(records.ids, records.payloads, sides, strict=True):
                    where = f"{self.name}, pair {id_!r}"
                    if isinstance(image, CellError):
                        yield Rejected(where, f"its image vector {image}", id_)
                    elif isinstance(text, CellError):
                        yield Rejected(where, f"its text vector {text}", id_)
                    else:
                        yield Pair(id_, image, text, strip_marks(payload))


def open_source(source: str | Path, *, model: str | None = None, into: Settings | None = None) -> Rows:
    """Open a source of image-text pairs; of a memory, reads the header and the number of pairs.

    Args:
        source: as :func:`~reco_plugin.data.open_rows` takes it, or a memory: a folder, or a Qdrant server's URL as in
            ``http://host:6333?collection=reco``; or the address of an index
            (:func:`_open_index_rows`).
        model: folder of the model whose encoder a memory must have; None: any.
        into: settings of the memory that is filled, which must not be the source.

    Raises:
        FingerprintMismatch: another encoder made the memory.
        MemoryLocked: the memory is open elsewhere.
        MemoryStoreError: no such collection, or the server fails.
        ConfigError: an unknown option; a collection that is no memory; or the memory that is filled.
        DataError: an empty source, and all errors of ``open_rows``.
    """
    if is_index(str(source)):
        return _open_index_rows(str(source), model)
    where = parse_source(source)
    if not is_memory(where):
        if "://" in where.name and not where.path.exists():
            scheme = where.name.partition("://")[0]
            raise DataError(
                f"{scheme}:// begins no source that can be read: give a file or a folder, or the index of an engine "
                f"({', '.join(SCHEMES)}); see docs/sources.md"
            )
        return open_rows(source)
    fingerprint = load_model(model).manifest.fingerprint if model is not None else None
    name, part = (_served if _is_served(where.name) else _folder)(where.without("check"), fingerprint, into)
    with closing(part.open()) as memory:
        rows = Rows(name, (part,), memory.count(), where.flag("check"), told=True)
    if not rows.total:
        raise DataError(f"{rows.name} holds no pairs: it is empty")
    return rows


def name_of(rows: Rows) -> str:
    """The name under which a source's pairs are stored.

    A path becomes whole, so that a cron job with another working folder or ``./`` means the same source; links stay, as
    a link may lead to another file each day.
    """
    name = rows.name
    if "://" in name or name.startswith(PREFIX) or is_index(name):
        return name
    return os.path.normpath(Path(name).absolute())


def is_memory(where: Location) -> bool:
    """Whether a source is a memory, in a folder or on a Qdrant server."""
    return _is_served(where.name) or (where.path / HEADER_NAME).is_file()


def _is_served(name: str) -> bool:
    return name.startswith(SERVERS)


def _folder(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> tuple[str, MemoryPart]:
    where.only()
    folder = where.path.resolve()
    if into is not None and not _is_served(into.memory) and in_home(into.memory).resolve() == folder:
        raise _itself(where)
    if (found := read_header(where.path)) is not None:
        check_fingerprint(found.fingerprint, fingerprint, where.name)
    return where.name, MemoryPart(str(folder))


def _served(where: Location, fingerprint: Fingerprint | None, into: Settings | None) -> tuple[str, MemoryPart]:
    if where.path.suffix.lower() in _FILES:
        raise DataError(f"{where.name} is a file behind a URL: download it first. URLs name Qdrant servers here")
    from ..memory.collection import encoder_of, own_name

    settings = load_settings(memory=str(where))
    server, collection = server_of(settings), settings.memory_collection
    name = f"{where.name}?collection={collection}"  # an alias stays when another version is put to use
    check_fingerprint(encoder_of(server, collection), fingerprint, name)
    own = own_name(server, collection)
    if into is not None and _is_served(into.memory):
        filled = server_of(into)
        if own_name(filled, into.memory_collection) == own and filled.address == server.address:
            raise _itself(where)
    return name, MemoryPart(str(replace(where, options={**where.options, "collection": own})))


def _itself(where: Location) -> ConfigError:
    return ConfigError(
        f"{where.name} is the memory that would be filled, and cannot be read into itself: name another one with "
        "--memory, build that, and let readers use it"
    )


Holds: TypeAlias = Literal["image", "text", "neither"]
"""Whose vectors an index holds: its pictures', its captions', or ones of no use here."""


@dataclass(frozen=True)
class IndexPart:
    """An index of a search engine. It does not hold the engine's keys: the reader takes them from the settings."""

    address: IndexAddress
    holds: Holds

    @property
    def name(self) -> str:
        """Its address, without the names of its fields."""
        return _index_name(self.address)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its documents in order, as pairs."""
        with closing(open_index(self.address)) as index:
            for page in index.scan(vectors=self.holds != "neither", size=_AT_ONCE):
                yield from self._rows(page)

    def _rows(self, documents: Sequence[Document]) -> Iterator[Pair | Rejected]:
        with_vector = [document for document in documents if document.vector is not None]
        sides = dict[str, Any]()
        if with_vector:
            block = np.stack([np.asarray(document.vector) for document in with_vector])
            norms = np.linalg.norm(block, axis=1, keepdims=True)  # an engine may store them at any length
            units = unit_rows(np.divide(block, norms, out=np.zeros_like(block), where=norms > 0))
            sides = dict(zip((document.id for document in with_vector), units, strict=True))
        for document in documents:
            yield self._row(document, sides.get(document.id))

    def _row(self, document: Document, vector: Any) -> Pair | Rejected:
        where = f"{self.name}, document {document.id!r}"
        if document.problem is not None:
            return Rejected(where, document.problem, document.id or None)
        if isinstance(vector, CellError):
            return Rejected(where, f"its vector {vector}", document.id)
        payload = strip_marks(document.payload)
        try:
            text = vector if self.holds == "text" and vector is not None else self._text(document)
            image = vector if self.holds == "image" and vector is not None else self._image(document)
            if isinstance(document.image, str):
                payload.setdefault("image", document.image)
            if document.text is not None:
                payload.setdefault("caption", text_of(document.text))
        except CellError as error:
            half = document.text is None or (document.image is None and document.vector is None)
            return Rejected(where, str(error), document.id, half)
        return Pair(document.id, image, text, payload)

    def _text(self, document: Document) -> str:
        if document.text is None:
            raise CellError(f"it has no caption in {self.address.text!r}")
        return text_of(document.text)

    def _image(self, document: Document) -> Any:
        if document.image is None:
            raise CellError("it has neither a vector nor a picture" if self.holds == "image" else "it has no picture")
        return image_of(document.image, in_home(self.address.images or "."))


def _index_name(address: IndexAddress) -> str:
    """The name of an index as a source: its address, without user and names of fields, so that both may change."""
    place = address.place
    if address.user is not None:
        place = place.replace(f"{address.user}@", "", 1)
    elif not address.host and address.path and "://" not in place:
        place = f"{address.scheme}:{in_home(address.path).absolute()}"
    own = "&".join(f"{name}={value}" for name, value in sorted(address.options.items()))
    return f"{place}?{own}" if own else place


def _open_index_rows(source: str, model: str | None) -> Rows:
    """Open an index as a source of pairs.

    As of any source, its vectors are compared with the captions or pictures at hand before anything is written.

    Args:
        source: the address; ``of=image`` (the default), ``text`` or ``neither`` says whose vectors it holds,
            ``check=0`` leaves out the comparison.
        model: folder of the model; None: nothing is encoded.

    Raises:
        ConfigError: an unknown option, or no field of captions.
        FingerprintMismatch: its vectors are of another length.
        EngineError: the engine refuses; EngineUnavailable: it cannot be reached.
        DataError: the index is empty.
    """
    address = parse_address(source)
    own = dict(address.options)
    of, check = own.pop("of", "image"), own.pop("check", None)
    address = replace(address, options=own)
    check_choice("of", of, get_args(Holds))
    if check not in (None, "0", "1"):
        raise ConfigError(f"{address.place}: option check={check!r} must be 1 or 0")
    with closing(open_index(address)) as index:
        said = index.describe()
    if not said.documents:
        raise DataError(f"{_index_name(address)} holds no pairs: it is empty")
    _check_fields(address, said, of)
    dimension = said.dimension if model is None else load_model(model).manifest.fingerprint.dimension
    if of != "neither" and said.dimension != dimension:
        raise FingerprintMismatch(
            f"{_index_name(address)} holds vectors of {said.dimension} dimensions, and the model makes {dimension}: "
            "encode its pictures and captions instead, of=neither"
        )
    folder = in_home(address.images or ".")
    compare = None if check is None else check == "1"
    part = IndexPart(address, cast("Holds", of))
    return Rows(part.name, (part,), said.documents, compare, folders=(folder,))


def _check_fields(address: IndexAddress, said: Description, of: str) -> None:
    needed = {"text": (address.text, of != "text"), "image": (address.image, of != "image")}
    for option, (name, is_needed) in needed.items():
        if is_needed and name is None:
            what = "captions" if option == "text" else "pictures' paths or URLs"
            raise ConfigError(
                f"{address.place}: say which field holds the {what}, {option}=NAME. Its fields: "
                f"{', '.join(said.fields)}"
            )
