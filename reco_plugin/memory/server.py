"""A Qdrant server: its address, key and TLS, its gRPC or REST client, and retries within a time limit."""

from __future__ import annotations

import math
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qdrant_client import QdrantClient

from ..config import MemoryOptions
from ..errors import ConfigError, MemoryTimeout, RecoError
from ..proxies import usable_environment
from .checks import NO_SERVER
from .faults import read_fault, retry_after, translate
from .time_limit import is_writing, time_limit

SCHEMES = ("http", "https", "grpc", "grpcs")
REST_PORT, GRPC_PORT = 6333, 6334
_PROBE_S = 1
_LOOPBACKS = ("localhost", "127.0.0.1", "::1")
_CHANNEL = {
    "grpc.max_reconnect_backoff_ms": 2000,  # reconnect within seconds, not after two minutes
    "grpc.dns_min_time_between_resolutions_ms": 500,  # and at a new address, not after half a minute
    "grpc.keepalive_time_ms": 60_000,
    "grpc.use_local_subchannel_pool": 1,  # a new client has a new connection, at the address that the name has now
}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
_CLOSE_S = 0.02  # before a moment counts as at it: clocks differ
_BARE_KEY = (
    "RECO_MEMORY_API_KEY is sent to the Qdrant server without encryption, where others can read it. Write "
    "https:// or grpcs:// where the server has TLS"
)
T = TypeVar("T")


class InsecureKeyWarning(UserWarning):
    """The API key is sent to another machine without TLS."""


@dataclass(frozen=True)
class Server:
    """How to reach a Qdrant server; the key is never printed."""

    location: str  # the URL as the user wrote it
    host: str  # name or address
    port: int  # of REST, or of gRPC where the URL says so
    tls: bool  # encrypted
    path: str = ""  # prefix of Qdrant's paths behind a REST proxy
    api_key: str | None = field(default=None, repr=False)
    options: MemoryOptions = field(default_factory=MemoryOptions)

    @classmethod
    def parse(cls, location: str, api_key: str | None = None, options: MemoryOptions | None = None) -> Server:
        """Read a URL: http(s)://host[:6333][/path] or grpc(s)://host[:6334].

        Warns with an :class:`InsecureKeyWarning` if the key would go to another machine without TLS.

        Raises:
            ConfigError: another scheme, a user or key in the URL, an invalid port, a path behind gRPC, or a
                ``ca_file`` without TLS.
        """
        chosen = options or MemoryOptions()
        try:
            url = urlsplit(location)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme not in SCHEMES or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise ConfigError(NO_SERVER)
        by_grpc, tls = url.scheme.startswith("grpc"), url.scheme in ("https", "grpcs")
        if by_grpc and url.path.strip("/"):
            raise ConfigError(f"{location!r} is a gRPC address, which has no path: for REST write http:// and its port")
        if chosen.ca_file is not None and not tls:
            raise ConfigError(f"memory_options.ca_file needs TLS: write https:// or grpcs:// in place of {location!r}")
        if api_key is not None and not tls and url.hostname not in _LOOPBACKS:
            warnings.warn(_BARE_KEY, InsecureKeyWarning, stacklevel=2)
        port = port or (GRPC_PORT if by_grpc else REST_PORT)
        return cls(location, url.hostname, port, tls, url.path.rstrip("/"), api_key, chosen)

    @property
    def by_grpc(self) -> bool:
        """Whether the URL is that of gRPC; else REST is used."""
        return self.location.startswith("grpc")

    @property
    def address(self) -> tuple[str, int, str]:
        """Where it is; of one server, that of REST differs from that of gRPC."""
        return self.host, self.port, self.path

    def connect(self) -> QdrantClient:
        """A client, gRPC or REST, as the URL says; makes no request.

        Raises:
            ConfigError: a ``ca_file`` that cannot be read.
        """
        if self.api_key is not None and not self.tls:
            # qdrant-client warns at each client, of this machine too; `parse` did already
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection", module=__name__)
        rest_options, channel = self._rest_options(), dict[str, Any](_CHANNEL)
        if self.options.ca_file is not None:
            channel["root_certificates"] = self.options.ca_file.read_bytes()
        with usable_environment():  # also by gRPC: the client makes both
            return QdrantClient(
                host=self.host,
                port=self.port,
                grpc_port=self.port,
                https=self.tls,
                prefix=self.path or None,
                prefer_grpc=self.by_grpc,
                api_key=self.api_key,
                timeout=self.options.timeout_s,
                grpc_options=channel,
                check_compatibility=False,  # it only warns, first of all about a server that cannot be reached
                **rest_options,
            )

    def _rest_options(self) -> dict[str, Any]:
        if not self.tls:  # a client reads all certificates at its start, 18 ms, though no connection needs one
            return {"verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
        if (file := self.options.ca_file) is None:
            return {}
        try:
            return {"verify": ssl.create_default_context(cafile=file)}
        except OSError as error:  # also raised for invalid contents
            raise ConfigError(f"memory_options.ca_file: {file} cannot be read as a PEM file: {error}") from error

    def answers(self) -> bool:
        """Whether anything answers there within a second, by a connection of its own."""
        hurried = replace(self, options=self.options.model_copy(update={"timeout_s": _PROBE_S}))
        try:
            with closing(hurried.connect()) as client:
                client.info()
        except Exception as error:
            fault = read_fault(error)  # a proxy that lets no health check pass is an answer, too
            return fault.status is not None and not (fault.unanswered or fault.late)
        return True

    def run(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        """Run a call of the client until it succeeds, fails for good, or its time is over; all are idempotent.

        Args:
            doing: the operation, for messages, as in "search".
            action: takes the whole seconds that it may use; None at first: the client's own limit.
            write: whether it writes; what is read within :func:`~reco_plugin.memory.time_limit.part_of_a_write` is as
                patient: long enough for a server to restart.

        Raises:
            MemoryUnavailable: no answer, or the rate limit asks to wait longer than the time left.
            MemoryTimeout: it answers too late, also for the :func:`~reco_plugin.memory.time_limit.limited` block.
            MemoryStoreError: any other error of the server.
        """
        patient, limit = write or is_writing(), time_limit()
        within = self.options.write_timeout_s if patient else self.options.timeout_s
        end = time.monotonic() + within
        if limit is not None:
            end = min(limit.until, end)
        left: int | None = None
        for attempt in range(10_000):
            try:
                return action(left)
            except RecoError:
                raise
            except Exception as error:
                if limit is not None and limit.left_s < _CLOSE_S and read_fault(error).late:
                    raise MemoryTimeout(f"cannot {doing} the memory at {self.location!r}: {limit.words}") from error
                pause = _pause(error, attempt, patient=patient)
                if pause is None or time.monotonic() + pause >= end:
                    how: Any = {"key_given": self.api_key is not None, "within_s": within, "write": patient}
                    raise translate(error, self.location, doing, **how) from error
                time.sleep(pause)
                left = max(1, min(self.options.timeout_s, math.ceil(end - time.monotonic())))
        raise AssertionError("unreachable: every pause brings the end nearer")


def _pause(error: Exception, attempt: int, *, patient: bool) -> float | None:
    """Seconds before a retry; None if a retry would not help."""
    if (asked := retry_after(error)) is not None:
        return float(asked)
    if not read_fault(error).passing:
        return None
    if patient:
        return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempt, 10)))
    return 0.0 if attempt == 0 else None  # a pooled connection that the server closed meanwhile
