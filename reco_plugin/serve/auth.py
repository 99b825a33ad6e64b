"""Who may call what: bearer keys for callers, another one for the memory. Keys are compared by their hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from .failures import Failure, Refused
from .settings import ServeSettings

ADMIN_PATH = "/v1/memory"
_OPEN = ("/livez", "/readyz", "/meta", "/.well-known/", "/openapi.json")
_SCHEME = "bearer "


class Guard:
    """Looks at the path and the ``authorization`` header of a request, before its body is read."""

    def __init__(self, settings: ServeSettings) -> None:
        self._callers = [_hashed(key.get_secret_value()) for key in settings.api_keys]
        admin = settings.admin_key
        self._admin = [_hashed(admin.get_secret_value())] if admin else []
        self._metrics = settings.metrics_key

    def check(self, path: str, authorization: str | None) -> None:
        """Let a request pass or not.

        Raises:
            Refused: 401, no key or a wrong one; 403, the memory is not to be reached over HTTP.
        """
        if path == ADMIN_PATH or path.startswith(f"{ADMIN_PATH}/"):
            if not self._admin:
                message = "the memory is not open over HTTP: set admin_key (RECO_SERVE_ADMIN_KEY) and start again"
                raise Refused(Failure(403, "admin_disabled", message))
            self._require(self._admin, authorization, "the admin key")
        elif self._callers and self._needs_key(path):
            self._require(self._callers, authorization, "an API key")

    def _needs_key(self, path: str) -> bool:
        return self._metrics if path == "/metrics" else not (path == "/" or path.startswith(_OPEN))

    def _require(self, keys: Iterable[bytes], authorization: str | None, what: str) -> None:
        given = authorization or ""
        if given[: len(_SCHEME)].lower() != _SCHEME:
            message = f"this needs {what}: send the header `authorization: Bearer KEY`"
            raise Refused(Failure(401, "key_missing", message))
        hashed = _hashed(given[len(_SCHEME) :].strip())
        fits = [hmac.compare_digest(hashed, key) for key in keys]  # all are compared, whichever fits
        if not any(fits):
            raise Refused(Failure(401, "key_wrong", f"the key is not known here: this needs {what}"))


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
