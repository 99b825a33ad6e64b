"""All settings, and the only reader of the environment.

``Reco.open(k=5)``, ``RECO_K=5`` and ``k = 5`` in ``./reco.toml`` are the same setting; an argument wins over the
environment, the environment over the file. An empty variable counts as not set: compose files and charts leave it so.
An unknown name is an error, but in the environment a warning: others set variables of their own there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from .defaults import COLLECTION, MAX_PIXELS
from .errors import ConfigError
from .options import RefineDefaults, check_options, option_fields, options_of
from .values import KEY_LIKE, did_you_mean, in_words, split_options

for _name, _value in {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
    # ONNX Runtime would tell its maker what it runs, and Ray, too, unless told otherwise before they are imported or
    # started. Everything that imports them imports this first. Who wants it sets the variable.
    os.environ.setdefault(_name, _value)

PREFIX = "RECO_"
FILE = "reco.toml"
MODEL = "triton_models"
"""Name of the usual model folder, and of the quickstart model's."""
QUICKSTART = "quickstart"
"""The setting ``model`` that means the model which comes with this package."""
SECTIONS = ("serve",)
"""Tables of ``reco.toml``, and prefixes after ``RECO_``, with their own settings."""
NESTED = "__"
"""Separates a nested setting's name from its part: ``RECO_MEMORY_OPTIONS__SEARCH_EF``."""

Provider = Literal["cpu", "cuda"]
"""cpu and cuda: ONNX Runtime."""


class MemoryOptions(BaseModel):
    """Options of a memory, as ``[memory_options]`` in ``reco.toml`` or ``RECO_MEMORY_OPTIONS__SEARCH_EF=128``.

    ``create_collection`` applies when a collection is created; an existing one keeps its own. A folder takes ``exact``
    and ``tenant_field`` and ignores the others, which are a server's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    timeout_s: int = Field(10, ge=1, description="seconds that a call may take, waiting for a busy server included")
    write_timeout_s: int = Field(
        60, ge=1, description="the same for a write, which also waits for a server that is down"
    )

    refresh_s: float = Field(1, gt=0, description="seconds after which a search first reads the memory's header again")

    search_ef: int = Field(256, ge=1, description="candidates that the HNSW index looks at; more finds more, slower")
    exact: bool = Field(False, description="compare with every pair instead of using the index")
    tenant_field: str | None = Field(
        None,
        min_length=1,
        description="payload field that tells tenants apart, as `where` of a key does: it is indexed",
    )

    create_collection: dict[str, Any] = Field(
        {},
        description="body of Qdrant's request that creates the collection, its `vectors` without a size, as in "
        '{"shard_number": 6, "vectors": {"on_disk": true}}',
    )


class CommandOptions(BaseModel):
    """Options of a command; each field with a description is a flag, and the description is its help.

    More about a flag: ``flag``, its name if not the field's; ``unset``, the meaning of leaving it out.

    Raises:
        ConfigError: a value that cannot be; it names the flag and the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            flag = flag_options(type(self).model_fields.get(name)).get("flag", "--" + name.replace("_", "-"))
            own = first["type"] == "value_error"  # of a validator here, whose message has the value
            raise ConfigError(
                f"{flag} {in_words(first['msg'])}" + ("" if own else f" (got {first['input']!r:.60})")
            ) from None


def option(default: Any, description: str, *, ge: float | None = None, le: float | None = None, **said: Any) -> Any:
    """A field that is a flag; for ``said`` see :class:`CommandOptions`."""
    return Field(default, description=description, ge=ge, le=le, json_schema_extra=said)


def flag_options(field: FieldInfo | None) -> dict[str, Any]:
    """The extras of a field's flag, see :class:`CommandOptions`."""
    extra = field.json_schema_extra if field else None
    return dict(extra) if isinstance(extra, dict) else {}


class _File(TomlConfigSettingsSource):
    """``reco.toml``: one of its sections, or all outside of sections."""

    def __init__(self, settings_cls: type[BaseSettings], section: str | None) -> None:
        self._section = section  # before the file is read, which the base class does at once
        super().__init__(settings_cls)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        content = super()._read_file(file_path)
        if self._section is None:
            return {name: value for name, value in content.items() if name not in SECTIONS}
        table = content.get(self._section, {})
        if not isinstance(table, dict):
            raise ValueError(f"{self._section} must be a table, [{self._section}]")
        return table


def _spread(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, with the folder of the quickstart model, and the collection and options in the memory's address.

    Raises:
        ConfigError: an unknown name in the memory's address.
    """
    found = dict(values)
    if "model" in found:
        found["model"] = named_model(os.fspath(found["model"]))
    if isinstance(memory := found.get("memory"), str):
        found["memory"], given = split_address(memory)
        beside = found.get("memory_options") or {}
        beside = beside.model_dump(exclude_unset=True) if isinstance(beside, MemoryOptions) else dict(beside)
        if (collection := given.pop("collection", None)) is not None:
            found["memory_collection"] = collection
        if given:
            found["memory_options"] = beside | given
    return found


def split_address(address: str) -> tuple[str, dict[str, str]]:
    """A memory's place, and the collection and options in its address; a URL with a user or key is left to be refused.

    Raises:
        ConfigError: another name, a key, or one that is given twice.

    >>> split_address("grpc://host:6334?collection=shop&search_ef=64")
    ('grpc://host:6334', {'collection': 'shop', 'search_ef': '64'})
    """
    if "@" in address.partition("?")[0]:
        return address, {}
    place, options = split_options(address)
    known = ["collection", *(name for name in MemoryOptions.model_fields if name != "create_collection")]
    for name in options:
        if KEY_LIKE.search(name):
            raise ConfigError(
                f"no key belongs into the address of a memory, where others can read it ({name!r}): set "
                "RECO_MEMORY_API_KEY"
            )
        if name not in known:
            raise ConfigError(
                f"the address of a memory has no {name!r}: {did_you_mean(name, known)} It takes collection and the "
                "options of docs/memory.md"
            )
    return place, options


class SettingsSection(BaseSettings):
    """Settings that are read from arguments, then the environment, then ``reco.toml``."""

    section: ClassVar[str | None] = None
    """Table of the file, one of :data:`SECTIONS`; None: outside of them."""

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
        return init_settings, env_settings, _File(settings_cls, cls.section)


S = TypeVar("S", bound=SettingsSection)


def quickstart_model() -> Path | None:
    """Folder of the model that comes with this package; None if it was built without.

    A wheel has it inside the package, a clone beside the package.
    """
    package = Path(__file__).parent
    places = (root / MODEL for root in (package, package.parent))
    return next((place for place in places if place.is_dir()), None)


def named_model(model: str) -> str:
    """The folder of the quickstart model for its name; any other model as it is."""
    return str(quickstart_model() or model) if model == QUICKSTART else model


def _usual_model() -> str:
    """``./triton_models`` if it exists, complete or not; else the quickstart model."""
    return MODEL if Path(MODEL).exists() else str(quickstart_model() or MODEL)


if TYPE_CHECKING:

    class _Refining(SettingsSection):
        """The options of a refinement, as settings."""

else:  # a field for each option that is a setting, too
    _Refining = create_model("_Refining", __base__=SettingsSection, **option_fields(RefineDefaults))


class Settings(_Refining):
    """All settings; each field's description is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        toml_file=FILE,
        extra="forbid",
        protected_namespaces=(),
    )

    model: str = Field(
        default_factory=_usual_model,
        description="model folder made by `reco model export`, or the address of an API that encodes, as in "
        "'https://api.jina.ai/v1?model=jina-clip-v2'; ./triton_models, else the quickstart model when unset",
    )
    encoder_key: SecretStr | None = Field(None, description="key of that API; never logged")
    encoder_timeout_s: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="seconds until a request to that API is given up"
    )
    encoder_patience_s: float = Field(
        45.0, ge=0, allow_inf_nan=False, description="how long requests are repeated while it is busy or down"
    )
    memory: str = Field(
        ":memory:",
        description="folder, ':memory:', or the URL of a Qdrant server; with collection and options if you like, as in "
        "'grpc://host:6334?collection=shop&search_ef=128'",
    )
    memory_api_key: SecretStr | None = Field(None, description="key of the Qdrant server; never logged")
    memory_collection: str = Field(COLLECTION, description="collection of a Qdrant server, or an alias of one")
    memory_options: MemoryOptions = Field(MemoryOptions(), description="connection, search and creation of the memory")

    index_user: str | None = Field(None, description="user of the search engine whose index is read")
    index_password: SecretStr | None = Field(None, description="password of that user; never logged")
    index_api_key: SecretStr | None = Field(None, description="key or token of that engine; never logged")

    provider: Provider = Field("cpu", description="what runs the graphs in process; another one is never used instead")
    threads: int = Field(0, ge=0, description="threads per graph, 0: one per core that this process may use")
    provider_options: dict[str, str] = Field({}, description="options passed to the execution provider")

    triton_url: str | None = Field(None, description="grpc://host:port, or grpcs: a Triton server runs the graphs")
    triton_timeout_s: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="seconds until a request to Triton is given up"
    )
    triton_ca: Path | None = Field(None, description="PEM file of the authority that signed Triton's certificate")
    triton_headers: dict[str, SecretStr] = Field(
        {}, description="headers of each request to Triton, such as authorization; never logged"
    )

    on_memory_failure: Literal["degrade", "fail"] = Field(
        "degrade", description="memory or fusion down or late: answer with frozen vectors, or raise"
    )
    memory_timeout_s: float = Field(
        2.0,
        gt=0,
        allow_inf_nan=False,
        description="how long a server may take per search, of at most 128 queries; a query waits as long for its turn",
    )
    breaker_failures: int = Field(5, ge=1, description="failures in a row that open the memory's circuit")
    breaker_retry_s: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="how long the circuit stays open before one call probes"
    )

    batch_size: int = Field(64, ge=1, description="images or texts per encoder call")
    batch_callers: bool = Field(
        True, description="run together what several threads encode, search and fuse at the same time in this process"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="images with more pixels are refused before decoding; a service decodes as many at the same time",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_addresses(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _spread(values)

    @property
    def refining(self) -> RefineDefaults:
        """The options of a refinement that are set."""
        return check_options({name: getattr(self, name) for name in options_of(RefineDefaults)})

    @property
    def falls_back(self) -> bool:
        """Whether the model is the quickstart model because none was named and ./triton_models is missing."""
        return "model" not in self.model_fields_set and self.model == str(quickstart_model())


def secrets_of(kind: type[BaseSettings]) -> frozenset[str]:
    """Names of the settings that are never shown or stored."""
    return frozenset(name for name, field in kind.model_fields.items() if "SecretStr" in str(field.annotation))


SECRET = secrets_of(Settings)


def load_settings(**arguments: Any) -> Settings:
    """Read the settings; arguments that are None count as not given.

    Raises:
        ConfigError: an unknown name or an invalid value; or a file or variable that cannot be parsed.
    """
    return load_section(Settings, **_spread({name: value for name, value in arguments.items() if value is not None}))


def load_section(kind: type[S], **arguments: Any) -> S:
    """Read the settings of one class; errors as in :func:`load_settings`."""
    known, prefix = set(kind.model_fields), PREFIX + (f"{kind.section.upper()}_" if kind.section else "")
    for name in sorted(_environment(kind, prefix) - known):
        _note_unknown(f"{prefix}{name.upper()} is no setting: {did_you_mean(name, known)}", name)
    try:
        return kind(**{name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(each, kind) for each in error.errors())) from None
    except SettingsError as error:
        name = str(error).partition('"')[2].partition('"')[0].upper() or "*"  # pydantic names it in its message alone
        raise ConfigError(
            f'{prefix}{name} is no JSON: write a table as \'{{"name": "value"}}\', with the quotes'
        ) from None
    except ValueError as error:
        raise ConfigError(f"{FILE} cannot be read: {error}") from None


def sources() -> list[str]:
    """Where settings are read from besides arguments: the file, if it exists, and names of variables."""
    file = [str(Path(FILE).resolve())] if Path(FILE).is_file() else []
    return file + sorted(name for name, value in os.environ.items() if name.startswith(PREFIX) and value)


def _environment(kind: type[SettingsSection], prefix: str) -> set[str]:
    """Names of the settings of this class that the environment sets."""
    others = () if kind.section else tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)
    given = (name for name, value in os.environ.items() if value)
    names = (name for name in given if name.startswith(prefix) and not name.startswith(others))
    return {name[len(prefix) :].lower().split(NESTED)[0] for name in names}


@cache
def _note_unknown(message: str, name: str) -> None:
    """Warn of an unknown variable, once per process; one that looks like a key may be meant to protect something."""
    if KEY_LIKE.search(name):
        raise ConfigError(message)
    warnings.warn_explicit(message, UserWarning, __name__, 0)  # no line of the caller's is to blame


def _describe(error: ErrorDetails, kind: type[BaseSettings]) -> str:
    """One invalid setting: its name and value, but never the value of a key."""
    *above, last = map(str, error["loc"] or ("settings",))
    name = ".".join((*above, last))
    if error["type"] == "extra_forbidden":
        return f"{name} is no setting: {did_you_mean(last, (MemoryOptions if above else kind).model_fields)}"
    own = error["type"] == "value_error" and ", got " in error["msg"]  # by a check of ours
    shown = "" if own or secrets_of(kind) & set(error["loc"]) else f" (got {error['input']!r})"
    return f"{name}: {in_words(error['msg'])}{shown}"
