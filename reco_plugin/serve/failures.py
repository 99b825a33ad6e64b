"""What can go wrong with a request, as a value: one table from our errors to HTTP status, code and message."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import (
    ImageError,
    ImageTooLarge,
    InputError,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
    RecoError,
    SessionError,
    SessionOverloaded,
    SessionTimeout,
    SessionUnavailable,
    VectorError,
)

_RETRY_S = 1.0


@dataclass(frozen=True)
class Failure:
    """Why a request, or one item of it, has no answer; each dialect puts it into its own words."""

    status: int  # HTTP status, where the whole request fails for it
    code: str  # one word for machines, such as ``image_too_large``
    message: str  # a sentence for people, that names the value and the way out
    param: str | None = None  # the field of the request that is to blame, as in ``input[3]``
    retry_after_s: float | None = None  # when it makes sense to ask again

    @property
    def kind(self) -> str:
        """The word that OpenAI's ``type`` would be."""
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def at(self, place: str) -> Failure:
        """The same, naming the item that it is about, as in ``input[3]``."""
        return replace(self, message=f"{place}: {self.message}", param=self.param or place)


def too_many_items(number: int, limit: int, name: str | None = None, setting: str = "max_items") -> Failure:
    """The failure of a request that wants too much at once, with the field and the setting that limits it."""
    what = name or "items"
    message = f"{what}: {number:,} in one request, the limit is {limit:,} ({setting}): split it"
    return Failure(413, "too_many_items", message, name)


class Refused(Exception):
    """Raised where a request ends early; the route answers with the failure, in its dialect."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


STOPPING = Failure(503, "stopping", "the service is stopping: ask another one, or again later", retry_after_s=_RETRY_S)
"""What is answered when the time to stop is over, and when it has begun."""
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}

_LOGGED = "the service's log has the details under this request's id"
_TABLE: tuple[tuple[type[RecoError], int, str, str | None], ...] = (  # the first that fits: narrow before wide
    (ImageTooLarge, 413, "image_too_large", None),
    (ImageError, 415, "image_decode_failed", None),
    (VectorError, 400, "invalid_vector", None),
    (InputError, 400, "invalid_input", None),
    (SessionOverloaded, 429, "model_server_overloaded", "the model server is busy: send less at once, or later"),
    (SessionUnavailable, 503, "model_server_unavailable", "the model server is away: try again later"),
    (SessionTimeout, 504, "model_server_timeout", "the model server is late: send less at once, or try again later"),
    (SessionError, 500, "encoder_failed", f"the model failed; {_LOGGED}"),
    (MemoryOverloaded, 503, "memory_overloaded", "the memory is busy: try again later, or send less at once"),
    (MemoryTimeout, 504, "memory_timeout", "the memory is late: try again later, or send less at once"),
    (MemoryUnavailable, 503, "memory_unavailable", "the memory is away: try again later"),
    (MemoryStoreError, 503, "memory_unavailable", f"the memory failed; {_LOGGED}"),
)
"""Error, status, code, and what callers are told; None: the error itself, which is about what they sent. The others
name servers, folders and settings, which are for the log alone."""


def failure_of(error: BaseException) -> Failure:
    """Say what an exception means to the caller.

    What is not an error of ours is a defect: the caller learns no more than that, the log has the trace.

    >>> failure_of(VectorError("vectors[0] holds NaN or infinity")).message
    'vectors[0] holds NaN or infinity'
    >>> failure_of(SessionUnavailable("no Triton server is reached at grpc://10.0.0.7:8001")).message
    'the model server is away: try again later'
    """
    if isinstance(error, Refused):
        return error.failure
    for kind, status, code, told in _TABLE:
        if isinstance(error, kind):
            retry = _RETRY_S if status in (429, 503) else None
            return Failure(status, code, told or str(error), retry_after_s=retry)
    return Failure(500, "internal_error", f"the service failed to answer; {_LOGGED}")
