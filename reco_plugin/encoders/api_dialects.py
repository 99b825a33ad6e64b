"""The address of an API that encodes, as ``https://api.jina.ai/v1?model=jina-clip-v2``, and its dialect.

A dialect writes items as the JSON of a request and reads the vectors of an answer. ``serve/dialects`` is the reverse.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError
from ..types import Modality
from ..values import DIMENSIONS, KEY_LIKE, did_you_mean, in_words, show, split_options, unpack

DialectName: TypeAlias = Literal["openai", "jina", "cohere", "vllm", "reco"]

_ADDRESS = re.compile(r"(?:(?P<dialect>[a-z0-9-]+)\+)?(?P<scheme>(?i:https?))://(?P<rest>.+)", re.DOTALL)
_HOSTS: Mapping[str, DialectName] = {"api.openai.com": "openai", "api.jina.ai": "jina", "api.cohere.com": "cohere"}


class ApiAddress(BaseModel):
    """Address and options of an API.

    Attributes:
        dialect: format of requests and answers.
        url: URL without options, as in ``https://api.jina.ai/v1``.
        model: name of the model in each request; None if the API has one model only.
        dimensions: requested dimension of the vectors; None: the model's default.
        images: whether the model encodes images; OpenAI's dialect has no images.
        batch: items per request; None: the default of the dialect.
        parallel: concurrent requests.
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
        """Host name or IP address, with the port."""
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        """Readable name, as in ``jina-clip-v2 at api.jina.ai``."""
        suffix = f" in {self.dimensions} dimensions" if self.dimensions else ""
        return f"{self.model or self.dialect}{suffix} at {self.host}"

    def __str__(self) -> str:
        """The complete address, which :func:`parse_address` reads."""
        given = self.model_dump(exclude={"dialect", "url"}, exclude_defaults=True)
        options = "&".join(f"{name}={quote(str(value))}" for name, value in given.items())
        return f"{self.dialect}+{self.url}" + (f"?{options}" if options else "")


_OPTIONS = tuple(ApiAddress.model_fields.keys() - {"dialect", "url"})


def is_address(model: str) -> bool:
    """Whether a model is the address of an API rather than a folder.

    >>> is_address("https://api.jina.ai/v1?model=jina-clip-v2"), is_address("triton_models")
    (True, False)
    """
    return _ADDRESS.fullmatch(model) is not None


def parse_address(text: str) -> ApiAddress:
    """Read an address; the dialect is its prefix (``cohere+https://…``), or follows from the host.

    Raises:
        ConfigError: not an address, a key in it, an unknown dialect or option, or no model.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ConfigError(f"encoder must be the address of an API, as in openai+https://host/v1?model=NAME, got {text}")
    place, options = split_options(match["rest"])
    url = f"{match['scheme'].lower()}://{place}".rstrip("/")
    if "@" in place or any(map(KEY_LIKE.search, options)):  # the message does not repeat the address
        raise ConfigError(
            "the address of the encoder contains a key, which others could read: set RECO_ENCODER_KEY instead"
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
    dialect = prefix or _HOSTS.get(urlsplit(url).hostname or "")
    if dialect is None:
        raise ConfigError(
            f"encoder {url}: write the dialect of the API before the address, as in openai+{url} (one of "
            f"{', '.join(known)}; reco is another `reco serve`)"
        )
    if dialect not in known:
        raise ConfigError(f"encoder {url}: {dialect!r} is no dialect: {did_you_mean(dialect, known)}")
    return dialect


def _checked(dialect: DialectName, url: str, options: Mapping[str, str]) -> ApiAddress:
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(f"the address of the encoder has no option {name!r}: {did_you_mean(name, _OPTIONS)}")
    if "dimensions" in options and dialect == "reco":
        raise ConfigError("leave out dimensions: the vectors of another `reco serve` cannot be shortened")
    if "model" not in options and dialect != "reco":
        raise ConfigError(f"encoder {url}: name the model, as in {url}?model=NAME")
    given: dict[str, Any] = {"images": dialect != "openai", **options}
    try:
        return ApiAddress.model_validate({"dialect": dialect, "url": url, **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"{first['loc'][0]}={show(first['input'])}"
        raise ConfigError(f"{option} in the address of the encoder is invalid: {in_words(first['msg'])}") from None


Write: TypeAlias = Callable[[ApiAddress, Sequence[bytes], Modality], dict[str, Any]]
"""Makes the body of a request from texts in UTF-8, or from image files."""


@dataclass(frozen=True)
class Dialect:
    """Requests and answers of one kind of API.

    Attributes:
        version: first part of the path of the route that embeds, if the address has no path.
        route: last part of that path.
        write: makes the body of a request.
        read: returns the vectors of an answer in the order of the items, as lists of numbers or base64.
        texts: texts per request.
        models: route of a list of models with fingerprints; None if there is none.
    """

    version: str
    route: str
    write: Write
    read: Callable[[Any], list[Any]]
    texts: int
    models: str | None = None

    def url(self, address: ApiAddress) -> str:
        """Complete an address, which may end with the host, the version or the route."""
        path = urlsplit(address.url).path  # of the path only, since a host may be called embeddings
        if path.endswith(self.route):
            return address.url
        return address.url + (self.route if path else self.version + self.route)


def _uri(image: bytes) -> str:
    """Return a data URI; its type follows from the first bytes."""
    kind = "jpeg" if image[:2] == b"\xff\xd8" else "webp" if image[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{_base64(image)}"


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _common(address: ApiAddress, dimensions: str = "dimensions") -> dict[str, Any]:
    """Return the model and the dimensions, whose field has another name in some dialects."""
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


def _write_vllm(address: ApiAddress, items: Sequence[bytes], modality: Modality) -> dict[str, Any]:
    """Cohere's route of a vLLM server, without ``input_type``, which it refuses for CLIP and SigLIP.

    https://docs.vllm.ai/en/stable/models/pooling_models/embed/#cohere-embed-api
    """
    given = [item.decode() if modality == "text" else _uri(item) for item in items]
    return {f"{modality}s": given, **_common(address, "output_dimension"), "embedding_types": ["float"]}


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
    "vllm": Dialect("/v2", "/embed", _write_vllm, _read_cohere, texts=128),
    "reco": Dialect("/v1", "/embeddings", _write_reco, _read_data, texts=64, models="/v1/models"),
}
IMAGES = 16
"""Images per request."""


def to_row(value: Any) -> npt.NDArray[np.float32]:
    """Return a vector (D,) of an answer: a list of numbers, or base64 of little-endian float32 as in OpenAI's API."""
    return unpack(value, (-1,), "a vector") if isinstance(value, str) else np.asarray(value, np.float32)
