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
_NEARLY = 0.95  # of a limit: clocks differ
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


def is_absent(error: Exception) -> bool:
    """Whether the server answered that there is no such collection."""
    return read_fault(error).status in _ABSENT


def retry_after(error: Exception) -> int | None:
    """Seconds that the server asks to wait; None if it does not limit the rate."""
    if isinstance(error, ResourceExhaustedResponse):
        return max(0, error.retry_after_s)
    return 1 if read_fault(error).status in (429, "RESOURCE_EXHAUSTED") else None


@dataclass(frozen=True)
class Spent:
    """Time that a failed call had, and used."""

    took_s: float  # of its last attempt
    attempt_s: int  # limit of one attempt, ``timeout_s``
    left_s: int | None  # limit of the last attempt after waits; None if there were none
    within_s: int  # limit of all attempts and waits together
    write: bool  # it writes, so ``within_s`` is ``write_timeout_s``

    @property
    def setting(self) -> str:
        """The setting of ``within_s``."""
        return f"memory_options.{'write_timeout_s' if self.write else 'timeout_s'}"


def translate(error: Exception, location: str, doing: str, *, key_given: bool, spent: Spent) -> MemoryStoreError:
    """Our error for one of the server, where an operation ("search") failed; no message contains the key."""
    failed = f"cannot {doing} the memory at {location!r}"
    if (wait := retry_after(error)) is not None:
        return MemoryOverloaded(
            f"{failed}: the server limits the rate of requests and asks to wait {wait} s, beyond the "
            f"{spent.within_s} s that the call may take. Send fewer, raise {spent.setting}, or the collection's "
            f"{'write' if spent.write else 'read'}_rate_limit"
        )
    fault = read_fault(error)
    if fault.late:
        return MemoryTimeout(f"{failed}: {_why_late(fault, spent)}")
    if fault.unanswered:
        tried = f", for {spent.within_s} s ({spent.setting})" if spent.left_s is not None and spent.write else ""
        return MemoryUnavailable(f"{failed}: {fault.text or 'no answer'}{tried}. {_why_unanswered(fault, location)}")
    way_out = _way_out(fault, key_given=key_given)
    if fault.status in _BROKEN and not way_out:  # an internal error, which a restart may fix
        return MemoryUnavailable(f"{failed}: {fault.text}. The server's log has more")
    return MemoryStoreError(f"{failed}: {fault.text}{way_out}")


def _why_late(fault: Fault, spent: Spent) -> str:
    """Which limit ended the call: of one attempt, of all attempts, or of the server."""
    ours = not isinstance(fault.status, int)  # an HTTP status is an answer
    if ours and spent.took_s >= _NEARLY * spent.attempt_s:
        why = f"no answer within {spent.attempt_s} s. See its load, or raise memory_options.timeout_s"
    elif ours and spent.left_s is not None and spent.took_s >= _NEARLY * spent.left_s:
        why = f"no answer within {spent.within_s} s, waits included. See its load, or raise {spent.setting}"
    else:
        why = f"it, or a proxy before it, gave up after {spent.took_s:.1f} s ({fault.text}). See its load"
    return f"{why}; what was sent may be stored all the same, and can be sent again" if spent.write else why


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
