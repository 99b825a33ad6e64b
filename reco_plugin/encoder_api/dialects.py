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
Read: TypeAlias = Callable[[Any, Modality], list[Any]]
"""Takes the rows out of an answer, in the order of the items: lists of numbers, or base64."""


@dataclass(frozen=True)
class Dialect:
    """How one kind of API is spoken.

    Attributes:
        path: added to an address that does not end with it.
        write: body of a request.
        read: rows of an answer.
        texts: per request.
        get_identity: path of a list of models with fingerprints, where there is one.
    """

    path: Callable[[ApiAddress], str]
    write: Write
    read: Read
    texts: int
    get_identity: str | None = None


def _uri(image: bytes) -> str:
    """A data URI, of the type that the first bytes tell."""
    kind = "jpeg" if image[:2] == b"\xff\xd8" else "webp" if image[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{_base64(image)}"


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _common(address: ApiAddress, dimensions: str) -> dict[str, Any]:
    """The fields of every request: model, and the dimensions under their name."""
    sized = {} if address.dimensions is None else {dimensions: address.dimensions}
    return {**({} if address.model is None else {"model": address.model}), **sized}


def _write_openai(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    fields = {**_common(address, "dimensions"), "encoding_format": "float"}
    if modality == "text":
        return {"input": [item.decode() for item in items], **fields}
    if address.images == "messages":
        (image,) = items
        content = [{"type": "image_url", "image_url": {"url": _uri(image)}}]
        return {"messages": [{"role": "user", "content": content}], **fields}
    if address.images == "object":
        return {"input": [{"image": _base64(item)} for item in items], **fields}
    return {"input": list(map(_uri, items)), **fields}


def _write_jina(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    return {"input": _parts(items, modality), **_common(address, "dimensions")}


def _write_reco(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    return {
        "input": _parts(items, modality),
        **_common(address, "dimensions"),
        "refine": False,
        "encoding_format": "base64",
    }


def _parts(items: Sequence[bytes], modality: Modality) -> list[dict[str, str]]:
    if modality == "text":
        return [{"text": item.decode()} for item in items]
    return [{"image": _base64(item)} for item in items]


def _write_cohere(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    fields = {"input_type": "search_document", **_common(address, "output_dimension"), "embedding_types": ["float"]}
    if modality == "text":
        return {"texts": [item.decode() for item in items], **fields}
    inputs = [{"content": [{"type": "image_url", "image_url": {"url": _uri(item)}}]} for item in items]
    return {"inputs": inputs, **fields}


def _read_data(answer: Any, _: Modality) -> list[Any]:
    rows = answer["data"]
    if all("index" in row for row in rows):
        rows = sorted(rows, key=lambda row: int(row["index"]))
    return [row["embedding"] for row in rows]


def _read_cohere(answer: Any, _: Modality) -> list[Any]:
    found = answer["embeddings"]
    return list(found["float"] if isinstance(found, Mapping) else found)


def _openai_path(address: ApiAddress) -> str:
    return _below(address, "/v1", "/embeddings")


def _below(address: ApiAddress, version: str, path: str) -> str:
    """The route, for an address of the host alone, of a version, or of the route itself."""
    own = urlsplit(address.url).path  # a host may be called embeddings, too
    if own.endswith(path):
        return address.url
    return address.url + (path if own else version + path)


DIALECTS: Mapping[DialectName, Dialect] = {
    "openai": Dialect(_openai_path, _write_openai, _read_data, texts=128),
    "jina": Dialect(_openai_path, _write_jina, _read_data, texts=128),
    "cohere": Dialect(lambda address: _below(address, "/v2", "/embed"), _write_cohere, _read_cohere, texts=96),
    "reco": Dialect(_openai_path, _write_reco, _read_data, texts=64, get_identity="/v1/models"),
}
IMAGES = 16
"""Per request."""


def to_row(sent: Any) -> Any:
    """A row of an answer as numbers (D,); base64 is of little-endian float32, as in OpenAI's API."""
    if isinstance(sent, str):
        return np.frombuffer(base64.b64decode(sent, validate=True), "<f4")
    return np.asarray(sent, np.float32)
