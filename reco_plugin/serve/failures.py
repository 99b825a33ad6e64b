"""Failures of requests as values, and the one table from our errors to HTTP status, code and message."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import (
    FingerprintMismatch,
    ImageError,
    ImageTooLarge,
    InputError,
    MemoryFull,
    MemoryOverloaded,
    MemoryReadOnly,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    UnusableFeatures,
    VectorError,
)


@dataclass(frozen=True)
class Failure:
    """Why a request or one of its items failed. Each dialect writes it in its own format."""

    status: int  # of HTTP
    code: str  # for programs, such as ``image_too_large``
    message: str  # for people: the value and the way out
    param: str | None = None  # field of the request, as in ``input[3]``

    @property
    def kind(self) -> str:
        """OpenAI's ``type``."""
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def at(self, place: str) -> Failure:
        """Return the failure with the name of its item, as in ``input[3]``."""
        return replace(self, message=f"{place}: {self.message}", param=self.param or place)


def too_many_items(number: int, limit: int, name: str | None = None, setting: str = "max_items") -> Failure:
    """Return the failure of a request with too many items, with the field and the setting that limits it."""
    what = name or "items"
    message = f"{what}: {number:,} in one request, the limit is {limit:,} ({setting}): split it"
    return Failure(413, "too_many_items", message, name)


def too_many_bytes(size: int, limit: int) -> Failure:
    """Return the failure of an image with too many bytes."""
    message = f"an image has {size:,} bytes, the limit is {limit:,} (max_image_bytes): shrink it first"
    return Failure(413, "image_too_large", message)


class Refused(Exception):
    """Ends a request. The route answers with the failure, in the format of its dialect."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


STOPPING = Failure(503, "stopping", "the service is stopping: use another one, or try later")
"""Answered while the service stops."""
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

_LOGGED = "the service's log has the details under this request's id"
_TABLE: tuple[tuple[type[RecoError], int, str, str | None], ...] = (  # the first match counts: subclasses first
    (ImageTooLarge, 413, "image_too_large", None),
    (ImageError, 415, "image_decode_failed", None),
    (VectorError, 400, "invalid_vector", None),
    (InputError, 400, "invalid_input", None),
    (SessionOverloaded, 429, "model_server_overloaded", "the model server is busy: send less at once, or later"),
    (SessionUnavailable, 503, "model_server_unavailable", "the model server is down: try again later"),
    (SessionTimeout, 504, "model_server_timeout", "the model server timed out: send less at once, or try again later"),
    (UnusableFeatures, 500, "encoder_failed", None),
    (SessionError, 500, "encoder_failed", f"the model failed; {_LOGGED}"),
    (MemoryOverloaded, 503, "memory_overloaded", "the memory is busy: try again later, or send less at once"),
    (MemoryTimeout, 504, "memory_timeout", "the memory timed out: try again later, or send less at once"),
    (MemoryUnavailable, 503, "memory_unavailable", "the memory is down: try again later"),
    (FingerprintMismatch, 503, "other_encoder", f"the memory is of another encoder than the one in use; {_LOGGED}"),
    (MemoryFull, 507, "disk_full", None),
    (MemoryReadOnly, 409, "memory_read_only", None),
    (MemoryStoreError, 503, "memory_unavailable", f"the memory failed; {_LOGGED}"),
)
"""Error, status, code, and message to clients. None shows the error's own message: it is about the input of the client,
or about a write, which needs a key. Other messages name servers, folders and settings, which only the log may show."""


def failure_of(error: BaseException) -> Failure:
    """Convert an exception to a failure for the client.

    An error that is not ours is a defect. The client gets no details, and the log has the trace.

    >>> failure_of(VectorError("vectors[0] holds NaN or infinity")).message
    'vectors[0] holds NaN or infinity'
    >>> failure_of(SessionUnavailable("no Triton server is reached at grpc://10.0.0.7:8001")).message
    'the model server is down: try again later'
    """
    if isinstance(error, Refused):
        return error.failure
    for kind, status, code, message in _TABLE:
        if isinstance(error, kind):
            return Failure(status, code, message or str(error))
    return Failure(500, "internal_error", f"the service failed to answer; {_LOGGED}")
