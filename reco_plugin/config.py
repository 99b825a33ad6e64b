"""The one settings tree, and the only reader of the environment.

The same words everywhere: ``Reco.open(k=5)``, ``RECO_K=5`` and ``k = 5`` in ``./reco.toml`` say the same;
an argument wins over the environment, the environment over the file. An unknown word is an error in all three.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from .errors import ConfigError
from .types import Mode

PREFIX = "RECO_"
FILE = "reco.toml"

FuserName = Literal["model", "training-free"]
"""model: the fusion graphs of the model folder. training-free: no learned weights at all."""


class Settings(BaseSettings):
    """Everything that can be set; each field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file=FILE, extra="forbid", protected_namespaces=())

    model: Path = Field(Path("triton_models"), description="model folder made by `reco export`")
    memory: str = Field(":memory:", description="folder, ':memory:', or the URL of a Qdrant server")
    memory_kind: Literal["auto", "exact", "edge", "qdrant"] = Field("auto", description="engine of the memory")
    memory_api_key: SecretStr | None = Field(None, description="key of the Qdrant server; never logged")
    memory_collection: str = Field("reco", description="collection of a Qdrant server")

    provider: Literal["cpu", "cuda"] = Field("cpu", description="execution provider; another one is never used instead")
    threads: int = Field(0, ge=0, description="threads per graph, 0: as many as there are cores")
    arena: bool = Field(True, description="let ONNX Runtime keep freed memory for the next call")
    provider_options: dict[str, str] = Field({}, description="options handed to the execution provider as they are")

    fuser: FuserName = Field("model", description="which fusion refines")
    k: int | None = Field(None, ge=1, le=1000, description="neighbours per query; the model's own default when unset")
    search: Mode = Field("uni", description="uni: search the query's own modality (the paper); cross: the other")
    fusion: Mode = Field("cross", description="cross: fuse the other modality's vectors (the paper); uni: the own")
    gate: bool | None = Field(None, description="weigh neighbours by calibrated trust; the model's default when unset")

    batch_size: int = Field(64, ge=1, description="images or texts per encoder call")
    max_pixels: int = Field(64_000_000, ge=1, description="images with more pixels are refused before decoding")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then ``reco.toml``."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**arguments: Any) -> Settings:
    """Read the settings; arguments that are None count as not given.

    Raises:
        ConfigError: an unknown word or an unusable value, by name; or a file or variable that cannot be parsed.
    """
    known = set(Settings.model_fields)
    environment = {name[len(PREFIX) :].lower() for name in os.environ if name.startswith(PREFIX)}
    if unknown := sorted(environment - known):
        names = ", ".join(PREFIX + name.upper() for name in unknown)
        raise ConfigError(f"unknown setting in the environment: {names}. Known: {', '.join(sorted(known))}")
    if unknown := sorted(set(arguments) - known):
        raise ConfigError(f"unknown setting: {', '.join(unknown)}. Known: {', '.join(sorted(known))}")
    try:
        return Settings(**{name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(map(_describe, error.errors()))
        raise ConfigError(f"{wrong}. Known settings: {', '.join(sorted(known))}") from None
    except ValueError as error:  # not TOML, or a variable that holds no JSON where it must
        raise ConfigError(f"the settings in {FILE} or in {PREFIX}* variables cannot be read: {error}") from None


def _describe(error: ErrorDetails) -> str:
    """One wrong setting: its name and value, but never the value of a key."""
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":  # arguments and environment were looked at before; it may be a misspelt key
        return f"unknown setting in {FILE}: {name}"
    shown = "" if "memory_api_key" in error["loc"] else f" (got {error['input']!r})"
    return f"{name}: {error['msg']}{shown}"
