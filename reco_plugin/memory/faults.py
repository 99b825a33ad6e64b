"""Errors of Qdrant's client, REST or gRPC, as ours: what was expected, what was found, what to do."""

from __future__ import annotations

import json
import re
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
_EXISTS = {409, "ALREADY_EXISTS"}
_NODE_LOST = re.compile(
    r"transport error|tcp connect|connection (refused|reset)|failed to connect|status: '?(unavailable|cancelled)|"
    r"channel closed|no active replica|not enough (active )?replicas|peer .*(not|un)\w* (available|reachable)",
    re.IGNORECASE,
)
"""Of an internal error, by which a node tells that another one was lost while it answered."""
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
