"""What a Triton server or the way to it answers instead of a result, in terms of our error tree."""

from __future__ import annotations

from ...errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable
from .address import Address

_QUEUE_IS_FULL = "maximum queue size"
_NO_REGION = "shared memory region"


class NotReached(SessionUnavailable):
    """The request was never sent, so it may be sent again."""


class RegionLost(SessionError):
    """The server does not know a shared-memory region: it was restarted, or cannot see this host's memory."""


def not_reached(address: Address, reason: object) -> NotReached:
    """No connection could be made."""
    hint = "Does it run, is this its port, and is the protocol right (gRPC is usually on 8001, HTTP on 8000)?"
    if address.tls:
        hint += " With TLS: does the certificate name this host, and is its authority in triton_ca?"
    return NotReached(f"no Triton server is reached at {address.url} ({reason}). {hint}")


def too_late(address: Address, timeout: float) -> SessionTimeout:
    """The deadline passed."""
    return SessionTimeout(
        f"the Triton server at {address.url} did not answer within {timeout:.3g} s: it is busy, slow or not what "
        "answers there. Raise triton_timeout_s, send smaller batches (batch_size), or add instances."
    )


def refused(address: Address, reason: object) -> SessionError:
    """The server or a proxy wants other credentials."""
    return SessionError(
        f"the Triton server at {address.url} refuses access ({reason}): set triton_headers, for example "
        '{"authorization": "Bearer …"}, to what it expects'
    )


def unavailable(address: Address, message: str) -> SessionUnavailable:
    """The connection broke when the request was on its way, or the server says that it cannot serve now."""
    if _QUEUE_IS_FULL in message:
        return SessionOverloaded(
            f"the queue of the Triton server at {address.url} is full ({message}): send less at once, raise "
            "max_queue_size, or add instances"
        )
    return SessionUnavailable(
        f"the Triton server at {address.url} did not answer ({message}): was it stopped or restarted?"
    )


def failed(address: Address, message: str) -> SessionError:
    """The server answers with an error of its own."""
    if _NO_REGION in message.lower():
        return RegionLost(f"the Triton server at {address.url} and shared memory: {message}")
    return SessionError(f"the Triton server at {address.url} says: {message}")
