"""API keys for callers, an admin key for the memory. Keys are compared by their hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from .failures import Failure, Refused
from .settings import ServeSettings

ADMIN_PATH = "/v1/memory"
_OPEN = ("/livez", "/readyz", "/health", "/ping", "/v1/health/", "/meta", "/.well-known/", "/openapi.json")
_SCHEME = "bearer "
_KEY_HEADERS = ("api-key", "x-api-key")


def credential(headers: Mapping[str, str]) -> str | None:
    """The key of a request: a bearer key, or one of the headers that Azure's clients and other gateways send.

    >>> credential({"authorization": "AWS4-HMAC-SHA256 …", "x-api-key": "k"})
    'Bearer k'
    """
    shown = headers.get("authorization")
    if shown is None or shown[: len(_SCHEME)].lower() != _SCHEME:
        for name in _KEY_HEADERS:
            if name in headers:
                return f"Bearer {headers[name]}"
    return shown


class KeyCheck:
    """Checks the path and the ``authorization`` header of a request, before its body is read."""

    def __init__(self, settings: ServeSettings) -> None:
        self._callers = [_hash(key.get_secret_value().encode()) for key in settings.api_keys]
        admin = settings.admin_key
        self._admin = [_hash(admin.get_secret_value().encode())] if admin else []
        self._metrics, shown = settings.metrics_key, settings.show_pairs
        self._show_pairs = (bool(self._callers) or not self._admin) if shown is None else shown

    def check(self, path: str, authorization: str | None, *, local: bool = False) -> None:
        """Check a request's key; the admin key opens everything.

        A ``local`` request came over the socket that only the user who serves can reach, and needs none.

        Raises:
            Refused: 401, no key or a wrong one; 403, there is no admin key, so the memory is closed over HTTP.
        """
        if local:
            return
        if path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/"):
            if not self._admin:
                message = "the memory is not open over HTTP: set admin_key (RECO_SERVE_ADMIN_KEY) and start again"
                raise Refused(Failure(403, "admin_disabled", message))
            _require(self._admin, authorization, "the admin key")
        elif self._callers and self._needs_key(path):
            _require(self._callers + self._admin, authorization, "an API key")

    def check_pairs(self, authorization: str | None) -> None:
        """Check whether an accepted request may see pairs of the memory.

        Raises:
            Refused: 401, only the admin key may; 403, no key may.
        """
        if self._show_pairs:
            return
        if not self._admin:
            message = "pairs of the memory are not shown: show_pairs is off, and there is no admin key"
            raise Refused(Failure(403, "pairs_hidden", message))
        if not _fits(self._admin, _bearer(authorization)):
            message = "pairs of the memory are shown to the admin key only (show_pairs): send it as the bearer key"
            raise Refused(Failure(401, "admin_key_needed", message))

    def _needs_key(self, path: str) -> bool:
        return self._metrics if path == "/metrics" else not path.startswith(_OPEN)


def _require(keys: Iterable[bytes], authorization: str | None, what: str) -> None:
    if (key := _bearer(authorization)) is None:
        message = f"this needs {what}: send the header `authorization: Bearer KEY` (or `api-key: KEY`)"
        raise Refused(Failure(401, "key_missing", message))
    if not _fits(keys, key):
        raise Refused(Failure(401, "key_wrong", f"the key is not known here: this needs {what}"))


def _bearer(authorization: str | None) -> str | None:
    """The key of a header; each character is a byte that was sent."""
    given = authorization or ""
    return given[len(_SCHEME) :].strip(" \t") if given[: len(_SCHEME)].lower() == _SCHEME else None


def _fits(keys: Iterable[bytes], key: str | None) -> bool:
    if key is None:
        return False
    sent = [_hash(key.encode("latin-1")), _hash(key.encode())]  # sent as UTF-8, or as Latin-1
    fits = [hmac.compare_digest(one, known) for one in sent for known in keys]  # all are compared: constant time
    return any(fits)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
