"""Errors of Qdrant's client, REST or gRPC, as ours: what was expected, what was found, what to do."""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ..errors import MemoryOverloaded, MemoryStoreError, MemoryTimeout, MemoryUnavailable
from ..proxies import proxy_of

_NO_KEY = {401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"}
_GONE = {502, 503, "UNAVAILABLE"}
_BROKEN = {500, "INTERNAL"}
_LATE = {408, 504, "DEADLINE_EXCEEDED"}
_ABSENT = {404, "NOT_FOUND"}
_STRICT = re.compile(r"strict mode|limit exceeded|help: |index required", re.IGNORECASE)
_TLS = re.compile(r"wrong_version_number|record layer|ssl|handshake|certificate", re.IGNORECASE)
_CERTIFICATE = re.compile(r"certificate.?verify|self.?signed|unable to get local issuer", re.IGNORECASE)
_OTHER_PROTOCOL = re.compile(
    r"http/?1|http/?2|settings frame|illegal (status|header)|failed to connect.*socket closed", re.IGNORECASE
)
_NODE_LOST = re.compile(
    r"transport error|tcp connect|connection (refused|reset)|failed to connect|status: '?(unavailable|cancelled)|"
    r"channel closed|no active replica|not enough (active )?replicas|peer .*(not|un)\w* (available|reachable)",
    re.IGNORECASE,
)
"""Of an internal error, by which a node tells that another one was lost while it answered."""
_NO_COLLECTION = re.compile(r"collection\b.*(exist|not found)", re.IGNORECASE)
_WAYS_OUT = {
    "error parsing message": ". By gRPC a payload may be nested some 30 levels deep: make it flatter, or use REST",
}
_START = "docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant"


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


def read_fault(error: Exception) -> Fault:
    """Status and text of an error of either transport."""
    if isinstance(error, UnexpectedResponse):
        return Fault(error.status_code, _rest_text(error), error)
    if isinstance(error, ResponseHandlingException):
        return Fault(None, _one_line(error.source), error)
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return Fault(error.code().name, _one_line(error.details() or ""), error)
    return Fault(None, _one_line(error), error)


def is_refusal_of_key(error: Exception) -> bool:
    """Whether the server answered that the key is missing or wrong."""
    return read_fault(error).status in _NO_KEY


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
    failed, setting = f"cannot {doing} the memory at {location!r}", f"{'write_' if write else ''}timeout_s"
    if (wait := retry_after(error)) is not None:
        return MemoryOverloaded(
            f"{failed}: the server limits the rate of requests and asks to wait {wait} s, beyond the {within_s} s that "
            f"the call may take. Send fewer, raise memory_options.{setting}, or the collection's "
            f"{'write' if write else 'read'}_rate_limit"
        )
    fault = read_fault(error)
    if fault.late:
        again = "; what was sent may be stored all the same, and can be sent again" if write else ""
        return MemoryTimeout(
            f"{failed}: no answer in time ({fault.text}). See its load, or raise memory_options.timeout_s{again}"
        )
    if fault.unanswered:
        tried = f", for {within_s} s (memory_options.{setting})" if write else ""
        return MemoryUnavailable(f"{failed}: {fault.text or 'no answer'}{tried}. {_why_unanswered(fault, location)}")
    way_out = _way_out(fault, key_given=key_given)
    if fault.status in _BROKEN and not way_out:  # an internal error, which a restart may fix
        return MemoryUnavailable(f"{failed}: {fault.text}. The server's log has more")
    return MemoryStoreError(f"{failed}: {fault.text}{way_out}")


def _why_unanswered(fault: Fault, location: str) -> str:
    secure = location.startswith(("https", "grpcs"))
    if secure and _CERTIFICATE.search(fault.text):
        return "Its certificate is not trusted here: name its authority's PEM file in memory_options.ca_file"
    source = getattr(fault.error, "source", None)
    if secure and (_TLS.search(fault.text) or isinstance(source, ssl.SSLError)):
        plain = location.replace("https", "http", 1).replace("grpcs", "grpc", 1)
        return f"Expected TLS, found something else; if the server has none, write {plain}"
    if isinstance(source, httpx.RemoteProtocolError) or _OTHER_PROTOCOL.search(fault.text):
        return (
            "The connection broke, or another protocol is used there: REST is http://host:6333, "
            "gRPC is grpc://host:6334, and a server with TLS needs https:// or grpcs://"
        )
    return f"Is a Qdrant server running there? {_START}{proxy_of(location)}"


def _way_out(fault: Fault, *, key_given: bool) -> str:
    absent, text = fault.status in _ABSENT, fault.text.lower()
    alien = isinstance(getattr(fault.error, "source", None), ValidationError)
    if not absent and _STRICT.search(text):
        return ". The collection's strict mode forbids this: ask for less at once, or change its strict_mode_config"
    if fault.status in _NO_KEY:
        found = "the server refuses the one that was sent" if key_given else "none was sent"
        return f". Check the API key: {found}. Set RECO_MEMORY_API_KEY, to a key that may do this"
    if absent and _NO_COLLECTION.search(text):
        return ". The collection was deleted or never made: see `reco memory versions`, or rebuild it"
    if absent or alien:
        return ". What answers there is no Qdrant server, one behind a path, or one of another version than the client"
    return next((way_out for words, way_out in _WAYS_OUT.items() if words in text), "")


def _rest_text(error: UnexpectedResponse) -> str:
    try:
        status: Any = json.loads(error.content)["status"]
        return _one_line(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return _one_line(f"{error.status_code} {error.reason_phrase} {error.content[:80].decode(errors='replace')}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]
