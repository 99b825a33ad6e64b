"""Shared by both clients: the service's URL and keys, retries, and errors."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConfigError,
    ImageError,
    InputError,
    MemoryOverloaded,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    importing,
)
from .calls import Call, T

if TYPE_CHECKING:
    import httpx

_AGAIN = frozenset({429, 503})
_LONGEST_S = 30.0
_MEANS: dict[int, type[RecoError]] = {
    400: InputError,
    401: ConfigError,
    403: ConfigError,
    404: ConfigError,
    413: InputError,
    415: ImageError,
    429: SessionOverloaded,
    503: SessionUnavailable,
    504: SessionTimeout,
}
_MEANS_OF_MEMORY: dict[str, type[RecoError]] = {
    "memory_unavailable": MemoryUnavailable,
    "memory_overloaded": MemoryOverloaded,
    "memory_timeout": MemoryTimeout,
}


class Service(ABC):
    """Base of the clients of a `reco serve`."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        batch_size: int = 64,
        transport: Any = None,
    ) -> None:
        """Keep the options; does not connect yet.

        Args:
            url: as in ``http://localhost:8080``.
            api_key: bearer key, if the service has any.
            admin_key: bearer key of the memory.
            timeout_s: seconds per request.
            retries: how often a request is repeated if the queue is full or the service not ready.
            batch_size: items per request.
            transport: of httpx, instead of the network.

        Raises:
            MissingExtra: httpx is not installed.
        """
        with importing("httpx", "client", "the client"):
            import httpx
        self.url, self.batch_size = url.rstrip("/"), batch_size
        self._httpx, self._retries = httpx, retries
        self._keys = {False: api_key, True: admin_key}
        self._options: dict[str, Any] = {"base_url": self.url, "timeout": timeout_s, "transport": transport}
        self._connect()

    @abstractmethod
    def _connect(self) -> None:
        """Make httpx's client from ``_options``."""

    def _arguments(self, call: Call[T]) -> dict[str, Any]:
        """Arguments of httpx's ``request``."""
        key = self._keys[call.admin]
        return {
            "method": call.method,
            "url": call.path,
            "json": call.body,
            "params": list(call.params) or None,
            "headers": dict(call.headers) | ({"authorization": f"Bearer {key}"} if key else {}),
        }

    def _pause_s(self, response: httpx.Response, tried: int) -> float | None:
        """Seconds before a retry; None if the answer counts."""
        if response.status_code not in _AGAIN or tried >= self._retries:
            return None
        after = response.headers.get("retry-after", "")
        return min(float(after) if after.isdigit() else 0.5 * 2**tried, _LONGEST_S)

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        """Read the answer.

        Raises:
            RecoError: of an error's status and code.
        """
        try:
            answer = response.json()
            if response.is_success:
                if reason := response.headers.get("x-reco-degraded"):
                    self._warn(reason)
                return call.read(answer)
            code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, RecoError):
                raise
            code, message = "unreadable", f"this is no answer of a reco serve: {response.text[:200]!r}"
        kind = _MEANS_OF_MEMORY.get(code) or _MEANS.get(response.status_code, SessionError)
        raise kind(f"{self.url}{call.path} answered {response.status_code} ({code}): {message}")

    def _make_error(self, call: Call[T], error: httpx.TransportError) -> RecoError:
        """The error of a request without an answer."""
        kind = SessionTimeout if isinstance(error, self._httpx.TimeoutException) else SessionUnavailable
        return kind(
            f"{self.url}{call.path}: {type(error).__name__}: {error or 'no answer'}. Is `reco serve` running there?"
        )

    def _warn(self, reason: str) -> None:
        from ..guard import DegradedWarning

        warnings.warn(f"{self.url} answers with frozen CLIP vectors ({reason})", DegradedWarning, stacklevel=4)
