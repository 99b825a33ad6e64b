"""A Qdrant server: its address, key and TLS, a gRPC or REST client, retries within a time limit, and errors as ours."""

from __future__ import annotations

import json
import math
import re
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..errors import (
    ConfigError,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
)
from ..proxies import proxy_of, usable_environment
from ..settings import MemoryOptions
from .base import end_of_write
from .checks import NO_SERVER

SCHEMES = ("http", "https", "grpc", "grpcs")
REST_PORT, GRPC_PORT = 6333, 6334
FaultKind: TypeAlias = Literal["down", "lost", "late", "busy", "key", "absent", "exists", "broken", "other"]
"""No answer; a node of the cluster was lost; no answer in time; the rate is limited; a missing or wrong key; what was
asked about is not there; what was to be made is; an internal error; any other."""
_PROBE_S = 1
_CHANNEL = {
    "grpc.max_reconnect_backoff_ms": 2000,  # reconnect within seconds, not after two minutes
    "grpc.dns_min_time_between_resolutions_ms": 500,  # and at a new address, not after half a minute
    "grpc.keepalive_time_ms": 60_000,
    "grpc.use_local_subchannel_pool": 1,  # a new client has a new connection, at the address that the name has now
}
_KINDS: dict[object, FaultKind] = {
    **dict.fromkeys((401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"), "key"),
    **dict.fromkeys((502, 503, "UNAVAILABLE"), "down"),
    **dict.fromkeys((500, "INTERNAL"), "broken"),
    **dict.fromkeys((408, 504, "DEADLINE_EXCEEDED"), "late"),
    **dict.fromkeys((404, "NOT_FOUND"), "absent"),
    **dict.fromkeys((409, "ALREADY_EXISTS"), "exists"),
    **dict.fromkeys((429, "RESOURCE_EXHAUSTED"), "busy"),
}
"""HTTP status, or name of a gRPC code -> what it means."""
_NODE_LOST = re.compile(
    r"transport error|tcp connect|connection (refused|reset)|failed to connect|status: '?(unavailable|cancelled)|"
    r"channel closed|no active replica|not enough (active )?replicas|peer .*(not|un)\w* (available|reachable)",
    re.IGNORECASE,
)
"""Of an internal error, by which a node tells that another one was lost while it answered."""
_START = "docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
T = TypeVar("T")


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
        port = port or (GRPC_PORT if by_grpc else REST_PORT)
        return cls(location, url.hostname, port, tls, url.path.rstrip("/"), api_key, chosen)

    @property
    def by_grpc(self) -> bool:
        """Whether the URL is that of gRPC; else REST is used."""
        return self.location.startswith("grpc")

    def connect(self) -> QdrantClient:
        """A client, gRPC or REST, as the URL says; makes no request.

        Raises:
            ConfigError: a ``ca_file`` that cannot be read.
        """
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
            return read_fault(error).kind not in ("down", "late")  # a proxy that lets no health check pass answers
        return True

    def run(self, doing: str, action: Callable[[int | None], T], *, write: bool = False) -> T:
        """Run a call of the client until it succeeds, fails for good, or its time is over; all are idempotent.

        Args:
            doing: the operation, for messages, as in "search".
            action: takes the whole seconds that it may use; None at first: the client's own limit.
            write: whether it writes; what is read within :func:`~reco_plugin.memory.base.part_of_a_write` is as
                patient: long enough for a server to restart. Another call is repeated once.

        Raises:
            MemoryUnavailable: no answer.
            MemoryOverloaded: the rate limit asks to wait longer than the time left.
            MemoryTimeout: it answers too late.
            MemoryStoreError: any other error of the server.
        """
        patient = write or end_of_write() is not None
        within = self.options.write_timeout_s if patient else self.options.timeout_s
        end = min(time.monotonic() + within, end_of_write() or math.inf)
        left, pause = None, _FIRST_PAUSE_S if patient else 0.0
        while True:
            try:
                return action(left)
            except RecoError:
                raise
            except Exception as error:
                fault = read_fault(error)
                again = fault.kind == "busy" or (fault.kind in ("down", "lost") and (patient or left is None))
                wait = pause if fault.wait_s is None else fault.wait_s
                if not again or time.monotonic() + wait >= end:
                    raise self._error(fault, doing, within_s=within, patient=patient) from error
                time.sleep(wait)
                pause = min(_LONGEST_PAUSE_S, 2 * pause)
                left = max(1, min(self.options.timeout_s, math.ceil(end - time.monotonic())))

    def _error(self, fault: Fault, doing: str, *, within_s: int, patient: bool) -> MemoryStoreError:
        """Our error for one of the server; no message contains the key."""
        setting, kind, text = f"memory_options.{'write_' if patient else ''}timeout_s", MemoryStoreError, fault.text
        match fault.kind:
            case "busy":
                kind = MemoryOverloaded
                text = (
                    f"the server limits the rate of requests and asks to wait {fault.wait_s} s, beyond the {within_s} "
                    f"s that the call may take. Send fewer, or raise {setting}"
                )
            case "late":
                kind = MemoryTimeout
                again = "; what was sent may be stored all the same, and can be sent again" if patient else ""
                text = f"no answer in time ({text}). See its load, or raise memory_options.timeout_s{again}"
            case "down":
                kind = MemoryUnavailable
                tried = f", for {within_s} s ({setting})" if patient else ""
                text = (
                    f"{text or 'no answer'}{tried}. Is a Qdrant server running there? {_START} (REST is "
                    "http://host:6333, gRPC grpc://host:6334; with TLS https:// or grpcs://, and a private authority's "
                    f"certificate in memory_options.ca_file){proxy_of(self.location)}"
                )
            case "key":
                found = "none was sent" if self.api_key is None else "the server refuses the one that was sent"
                text = f"{text}. Check the API key: {found}. Set RECO_MEMORY_API_KEY, to a key that may do this"
            case "absent":
                text = (
                    f"{text}. The collection is gone (see `reco memory versions`), or what answers there is no Qdrant "
                    "server of a version that the client knows"
                )
            case "broken" | "lost":  # a restart may fix it
                kind, text = MemoryUnavailable, f"{text}. The server's log has more"
        return kind(f"cannot {doing} the memory at {self.location!r}: {text}")


@dataclass(frozen=True)
class Fault:
    """An error of either transport."""

    kind: FaultKind
    text: str  # message of the server or the network, in one line
    wait_s: int | None = None  # that the server asks to wait


def read_fault(error: Exception) -> Fault:
    """What an error of either transport means."""
    if isinstance(error, ResourceExhaustedResponse):
        return Fault("busy", _one_line(error), max(0, error.retry_after_s))
    if isinstance(error, ResponseHandlingException):
        source = error.source
        late = isinstance(source, httpx.TimeoutException) and not isinstance(source, httpx.ConnectTimeout)
        kind: FaultKind = "late" if late else "absent" if isinstance(source, ValidationError) else "down"
        return Fault(kind, _one_line(source))
    if isinstance(error, UnexpectedResponse):
        kind, text = _KINDS.get(error.status_code, "other"), _rest_text(error)
    elif isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        kind, text = _KINDS.get(error.code().name, "other"), _one_line(error.details() or "")
    else:
        return Fault("other", _one_line(error))
    if kind == "broken" and _NODE_LOST.search(text):
        kind = "lost"
    return Fault("exists" if "already exists" in text else kind, text, 1 if kind == "busy" else None)


def _rest_text(error: UnexpectedResponse) -> str:
    try:
        status: Any = json.loads(error.content)["status"]
        return _one_line(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return _one_line(f"{error.status_code} {error.reason_phrase} {error.content[:80].decode(errors='replace')}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]
