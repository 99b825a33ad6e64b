"""``reco serve``: one process, one Reco, over HTTP. Its flags are the fields of the service's settings."""

from __future__ import annotations

import inspect
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import SecretStr

from ..errors import ConfigError
from .errors import reports_errors
from .options import MemoryOption, ModelOption, memory_location

EXTRA = "serve"


def _serve(**flags: Any) -> None:
    """Serve embeddings over HTTP: OpenAI's and other shapes, /v1/refine, the memory, health and metrics.

    Every flag can also be a line below [serve] in reco.toml, or a variable: RECO_SERVE_PORT=9000. Keys cannot be
    flags, which other users of a machine see: RECO_SERVE_API_KEYS=key1,key2 and RECO_SERVE_ADMIN_KEY.
    """
    from ..data.extras import need

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, "reco serve", EXTRA)
    from ..reco import Reco
    from ..serve.run import check_address, run
    from ..serve.settings import load_serve_settings

    model, memory = flags.pop("model", None), flags.pop("memory", None)
    settings = load_serve_settings(**{name: _value(name, value) for name, value in flags.items()})
    check_address(settings)
    with Reco.open(model, memory=memory_location(memory)) as reco:
        run(settings, reco)


def _value(name: str, value: Any) -> Any:
    """A flag as the settings want it; repeated flags that were not given are empty."""
    if isinstance(value, list | tuple):
        if not value:
            return None
        return dict(map(_named, value)) if name == "aliases" else list(value)
    return value


def _named(word: str) -> tuple[str, str]:
    name, found, meaning = word.partition("=")
    if not found:
        raise ConfigError(f"--aliases {word!r} is not NAME=plain or NAME=refined")
    return name, meaning


def _options() -> list[inspect.Parameter]:
    """One flag for each setting that is no key."""
    from ..serve.settings import ServeSettings

    options: dict[str, Any] = {"model": ModelOption, "memory": MemoryOption}
    for name, field in ServeSettings.model_fields.items():
        if SecretStr in _kinds(field.annotation):
            continue
        kind: Any = field.annotation
        shown = field.get_default()
        if get_origin(kind) in (list, dict):  # a flag that can be repeated
            kind = list[str]
            shown = ", ".join(f"{key}={value}" for key, value in shown.items()) if isinstance(shown, dict) else "none"
        flag = f"--{name.replace('_', '-')}"
        flag = f"{flag}/--no-{flag[2:]}" if bool in _kinds(kind) else flag
        option = typer.Option(flag, help=field.description, show_default=shown not in (None, "") and str(shown))
        options[name] = Annotated[kind if NoneType in get_args(kind) else kind | None, option]
    only = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, only, default=None, annotation=option) for name, option in options.items()]


def _kinds(annotation: Any) -> set[Any]:
    """A type and all that it is made of."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


serve_command = reports_errors(_serve)
serve_command.__signature__ = inspect.Signature(_options())  # type: ignore[attr-defined]  # which typer reads
