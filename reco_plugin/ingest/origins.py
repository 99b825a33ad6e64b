"""Any source of pairs: all that :func:`~reco_plugin.sources.open_rows` reads, and indexes of search engines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from ..encoders.remote import load_model
from ..errors import ConfigError, DataError, FingerprintMismatch
from ..files import in_home
from ..memory.checks import SERVERS
from ..memory.header import HEADER_NAME
from ..sources import open_rows
from ..sources.cells import CellError, image_of, text_of, unit_rows
from ..sources.indexes.address import SCHEMES
from ..sources.indexes.open_index import Description, Document, IndexAddress, is_index, open_index, parse_address
from ..sources.location import Location, is_on, parse_source
from ..sources.rows import Rejected, Rows
from ..types import Pair
from ..values import check_choice, strip_marks

_AT_ONCE = 256


def open_source(source: str | Path, *, model: str | None = None) -> Rows:
    """Open a source of image-text pairs.

    Args:
        source: as :func:`~reco_plugin.sources.open_rows` takes it, or the address of an index.
        model: whose encoder the vectors of an index must have; None: any.

    Raises:
        ConfigError: an unknown option; or a memory, which is copied instead.
        DataError: an empty source, and all errors of ``open_rows``.
    """
    if is_index(str(source)):
        return _open_index_rows(str(source), model)
    where = parse_source(source)
    if is_memory(where):
        shown = where.name.partition("?")[0].rpartition("@")[2]  # without a key
        raise ConfigError(f"{shown} is no source: reco memory copy copies a memory; download a file first")
    if "://" in where.name and not where.path.exists():
        scheme = where.name.partition("://")[0]
        raise DataError(
            f"{scheme}:// begins no source that can be read: give a file or a folder, or the index of an engine "
            f"({', '.join(SCHEMES)}); see docs/sources.md"
        )
    return open_rows(source)


def name_of(rows: Rows) -> str:
    """The name under which a source's pairs are stored.

    A path becomes whole, so that a cron job with another working folder or ``./`` means the same source; links stay, as
    a link may lead to another file each day.
    """
    name = rows.name
    if "://" in name or is_index(name):
        return name
    return os.path.normpath(Path(name).absolute())


def is_memory(where: Location) -> bool:
    """Whether this names a memory, in a folder or on a Qdrant server."""
    return where.name.startswith(SERVERS) or (where.path / HEADER_NAME).is_file()


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
    checked = is_on(address.place, "check", check, True)
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
    part = IndexPart(address, cast("Holds", of))
    return Rows(part.name, (part,), said.documents, checked, folders=(folder,))


def _check_fields(address: IndexAddress, said: Description, of: str) -> None:
    needed = {"text": (address.text, of != "text"), "image": (address.image, of != "image")}
    for option, (name, is_needed) in needed.items():
        if is_needed and name is None:
            what = "captions" if option == "text" else "pictures' paths or URLs"
            raise ConfigError(
                f"{address.place}: say which field holds the {what}, {option}=NAME. Its fields: "
                f"{', '.join(said.fields)}"
            )
