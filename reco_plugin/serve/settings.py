"""Settings of the service: ``RECO_SERVE_*``, the section ``[serve]`` of ``reco.toml``, or flags of ``reco serve``."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from ..config import FILE, NESTED, PREFIX, SettingsSection, load_section

Manner: TypeAlias = Literal["plain", "refined", "query"]
"""What a name of the model means."""
SECTION = "serve"
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\sA-Z]+")


def _parts(value: Any) -> Any:
    """A list in a variable is words between commas, or JSON, as tables are."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _origins(value: list[str]) -> list[str]:
    """An origin as browsers send it, since another spelling would allow nobody."""
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin: write https://shop.example, without a path, or *")
    return value


def _path(value: str) -> str:
    """A path as the server puts it before others: with a slash before it, and none behind."""
    if "://" in value or not re.fullmatch(r"[!-~]*", value):
        raise ValueError(f"{value!r} is no path: write it as in /clip, without a host")
    return f"/{path}" if (path := value.strip("/")) else ""


WordList = Annotated[list[str], NoDecode, BeforeValidator(_parts)]
Keys = Annotated[list[SecretStr], NoDecode, BeforeValidator(_parts)]


class ServeSettings(SettingsSection):
    """Everything that can be set about the service; each field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=f"{PREFIX}{SECTION.upper()}_",
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        toml_file=FILE,
        extra="forbid",
    )

    section: ClassVar[str | None] = SECTION

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    root_path: Annotated[str, AfterValidator(_path)] = Field(
        "", description="path under which a proxy publishes the service"
    )
    allowed_hosts: WordList = Field(
        [], description="names that callers may use besides localhost; none: any, on a loopback address only localhost"
    )
    cors_origins: Annotated[WordList, AfterValidator(_origins)] = Field(
        [],
        description="origins whose web pages may call, as in https://shop.example; *: any; none: its own only",
    )

    api_keys: Keys = Field([], description="bearer keys that callers need; none: everybody may call")
    admin_key: SecretStr | None = Field(None, description="key of /v1/memory; without one it cannot be written or read")
    metrics_key: bool = Field(False, description="ask for a key at /metrics too")
    show_pairs: bool | None = Field(
        None,
        description="show pairs of the memory to callers without the admin key (explanations, the playground);"
        " unset: to those with an API key, and to everybody where there is no admin key",
    )

    threads: int = Field(2, ge=1, le=64, description="requests that are computed at the same time")
    queue: int = Field(
        4096, ge=0, description="texts, images and vectors of requests that may wait; more get 429, but for the first"
    )
    deadline_s: float = Field(30.0, gt=0, allow_inf_nan=False, description="until a request gets 504, or 408")
    drain_s: float = Field(
        5.0,
        ge=0,
        allow_inf_nan=False,
        description="after SIGTERM, how long requests are still taken: a balancer sees meanwhile that it is not ready",
    )
    shutdown_s: int = Field(20, ge=1, description="and then, how long requests in flight may take")

    ready_without_models: bool = Field(
        False,
        description="stay ready while the model server is away: what needs no encoder is answered, cached inputs"
        " and vectors",
    )

    max_body_bytes: int = Field(32_000_000, ge=1, description="larger request bodies get 413")
    max_pending_bytes: int = Field(
        256_000_000, ge=1, description="memory for the bodies of all requests together; a large one waits, then 429"
    )
    max_image_bytes: int = Field(16_000_000, ge=1, description="larger encoded images get 413")
    max_items: int = Field(2048, ge=1, description="texts, images and vectors per request")
    max_images: int = Field(256, ge=1, description="of which images")
    max_k: int = Field(100, ge=1, le=1000, description="largest k that a request may ask for")
    max_pairs: int = Field(
        50_000, ge=1, description="pairs that an explanation may show: items times k; more get 413 before any work"
    )

    aliases: dict[str, Manner] = Field(
        {"clip": "plain", "clip-reco": "refined", "clip-reco-query": "query"},
        description="names of the model, and what they mean: plain; refined, where a request says query or document;"
        " query, refined also where it says nothing",
    )
    query_text: bool | None = Field(None, description="refine query texts; the model's policy when unset")
    query_image: bool | None = Field(None, description="refine query images; the model's policy when unset")
    refined_share: float = Field(
        1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the queries that are refined, the others stay plain: by the header x-reco-unit, or else"
        " by the query itself",
    )
    document_text: bool = Field(False, description="refine document texts, those of a request as one set")
    document_image: bool = Field(False, description="refine document images, those of a request as one set")

    image_urls: bool = Field(False, description="fetch images from public http(s) URLs; private addresses never")
    image_url_hosts: WordList = Field([], description="where image URLs may point; none: to any public host")

    immich_url: str | None = Field(
        None, description="immich's own machine-learning service, for what it asks at /predict besides smart search"
    )
    cache_entries: int = Field(0, ge=0, description="vectors of repeated queries that are kept; 0: none")
    page: bool = Field(True, description="serve the playground at /")
    page_index: str | None = Field(
        None, description="what the playground ranks instead of the memory: a collection of its server, or a folder"
    )
    page_pictures: Path | None = Field(
        None,
        description="the folder below which the playground may show image files; where the memory was filled from on "
        "this machine, when unset",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="of the log, on stderr; auto: text on a terminal, else JSON lines"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")


def load_serve_settings(**arguments: Any) -> ServeSettings:
    """Read the settings; arguments that are None count as not given.

    Raises:
        ConfigError: an unknown word or an unusable value, by name; or a file or variable that cannot be parsed.
    """
    return load_section(ServeSettings, **arguments)
