"""A Qdrant server: its address, key and TLS, a gRPC or REST client, retries within a time limit, and errors as ours."""

from __future__ import annotations

import json
import math
import re
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..config import MemoryOptions
from ..errors import (
    ConfigError,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
)
from ..proxies import proxy_of, usable_environment
from .checks import NO_SERVER
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
_NO_KEY = {401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"}
_GONE = {502, 503, "UNAVAILABLE"}
_BROKEN = {500, "INTERNAL"}
_LATE = {408, 504, "DEADLINE_EXCEEDED"}
_ABSENT = {404, "NOT_FOUND"}
_EXISTS = {409, "ALREADY_EXISTS"}
_NODE_LOST = re.compile(
    r"transport error|tcp connect|connection (refused|reset)|failed to connect|status: '?(unavailable|cancelled)|"
    r"channel closed|no active replica|not enough (active )?replicas|peer .*(not|un)\w* (available|reachable)",
    re.IGNORECASE,
)
"""Of an internal error, by which a node tells that another one was lost while it answered."""
_START = "docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant"
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


@dataclass(frozen=True)
class Fault:
    """An error of either transport."""

    status: int | str | None  # HTTP status, or name of the gRPC code; None where no answer came
    text: str  # message of the server or the network, in one line
    error: Exception  # the original

    @property
    def unanswered(self) -> bool:
        """No answer: connection refused, reset, or lost during the call."""
        if isinstance(self.error, ResponseHandlingException):
            return not isinstance(self.error.source, (httpx.TimeoutException, ValidationError))
        return self.status in _GONE

    @property
    def passing(self) -> bool:
        """It may be over soon: no answer, or none from a node of the cluster that was asked for a part of it."""
        return self.unanswered or (self.status in _BROKEN and _NODE_LOST.search(self.text) is not None)

    @property
    def late(self) -> bool:
        """No answer before the deadline."""
        source = getattr(self.error, "source", None)
        unconnected = isinstance(source, httpx.ConnectTimeout)
        return self.status in _LATE or (isinstance(source, httpx.TimeoutException) and not unconnected)

    @property
    def refuses_key(self) -> bool:
        """The server says that the key is missing or wrong."""
        return self.status in _NO_KEY

    @property
    def exists(self) -> bool:
        """What was to be made is there already."""
        return self.status in _EXISTS or "already exists" in self.text


def read_fault(error: Exception) -> Fault:
    """Status and text of an error of either transport."""
    if isinstance(error, UnexpectedResponse):
        return Fault(error.status_code, _rest_text(error), error)
    if isinstance(error, ResponseHandlingException):
        return Fault(None, _one_line(error.source), error)
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return Fault(error.code().name, _one_line(error.details() or ""), error)
    return Fault(None, _one_line(error), error)


def retry_after(error: Exception) -> int | None:
    """Seconds that the server asks to wait; None if it does not limit the rate."""
    if isinstance(error, ResourceExhaustedResponse):
        return max(0, error.retry_after_s)
    return 1 if read_fault(error).status in (429, "RESOURCE_EXHAUSTED") else None


def translate(
    error: Exception, location: str, doing: str, *, key_given: bool, within_s: int, write: bool
) -> MemoryStoreError:
    """Our error for one of the server; no message contains the key.

    Args:
        error: of the client.
        location: of the server.
        doing: the operation that failed, as in "search".
        key_given: whether a key was sent.
        within_s: limit of all attempts and waits together.
        write: whether it is part of a write, so that ``within_s`` is ``write_timeout_s``.
    """
    fault, setting = read_fault(error), f"{'write_' if write else ''}timeout_s"
    kind, said = MemoryStoreError, fault.text
    if (wait := retry_after(error)) is not None:
        kind = MemoryOverloaded
        said = (
            f"the server limits the rate of requests and asks to wait {wait} s, beyond the {within_s} s that the call "
            f"may take. Send fewer, or raise memory_options.{setting}"
        )
    elif fault.late:
        kind = MemoryTimeout
        again = "; what was sent may be stored all the same, and can be sent again" if write else ""
        said = f"no answer in time ({said}). See its load, or raise memory_options.timeout_s{again}"
    elif fault.unanswered:
        kind = MemoryUnavailable
        tried = f", for {within_s} s (memory_options.{setting})" if write else ""
        said = (
            f"{said or 'no answer'}{tried}. Is a Qdrant server running there? {_START} (REST is http://host:6333, gRPC "
            "grpc://host:6334; with TLS https:// or grpcs://, and a private authority's certificate in "
            f"memory_options.ca_file){proxy_of(location)}"
        )
    elif fault.refuses_key:
        found = "the server refuses the one that was sent" if key_given else "none was sent"
        said = f"{said}. Check the API key: {found}. Set RECO_MEMORY_API_KEY, to a key that may do this"
    elif fault.status in _ABSENT or isinstance(getattr(error, "source", None), ValidationError):
        said = (
            f"{said}. The collection is gone (see `reco memory versions`), or what answers there is no Qdrant server "
            "of a version that the client knows"
        )
    elif fault.status in _BROKEN:  # an internal error, which a restart may fix
        kind, said = MemoryUnavailable, f"{said}. The server's log has more"
    return kind(f"cannot {doing} the memory at {location!r}: {said}")


def _rest_text(error: UnexpectedResponse) -> str:
    try:
        status: Any = json.loads(error.content)["status"]
        return _one_line(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return _one_line(f"{error.status_code} {error.reason_phrase} {error.content[:80].decode(errors='replace')}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]
