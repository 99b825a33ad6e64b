"""The address of an API, as ``https://api.jina.ai/v1?model=jina-clip-v2``, and what its dialect writes and reads.

Items become the JSON of a request, the JSON of an answer rows of numbers: the shapes that ``serve/dialects`` answers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError
from ..types import Modality
from ..values import DIMENSIONS, KEY_LIKE, did_you_mean, in_words, show, split_options

DialectName: TypeAlias = Literal["openai", "jina", "cohere", "reco"]

_ADDRESS = re.compile(r"(?:(?P<dialect>[a-z0-9-]+)\+)?(?P<scheme>(?i:https?))://(?P<rest>.+)", re.DOTALL)
_HOSTS: Mapping[str, DialectName] = {"api.openai.com": "openai", "api.jina.ai": "jina", "api.cohere.com": "cohere"}


class ApiAddress(BaseModel):
    """Who is called, and how.

    Attributes:
        dialect: how requests are written.
        url: without options, as in ``https://api.jina.ai/v1``.
        model: sent with each request; None where the API has one model only.
        dimensions: of a model that is trained for several; None: the model's own.
        images: whether its model takes images; in OpenAI's dialect there are none.
        batch: items per request; None: the dialect's own number.
        parallel: requests at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: DialectName
    url: str
    model: str | None = None
    dimensions: int | None = Field(None, ge=1, le=DIMENSIONS)
    images: bool = True
    batch: int | None = Field(None, ge=1, le=2048)
    parallel: int = Field(4, ge=1, le=64)

    @property
    def host(self) -> str:
        """Name or number of the host, with its port."""
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        """For people, as in ``jina-clip-v2 at api.jina.ai``."""
        wide = f" in {self.dimensions} dimensions" if self.dimensions else ""
        return f"{self.model or self.dialect}{wide} at {self.host}"

    def __str__(self) -> str:
        """The address again, in full."""
        given = self.model_dump(exclude={"dialect", "url"}, exclude_defaults=True)
        options = "&".join(f"{name}={quote(str(value))}" for name, value in given.items())
        return f"{self.dialect}+{self.url}" + (f"?{options}" if options else "")


_OPTIONS = tuple(ApiAddress.model_fields.keys() - {"dialect", "url"})


def is_address(model: str) -> bool:
    """Whether a model is the address of an API, and no folder.

    >>> is_address("https://api.jina.ai/v1?model=jina-clip-v2"), is_address("triton_models")
    (True, False)
    """
    return _ADDRESS.fullmatch(model) is not None


def parse_address(text: str) -> ApiAddress:
    """Read an address; the dialect is its prefix (``cohere+https://…``), or that of the provider's host.

    Raises:
        ConfigError: no address, a key in it, an unknown dialect or option, or a model that is missing.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigError(f"encoder must be the address of an API, as in openai+https://host/v1?model=NAME, got {text}")
    place, options = split_options(match["rest"])
    url = f"{match['scheme'].lower()}://{place}".rstrip("/")
    if "@" in place or any(map(KEY_LIKE.search, options)):  # not repeated: it may hold a key
        raise ConfigError(
            "no key belongs into the address of an encoder, where others can read it: set RECO_ENCODER_KEY"
        )
    if not urlsplit(url).hostname or "?" in place or "#" in place:
        raise ConfigError(
            "the encoder's address cannot be read: write it as https://host/v1?name=value, with & between options, and "
            "?, & and # in a value as %3F, %26 and %23. A key goes into RECO_ENCODER_KEY"
        )
    dialect = _dialect(match["dialect"], url)
    return _checked(dialect, url, {name: unquote(value) for name, value in options.items()})


def _dialect(prefix: str | None, url: str) -> DialectName:
    known: tuple[DialectName, ...] = get_args(DialectName)
    found = prefix or _HOSTS.get(urlsplit(url).hostname or "")
    if found is None:
        raise ConfigError(
            f"encoder {url}: write which API it speaks before the address, as in openai+{url} (one of "
            f"{', '.join(known)}; reco is another `reco serve`)"
        )
    if found not in known:
        raise ConfigError(f"encoder {url}: {found!r} is no dialect: {did_you_mean(found, known)}")
    return found


def _checked(dialect: DialectName, url: str, options: Mapping[str, str]) -> ApiAddress:
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(f"the address of the encoder has no {name!r}: {did_you_mean(name, _OPTIONS)}")
    if "dimensions" in options and dialect == "reco":
        raise ConfigError("dimensions of another `reco serve`: a memory keeps its full vectors, leave them out")
    if "model" not in options and dialect != "reco":
        raise ConfigError(f"encoder {url}: name the model, as in {url}?model=NAME")
    given: dict[str, Any] = {"images": dialect != "openai", **options}
    try:
        return ApiAddress.model_validate({"dialect": dialect, "url": url, **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{first['loc'][0]}={show(first['input'])} of the encoder cannot be used: {in_words(first['msg'])}"
        ) from None


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
