"""Settings for ``reco doctor``: changed ones, timeouts, limits, and advice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config import Settings
    from ..serve.settings import ServeSettings

WAITS = (
    "on_memory_failure",
    "memory_timeout_s",
    "memory_options.timeout_s",
    "memory_options.write_timeout_s",
    "memory_options.refresh_s",
    "breaker_failures",
    "breaker_retry_s",
    "triton_timeout_s",
)
"""Settings for parts that are down or late."""


def flat(settings: Settings) -> dict[str, Any]:
    """Name -> value, JSON-like, options of the memory as ``memory_options.NAME``; keys are masked."""
    values = settings.model_dump(mode="json")
    options = values.pop("memory_options")
    return values | {f"memory_options.{name}": value for name, value in options.items()}


def find_changed(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults."""
    from ..config import Settings as Kind

    defaults = flat(Kind.model_construct())
    return {name: value for name, value in flat(settings).items() if value != defaults[name]}


def limits(settings: Settings, serving: ServeSettings) -> dict[str, dict[str, float]]:
    """The limits in force: those of the service, which are settings, and those of single input values."""
    from .. import values

    def numbers(named: Mapping[str, Any]) -> dict[str, float]:
        return {name.lower(): value for name, value in named.items() if type(value) in (int, float)}

    service = {name: value for name, value in serving.model_dump().items() if name != "port"}
    return {
        "service": numbers(service),
        "values": numbers({name: value for name, value in vars(values).items() if name.isupper()})
        | {"max_pixels": settings.max_pixels},
    }


def advice(settings: Settings, packages: Collection[str]) -> list[str]:
    """Warnings about settings that are valid but probably a mistake."""
    found = []
    if settings.memory_timeout_s > settings.memory_options.timeout_s:
        found.append(
            f"memory_timeout_s ({settings.memory_timeout_s:g}) is longer than memory_options.timeout_s "
            f"({settings.memory_options.timeout_s}): a search ends with the latter"
        )
    if {"onnxruntime", "onnxruntime-gpu"} <= set(packages):
        found.append("onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, install one")
    if settings.triton_url and settings.provider != "cpu":
        found.append(f"provider={settings.provider} has no effect: the graphs run on the server of triton_url")
    if "://" in settings.memory and settings.memory.startswith(("http:", "grpc:")) and settings.memory_api_key:
        found.append("memory_api_key is sent without encryption: write https:// or grpcs:// where the server has TLS")
    return found
