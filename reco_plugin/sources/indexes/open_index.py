"""Open the index of a search engine: to search it, or as a source of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from ...encoders.remote import load_model
from ...errors import ConfigError, DataError, FingerprintMismatch, importing, need
from ...files import in_home
from ...settings import Settings, load_settings
from ...types import Pair
from ...values import check_choice, strip_marks
from ..cells import CellError, parse_image, parse_text, unit_rows
from ..location import parse_switch
from ..rows import Rejected, Rows
from .address import IndexAddress, parse_address
from .base import Document, Engine

_PAGE = 256


def open_index(address: str | IndexAddress, *, settings: Settings | None = None) -> Engine:
    """Open an index for reading; nothing is sent before the first call of a method.

    Args:
        address: as in ``postgresql://host/shop?table=products&vector=clip&text=title``.
        settings: with the keys ``index_user``, ``index_password`` and ``index_api_key``; None: from the environment.

    Raises:
        ConfigError: an invalid address, an option that this engine does not have, or a key that no header can hold.
        MissingExtra: the engine's client is not installed.
    """
    where = parse_address(address) if isinstance(address, str) else address
    keys = settings or load_settings()
    opened: Engine
    match where.scheme:
        case "postgresql":
            with importing("psycopg", "postgresql", "an index in PostgreSQL"):
                from .postgres import PostgresIndex
            opened = PostgresIndex(where, keys)
        case "milvus":
            extra = "milvus" if where.host else "milvus-lite"
            with importing("pymilvus", extra, "an index in Milvus"):
                from .milvus import MilvusIndex
            if not where.host:
                need("milvus_lite", "a file of Milvus Lite", extra)
            opened = MilvusIndex(where, keys)
        case "lancedb":
            with importing(None, "lancedb", "an index in LanceDB"):
                from .lance import LanceIndex
            opened = LanceIndex(where, keys)
        case "http" | "https" | "grpc" | "grpcs":
            with importing("qdrant_client", "qdrant", "an index in Qdrant"):
                from .qdrant import QdrantIndex
            opened = QdrantIndex(where, keys)
        case "weaviate":
            with importing("weaviate", "weaviate", "an index in Weaviate"):
                from .weaviate import WeaviateIndex
            opened = WeaviateIndex(where, keys)
        case "opensearch":
            with importing("httpx", "opensearch", "an index in OpenSearch"):
                from .rest import OpenSearchIndex
            opened = OpenSearchIndex(where, keys)
        case "elasticsearch":
            with importing("httpx", "elasticsearch", "an index in Elasticsearch"):
                from .rest import ElasticsearchIndex
            opened = ElasticsearchIndex(where, keys)
        case _:
            raise AssertionError(where.scheme)
    return opened


VectorsOf: TypeAlias = Literal["image", "text", "neither"]
"""What an index's vectors encode: its pictures or its captions; with ``neither``, both are encoded again."""


def open_index_rows(source: str, model: str | None) -> Rows:
    """Open an index as a source of pairs.

    Args:
        source: the address, with two more options: ``of=image`` (the default), ``text`` or ``neither`` is what the
            vectors encode, and ``check=0`` skips the comparison of vectors with captions and pictures.
        model: folder or address of the encoder's model; None: vectors of any dimension.

    Raises:
        ConfigError: an unknown option, or the address names no field of captions or pictures.
        FingerprintMismatch: the index has vectors of another dimension.
        EngineError: the engine refuses. EngineUnavailable: it cannot be reached.
        DataError: the index is empty.
    """
    address = parse_address(source)
    options = dict(address.options)
    of, check = options.pop("of", "image"), options.pop("check", None)
    address = replace(address, options=options)
    check_choice("of", of, get_args(VectorsOf))
    part = IndexPart(address, cast("VectorsOf", of))
    checked = parse_switch(address.place, "check", check, True)
    with closing(open_index(address)) as index:
        described = index.describe()
    if not described.documents:
        raise DataError(f"{part.name} holds no pairs: it is empty")
    for option, what in (("text", "captions"), ("image", "pictures' paths or URLs")):
        if of != option and getattr(address, option) is None:
            fields = ", ".join(described.fields)
            raise ConfigError(f"{address.place}: say which field holds the {what}, {option}=NAME. Its fields: {fields}")
    dimension = described.dimension if model is None else load_model(model).manifest.fingerprint.dimension
    if of != "neither" and dimension != described.dimension:
        raise FingerprintMismatch(
            f"{part.name} holds vectors of {described.dimension} dimensions, and the model makes {dimension}: "
            "encode its pictures and captions instead, of=neither"
        )
    return Rows(
        part.name,
        (part,),
        described.documents,
        checked,
        how_to_skip="give of=text if they are of its captions, or of=neither to encode its pictures",
        folders=(in_home(address.images or "."),),
    )


@dataclass(frozen=True)
class IndexPart:
    """A whole index as a part of a source. Keys are not stored in it: each reader takes them from its settings."""

    address: IndexAddress
    vectors_of: VectorsOf

    @property
    def name(self) -> str:
        """The index's name as a source: its address without the user and the names of fields, which may change."""
        address = self.address
        place = address.place
        if address.user is not None:
            place = place.replace(f"{address.user}@", "", 1)
        elif not address.host and address.path and "://" not in place:
            place = f"{address.scheme}:{in_home(address.path).absolute()}"
        options = "&".join(f"{name}={value}" for name, value in sorted(address.options.items()))
        return f"{place}?{options}" if options else place

    def read(self) -> Iterator[Pair | Rejected]:
        """Read the documents in order, as pairs."""
        with closing(open_index(self.address)) as index:
            for page in index.scan(vectors=self.vectors_of != "neither", size=_PAGE):
                yield from self._rows(page)

    def _rows(self, documents: Sequence[Document]) -> Iterator[Pair | Rejected]:
        with_vector = [document for document in documents if document.vector is not None]
        vectors = dict[str, Any]()
        if with_vector:
            block = np.stack([np.asarray(document.vector) for document in with_vector])
            norms = np.linalg.norm(block, axis=1, keepdims=True)  # an engine may store any length
            units = unit_rows(np.divide(block, norms, out=np.zeros_like(block), where=norms > 0))
            vectors = dict(zip((document.id for document in with_vector), units, strict=True))
        for document in documents:
            yield self._row(document, vectors.get(document.id))

    def _row(self, document: Document, vector: Any) -> Pair | Rejected:
        where = f"{self.name}, document {document.id!r}"
        if document.problem is not None:
            return Rejected(where, document.problem, document.id or None)
        if isinstance(vector, CellError):
            return Rejected(where, f"its vector {vector}", document.id)
        payload = strip_marks(document.payload)
        try:
            text = vector if self.vectors_of == "text" and vector is not None else self._text(document)
            image = vector if self.vectors_of == "image" and vector is not None else self._image(document)
            if isinstance(document.image, str):
                payload.setdefault("image", document.image)
            if document.text is not None:
                payload.setdefault("caption", parse_text(document.text))
        except CellError as error:
            is_incomplete = document.text is None or (document.image is None and document.vector is None)
            return Rejected(where, str(error), document.id, is_incomplete)
        return Pair(document.id, image, text, payload)

    def _text(self, document: Document) -> str:
        if document.text is None:
            raise CellError(f"it has no caption in {self.address.text!r}")
        return parse_text(document.text)

    def _image(self, document: Document) -> Any:
        if document.image is None:
            raise CellError(
                "it has neither a vector nor a picture" if self.vectors_of == "image" else "it has no picture"
            )
        return parse_image(document.image, in_home(self.address.images or "."))
