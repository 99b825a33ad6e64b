"""Who may call what: keys with rights, and the host names that clients may use.

Keys come from the settings, and from a file that is read again when it changes::

    [shop]                    # the name, which the access log shows
    key = "…"
    rights = ["embed", "read"]
    where = {shop = "de"}     # optional: the key sees and writes only pairs with these fields

*embed* embeds and refines; *read* shows pairs of the memory, in explanations and at ``/v1/memory``; *write* changes
the memory; *metrics* reads ``/metrics``, which is open while only the admin's key has this right and no key has
``where``. Keys are compared by their hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from ..errors import ConfigError
from ..memory.scope import Scope, scope_of
from ..values import in_words
from .failures import Failure, Refused
from .logs import LOGGER
from .service_settings import ServeSettings, ServiceKey

Right: TypeAlias = Literal["embed", "read", "write", "metrics"]
RIGHTS: frozenset[Right] = frozenset(get_args(Right))
MEMORY_PATH = "/v1/memory"
WHOLE_MEMORY = (f"{MEMORY_PATH}/versions", "/metrics")
"""Paths of what is not of single pairs: no key with ``where`` may call them."""
_OPEN = ("/livez", "/readyz", "/health", "/ping", "/v1/health/", "/meta", "/.well-known/", "/openapi.json")
_SCHEME = "bearer "
_KEY_HEADERS = (b"api-key", b"x-api-key")
log = logging.getLogger(LOGGER)


class _Entry(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid")

    key: ServiceKey = Field(min_length=8)
    rights: frozenset[Right] = Field(min_length=1)
    where: Annotated[dict[str, str], Field(min_length=1), AfterValidator(lambda one: dict(scope_of(one)))] | None = None


_FILE = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class CallerKey:
    """A key of the service."""

    name: str = ""
    digest: bytes = b""
    rights: frozenset[Right] = frozenset()
    scope: Scope = ()
    """The pairs that it sees and writes; empty: all."""


NO_KEY = CallerKey()
"""Of a caller who has sent no known key and needs none."""


class Keys:
    """The keys of a service."""

    def __init__(self, settings: ServeSettings, token: str | None = None) -> None:
        """Read the file.

        Args:
            settings: of the service.
            token: a key with all rights, for commands on this machine.
        """
        embed_and_read: frozenset[Right] = frozenset({"embed", "read"})
        self._configured = [_key(f"api_keys[{i}]", one, embed_and_read) for i, one in enumerate(settings.api_keys)]
        admin, self._path = settings.admin_key, settings.keys_file
        self._has_api_keys = bool(self._configured)
        self._configured += [] if admin is None else [_key("admin_key", admin, RIGHTS)]
        self._token = [] if token is None else [_key("this machine", SecretStr(token), RIGHTS)]
        self._from_file, self._file_state = list[CallerKey](), self._stat()
        if self._path is not None:
            self._from_file = _read(self._path)

    def check(self, right: Right, headers: Mapping[bytes, bytes]) -> CallerKey:
        """Check that a request has a right, and return its key."""
        self._refresh()
        given, is_open = credential(headers), right in self._open_rights()
        key = None if given is None else self._find(given)
        if key is None:
            if is_open:
                return NO_KEY  # any key is ignored: SDKs always send one
            if given is None:
                raise Refused(self._missing(right))
            raise Refused(Failure(401, "key_wrong", f"the key is not known here: this needs the right {right}"))
        if not is_open and right not in key.rights:
            has = ", ".join(sorted(key.rights))
            message = f"the key {key.name!r} lacks the right {right}: it has {has}"
            raise Refused(Failure(403, "right_missing", message))
        return key

    def _open_rights(self) -> frozenset[Right]:
        """Return the rights that need no key."""
        rights = set[Right]()
        if not (self._has_api_keys or self._from_file):
            rights |= {"embed"} if self._configured else {"embed", "read"}
        if not any("metrics" in key.rights or key.scope for key in self._from_file):
            rights.add("metrics")
        return frozenset(rights)

    def _missing(self, right: Right) -> Failure:
        if not any(right in key.rights for key in (*self._configured, *self._from_file)):
            way = "give one in keys_file, or set admin_key (RECO_SERVE_ADMIN_KEY), and start again"
            return Failure(403, "right_missing", f"no key of this service has the right {right}: {way}")
        how = "send the header `authorization: Bearer KEY` (or `api-key: KEY`)"
        return Failure(401, "key_missing", f"this needs a key with the right {right}: {how}")

    def _find(self, given: str) -> CallerKey | None:
        digest = _hash(given.encode("latin-1"))  # as headers are decoded
        keys = [*self._configured, *self._from_file, *self._token]  # all are compared: constant time
        matches = [key for key in keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches else None

    def _stat(self) -> tuple[int, int, int] | None:
        """Return values that change with the file."""
        with suppress(OSError):
            if self._path is not None:
                return (stat := self._path.stat()).st_mtime_ns, stat.st_ino, stat.st_size
        return None

    def _refresh(self) -> None:
        """Read the file again if it changed. If it cannot be read, the keys stay as they are."""
        if self._path is None or (file_state := self._stat()) == self._file_state:
            return
        self._file_state = file_state
        try:
            self._from_file = _read(self._path)
        except ConfigError as error:
            log.warning("the keys stay as they were: %s", error)
        else:
            log.info("the keys were read again", extra={"keys": len(self._from_file)})


def right_of(method: str, path: str) -> Right | None:
    """Return the right that a request needs, by the template of its path; None if it is open.

    >>> right_of("POST", "/v1/memory/search"), right_of("DELETE", "/v1/memory/pairs"), right_of("GET", "/livez")
    ('read', 'write', None)
    """
    if path == MEMORY_PATH or path.startswith(f"{MEMORY_PATH}/"):
        return "read" if method == "GET" or path.endswith("/search") else "write"
    if path == "/metrics":
        return "metrics"
    return None if path.startswith(_OPEN) else "embed"


def credential(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the key in the headers: a bearer key, or that of Azure's clients and other gateways; None without one.

    >>> credential({b"authorization": b"AWS4-HMAC-SHA256 ...", b"x-api-key": b"k"})
    'k'
    """
    value = headers.get(b"authorization", b"").decode("latin-1")
    if value[: len(_SCHEME)].lower() == _SCHEME:
        return value[len(_SCHEME) :].strip(" \t") or None
    return next((key for name in _KEY_HEADERS if (key := headers.get(name, b"").decode("latin-1").strip(" \t"))), None)


def _read(path: Path) -> list[CallerKey]:
    """Read the keys of a file."""
    try:
        entries = _FILE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"keys_file {path} cannot be read: {type(error).__name__}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"keys_file {path}: {place} {in_words(first['msg'])}. Write [NAME], key = at least 8 characters, "
            f'rights = a list of {", ".join(get_args(Right))}, and perhaps where = {{FIELD = "TEXT"}}'
        ) from None
    keys = [_key(name, one.key, one.rights, scope_of(one.where or {})) for name, one in entries.items()]
    if not keys:
        raise ConfigError(f"keys_file {path} holds no key: without one, everybody could call")
    if len({key.digest for key in keys}) < len(keys):
        raise ConfigError(f"keys_file {path} holds a key twice: give each name its own")
    return keys


def _key(name: str, key: SecretStr, rights: frozenset[Right], scope: Scope = ()) -> CallerKey:
    return CallerKey(name, _hash(key.get_secret_value().encode()), rights, scope)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def host_filter(hosts: Sequence[str] | None) -> Callable[[bytes], bool]:
    """Make a check of ``host`` headers, against web pages whose name resolves to this machine (DNS rebinding).

    Localhost and the given names pass; with ``*`` or None, every name does.

    >>> is_known = host_filter(["shop.example"])
    >>> is_known(b"shop.example:8080"), is_known(b"LOCALHOST.:80"), is_known(b"[::1]:80"), is_known(b"evil.example")
    (True, True, True, False)
    """
    if hosts is None or "*" in hosts:
        return lambda _: True
    names = {"", *map(str.lower, hosts)}

    def is_known(header: bytes) -> bool:
        try:
            name = (urlsplit(f"//{header.decode('latin-1')}").hostname or "").rstrip(".")
        except ValueError:  # a bracket that is not closed
            return False
        return name in names or is_loopback(name)

    return is_known


def unknown_host(header: bytes) -> Failure:
    """Return the failure of a request for another host."""
    name = header.decode("latin-1")
    return Failure(403, "host_unknown", f"this service does not know the host {name!r:.80}: name it in allowed_hosts")


def is_loopback(name: str) -> bool:
    """Return whether a name or an address means this machine, without resolving it."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
