"""Settings of the service: ``RECO_SERVE_*``, the section ``[serve]`` of ``reco.toml``, or flags of ``reco serve``."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from ..settings import FILE, NESTED, PREFIX, SettingsSection, load_section

RefineMode: TypeAlias = Literal["plain", "refined", "query"]
"""What an alias of the model, or the prefix of a path, stands for."""
SECTION = "serve"
MAX_K = 100
"""Limit of the neighbours per query: each is read from the memory and weighted."""


def _split(value: Any) -> Any:
    """Split a variable that holds a list: words between commas, or JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):
            return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _not_blank(key: SecretStr) -> SecretStr:
    """Refuse a blank key: a header without a value would match it."""
    if not key.get_secret_value().strip():
        raise ValueError("is a blank key: write one, or remove it")
    return key


ServiceKey = Annotated[SecretStr, AfterValidator(_not_blank)]
WordList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
KeyList = Annotated[list[ServiceKey], NoDecode, BeforeValidator(_split)]


_GROUPS = ("Listening", "Keys", "Limits", "Models", "Page")


def _setting(group: str, default: Any, description: str, **limits: Any) -> Any:
    """Make a field that `reco serve --help` shows in a group."""
    if isinstance(default, float):
        limits["allow_inf_nan"] = False
    return Field(default, description=description, json_schema_extra={"rich_help_panel": group}, **limits)


_listening, _keys, _limits, _models, _page = (partial(_setting, group) for group in _GROUPS)


class ServeSettings(SettingsSection):
    """The settings of the service. The description of each field is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=f"{PREFIX}{SECTION.upper()}_",
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        toml_file=FILE,
        extra="forbid",
    )

    section: ClassVar[str | None] = SECTION

    host: str = _listening("127.0.0.1", "address to listen on; 0.0.0.0 for all")
    port: int = _listening(8080, "port to listen on; 0: any free one", ge=0, le=65535)
    allowed_hosts: WordList = _listening(
        [],
        "host names that clients may use besides localhost; none: any name, but on a loopback address only localhost",
    )
    log_format: Literal["auto", "json", "text"] = _listening(
        "auto", "format of the log on stderr; auto: text on a terminal, else JSON lines"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _listening("info", "lowest level that is logged")

    keys_file: Path | None = _keys(
        None, "TOML file of keys with names and rights, see docs/serve.md; read again when it changes"
    )
    api_keys: KeyList = _keys([], "bearer keys with the rights embed and read; without any key, everybody may embed")
    admin_key: ServiceKey | None = _keys(None, "bearer key with all rights")

    threads: int = _limits(2, "requests that are computed at the same time", ge=1, le=64)
    queue: int = _limits(
        4096, "texts, images and vectors that may wait; beyond it, requests get 429, unless nothing waits", ge=0
    )
    deadline_s: float = _limits(30.0, "seconds after which a request gets 504", gt=0)
    drain_s: float = _limits(
        5.0,
        "seconds after SIGTERM in which requests are still accepted, until load balancers have noticed",
        ge=0,
    )
    shutdown_s: int = _limits(20, "seconds after that in which requests in flight may end", ge=1)
    max_body_bytes: int = _limits(32_000_000, "limit of a request body; larger ones get 413", ge=1)
    max_pending_bytes: int = _limits(
        256_000_000, "memory for the bodies of all requests together; a large body waits, then gets 429", ge=1
    )
    max_image_bytes: int = _limits(16_000_000, "limit of an encoded image; larger ones get 413", ge=1)
    max_items: int = _limits(2048, "texts, images and vectors per request", ge=1)
    max_images: int = _limits(256, "images per request", ge=1)

    aliases: dict[str, RefineMode] = _models(
        {"clip": "plain", "clip-reco": "refined", "clip-reco-query": "query"},
        "names of the model and their modes: plain; refined, which needs the role query or document;"
        " query, which takes an input without a role as a query",
        min_length=1,
    )

    documents: int | None = _models(
        None,
        "number of documents in the index; answers to queries then carry a threshold, with the precision below",
        ge=1,
    )
    precision: float = _models(0.9, "share of first results above the threshold that are right", ge=0.5, lt=1)

    page: bool = _page(True, "serve the playground at /")
    page_pictures: Path | None = _page(
        None,
        "folder whose image files the playground may show; unset: the folders from which the memory was filled here",
    )


def load_serve_settings(**arguments: Any) -> ServeSettings:
    """Read the settings. An argument that is None counts as not given.

    Raises:
        ConfigError: an unknown name, an unusable value, or a file or variable that cannot be parsed.
    """
    return load_section(ServeSettings, **arguments)
