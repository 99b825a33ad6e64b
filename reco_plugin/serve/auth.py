"""Who may call what: keys with names and rights, of a file that is read again when it changes, or of the settings.

::

    [shop]                    # the name, which the access log shows
    key = "…"
    rights = ["embed", "read"]

*embed* embeds and refines; *read* shows pairs of the memory, in explanations and at ``/v1/memory``; *write* changes
the memory; *metrics* reads ``/metrics``, which is open while no key but the admin's has this right. Keys are compared
by their hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from ..errors import ConfigError
from ..values import in_words
from .failures import Failure, Refused
from .logs import LOGGER
from .service_settings import ServeSettings, ServiceKey

Right: TypeAlias = Literal["embed", "read", "write", "metrics"]
RIGHTS: frozenset[Right] = frozenset(get_args(Right))
MEMORY_PATH = "/v1/memory"
_OPEN = ("/livez", "/readyz", "/health", "/ping", "/v1/health/", "/meta", "/.well-known/", "/openapi.json")
_SCHEME = "bearer "
_KEY_HEADERS = (b"api-key", b"x-api-key")
log = logging.getLogger(LOGGER)


class _Entry(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid")

    key: ServiceKey = Field(min_length=8)
    rights: frozenset[Right] = Field(min_length=1)


_FILE = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class CallerKey:
    """A key that is known."""

    name: str
    digest: bytes
    rights: frozenset[Right]


class Keys:
    """The keys of a service."""

    def __init__(self, settings: ServeSettings, token: str | None = None) -> None:
        """Read the file.

        Args:
            settings: of the service.
            token: of the user who serves, for commands on this machine: it has all rights.

        Raises:
            ConfigError: the file cannot be read.
        """
        self._set = [_key(f"api_keys[{i}]", one, {"embed", "read"}) for i, one in enumerate(settings.api_keys)]
        admin, self._path = settings.admin_key, settings.keys_file
        self._callers = bool(self._set)
        self._set += [] if admin is None else [_key("admin_key", admin, RIGHTS)]
        self._token = [] if token is None else [_key("this machine", SecretStr(token), RIGHTS)]
        self._read, self._seen = list[CallerKey](), self._look()
        if self._path is not None:
            self._read = _read(self._path)

    def check(self, right: Right, sent: Mapping[bytes, bytes]) -> str | None:
        """Check that a request has a right; returns the name of its key, None without one.

        Raises:
            Refused: 401, no key or a wrong one; 403, the key lacks the right, or no key has it.
        """
        self._refresh()
        given, free = credential(sent), right in self._of_everybody()
        known = None if given is None else self._find(given)
        if known is None:
            if free:
                return None  # whatever is sent: SDKs always send a key
            if given is None:
                raise Refused(self._missing(right))
            raise Refused(Failure(401, "key_wrong", f"the key is not known here: this needs the right {right}"))
        if not free and right not in known.rights:
            has = ", ".join(sorted(known.rights))
            message = f"the key {known.name!r} lacks the right {right}: it has {has}"
            raise Refused(Failure(403, "right_missing", message))
        return known.name

    def _of_everybody(self) -> frozenset[Right]:
        """What needs no key."""
        free = set[Right]()
        if not (self._callers or self._read):
            free |= {"embed"} if any("read" in key.rights for key in self._set) else {"embed", "read"}
        if not any("metrics" in key.rights for key in self._read):
            free.add("metrics")
        return frozenset(free)

    def _missing(self, right: Right) -> Failure:
        if not any(right in key.rights for key in (*self._set, *self._read)):
            way = "give one in keys_file, or set admin_key (RECO_SERVE_ADMIN_KEY), and start again"
            return Failure(403, "right_missing", f"no key of this service has the right {right}: {way}")
        how = "send the header `authorization: Bearer KEY` (or `api-key: KEY`)"
        return Failure(401, "key_missing", f"this needs a key with the right {right}: {how}")

    def _find(self, given: str) -> CallerKey | None:
        sent = _hash(given.encode("latin-1"))  # as headers are decoded
        known = [*self._set, *self._read, *self._token]  # all are compared: constant time
        fits = [key for key in known if hmac.compare_digest(sent, key.digest)]
        return fits[0] if fits else None

    def _look(self) -> tuple[int, int, int] | None:
        """Changes with the file."""
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _refresh(self) -> None:
        """Read the file again where it changed; one that cannot be read leaves the keys as they are."""
        if self._path is None or (seen := self._look()) == self._seen:
            return
        self._seen = seen
        try:
            self._read = _read(self._path)
        except ConfigError as error:
            log.warning("the keys stay as they were: %s", error)
        else:
            log.info("the keys were read again", extra={"keys": len(self._read)})


def right_of(method: str, path: str) -> Right | None:
    """The right that a request needs, by the template of its path; None: it is open.

    >>> right_of("POST", "/v1/memory/search"), right_of("DELETE", "/v1/memory/pairs"), right_of("GET", "/livez")
    ('read', 'write', None)
    """
    if path == MEMORY_PATH or path.startswith(f"{MEMORY_PATH}/"):
        return "read" if method == "GET" or path.endswith("/search") else "write"
    if path == "/metrics":
        return "metrics"
    return None if path.startswith(_OPEN) else "embed"


def credential(sent: Mapping[bytes, bytes]) -> str | None:
    """The key in the headers of a request: a bearer key, or one that Azure's clients and other gateways send.

    None where there is none, or a blank one.

    >>> credential({b"authorization": b"AWS4-HMAC-SHA256 ...", b"x-api-key": b"k"})
    'k'
    """
    shown = sent.get(b"authorization", b"").decode("latin-1")
    if shown[: len(_SCHEME)].lower() == _SCHEME:
        return shown[len(_SCHEME) :].strip(" \t") or None
    return next((key for name in _KEY_HEADERS if (key := sent.get(name, b"").decode("latin-1").strip(" \t"))), None)


def _read(path: Path) -> list[CallerKey]:
    """The keys of a file.

    Raises:
        ConfigError: it cannot be read, names no key, or holds one twice; no key is repeated.
    """
    try:
        entries = _FILE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"keys_file {path} cannot be read: {type(error).__name__}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"keys_file {path}: {place} {in_words(first['msg'])}. Write [NAME], key = at least 8 characters, and "
            f"rights = a list of {', '.join(get_args(Right))}"
        ) from None
    keys = [_key(name, one.key, one.rights) for name, one in entries.items()]
    if not keys:
        raise ConfigError(f"keys_file {path} holds no key: without one, everybody could call")
    if len({key.digest for key in keys}) < len(keys):
        raise ConfigError(f"keys_file {path} holds a key twice: give each name its own")
    return keys


def _key(name: str, key: SecretStr, rights: frozenset[Right] | set[Right]) -> CallerKey:
    return CallerKey(name, _hash(key.get_secret_value().encode()), frozenset(rights))


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
