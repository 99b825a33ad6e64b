"""What each dialect writes and reads: items become the JSON of a request, the JSON of an answer rows of numbers.

The same shapes that ``serve/dialects`` answers, from the other end.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from ..types import Modality
from .address import ApiAddress, DialectName

Write: TypeAlias = Callable[[ApiAddress, Sequence[bytes], Modality], dict[str, Any]]
"""Makes the body of a request for some items: texts in UTF-8, or image files."""


@dataclass(frozen=True)
class Dialect:
    """How one kind of API is spoken.

    Attributes:
        version, route: of the route that embeds, added to an address that does not end with it.
        write: body of a request.
        read: rows of an answer, in the order of the items: lists of numbers, or base64.
        texts: per request.
        models: route of a list of models with fingerprints, where there is one.
    """

    version: str
    route: str
    write: Write
    read: Callable[[Any], list[Any]]
    texts: int
    models: str | None = None

    def url(self, address: ApiAddress) -> str:
        """The route, for an address of the host alone, of a version, or of the route itself."""
        own = urlsplit(address.url).path  # a host may be called embeddings, too
        if own.endswith(self.route):
            return address.url
        return address.url + (self.route if own else self.version + self.route)


def _uri(image: bytes) -> str:
    """A data URI, of the type that the first bytes tell."""
    kind = "jpeg" if image[:2] == b"\xff\xd8" else "webp" if image[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{_base64(image)}"


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _common(address: ApiAddress, dimensions: str = "dimensions") -> dict[str, Any]:
    """The fields of every request: model, and the dimensions under their name."""
    given = {"model": address.model, dimensions: address.dimensions}
    return {name: value for name, value in given.items() if value is not None}


def _write_openai(address: ApiAddress, items: Sequence[bytes], _: Modality) -> dict[str, Any]:
    return {"input": [item.decode() for item in items], **_common(address), "encoding_format": "float"}


def _write_jina(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    parts = [{"text": item.decode()} if modality == "text" else {"image": _base64(item)} for item in items]
    return {"input": parts, **_common(address)}


def _write_reco(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    return {**_write_jina(address, items, modality), "refine": False, "encoding_format": "base64"}


def _write_cohere(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    fields = {"input_type": "search_document", **_common(address, "output_dimension"), "embedding_types": ["float"]}
    if modality == "text":
        return {"texts": [item.decode() for item in items], **fields}
    parts = [[{"type": "image_url", "image_url": {"url": _uri(item)}}] for item in items]
    return {"inputs": [{"content": part} for part in parts], **fields}


def _read_data(answer: Any) -> list[Any]:
    rows = answer["data"]
    if all("index" in row for row in rows):
        rows = sorted(rows, key=lambda row: int(row["index"]))
    return [row["embedding"] for row in rows]


def _read_cohere(answer: Any) -> list[Any]:
    return list(answer["embeddings"]["float"])


DIALECTS: Mapping[DialectName, Dialect] = {
    "openai": Dialect("/v1", "/embeddings", _write_openai, _read_data, texts=128),
    "jina": Dialect("/v1", "/embeddings", _write_jina, _read_data, texts=128),
    "cohere": Dialect("/v2", "/embed", _write_cohere, _read_cohere, texts=96),
    "reco": Dialect("/v1", "/embeddings", _write_reco, _read_data, texts=64, models="/v1/models"),
}
IMAGES = 16
"""Per request."""


def to_row(sent: Any) -> Any:
    """A row of an answer as numbers (D,); base64 is of little-endian float32, as in OpenAI's API."""
    if isinstance(sent, str):
        return np.frombuffer(base64.b64decode(sent, validate=True), "<f4")
    return np.asarray(sent, np.float32)
