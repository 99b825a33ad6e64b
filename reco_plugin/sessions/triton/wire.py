"""The requests of a session to a Triton server, over either protocol, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from ...errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable
from ..base import Arrays
from .address import Address

_QUEUE_IS_FULL = "maximum queue size"
_NO_REGION = "shared memory region"


@dataclass(frozen=True)
class Placement:
    """An input in a shared-memory region instead of in the request."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True)
class Inference:
    """One inference."""

    graph: str
    version: str
    inputs: Mapping[str, npt.NDArray[Any]]  # (B, ...) by name
    outputs: tuple[str, ...]
    placed: Mapping[str, Placement] = field(default_factory=dict)  # inputs in shared memory, by name


class Wire(Protocol):
    """A connection, or a pool of them; safe to use from several threads.

    All methods raise the errors below, and return or raise within ``timeout`` seconds.
    """

    def infer(self, call: Inference, timeout: float) -> Arrays:
        """Compute the outputs, arrays (B, ...)."""

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """The configuration of a graph that is ready, as JSON."""

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        """Have the server map a shared-memory object of this host."""

    def unregister(self, region: str, timeout: float) -> None:
        """Have the server unmap it."""

    def close(self) -> None:
        """Close the connections."""


def open_wire(address: Address) -> Wire:
    """Prepare the connection; nothing is sent yet.

    Raises:
        MissingExtra: the Triton client is not installed.
    """
    if address.protocol == "grpc":
        from .grpc_wire import GrpcWire

        return GrpcWire(address)
    from .http_wire import HttpWire

    return HttpWire(address)


def infer_inputs(make: Callable[[str, list[int], str], Any], call: Inference) -> list[Any]:
    """The inputs in the classes of either client: with their data, or with their shared-memory region.

    Raises:
        SessionError: Triton has no type for an array.
    """
    from tritonclient.utils import np_to_triton_dtype

    made = []
    for name, array in call.inputs.items():
        if (kind := np_to_triton_dtype(array.dtype)) is None:
            raise SessionError(f"Triton has no type for {name!r}, an array of {array.dtype}")
        made.append(make(name, list(array.shape), kind))
        if place := call.placed.get(name):
            made[-1].set_shared_memory(place.region, place.size, place.offset)
        else:
            made[-1].set_data_from_numpy(array)
    return made


class NotReached(SessionUnavailable):
    """The request was never sent, so it can be retried."""


class AccessRefused(SessionError):
    """The server or a proxy refuses the credentials."""


class RegionLost(SessionError):
    """The server does not know a shared-memory region: it was restarted, or cannot see this host's memory."""


def make_not_reached(address: Address, reason: object) -> NotReached:
    """No connection could be made."""
    hint = "Does it run, is this its port, and is the protocol right (gRPC is usually on 8001, HTTP on 8000)?"
    if address.tls:
        hint += " With TLS: does the certificate name this host, and is its authority in triton_ca?"
    return NotReached(f"no Triton server is reached at {address.url} ({reason}). {hint}")


def make_timeout(address: Address, timeout: float) -> SessionTimeout:
    """The deadline passed."""
    return SessionTimeout(
        f"the Triton server at {address.url} did not answer within {timeout:.3g} s: it is busy, slow or not what "
        "answers there. Raise triton_timeout_s, send smaller batches (batch_size), or add instances."
    )


def make_access_error(address: Address, reason: object) -> AccessRefused:
    """The credentials are missing or wrong."""
    return AccessRefused(
        f"the Triton server at {address.url} refuses access ({reason}): set triton_headers, for example "
        '{"authorization": "Bearer …"}, to what it expects'
    )


def make_unavailable(address: Address, message: str) -> SessionUnavailable:
    """The connection broke during the request, or the server cannot serve it now."""
    if _QUEUE_IS_FULL in message:
        return SessionOverloaded(
            f"the queue of the Triton server at {address.url} is full ({message}): send less at once, raise "
            "max_queue_size, or add instances"
        )
    return SessionUnavailable(
        f"the Triton server at {address.url} did not answer ({message}): was it stopped or restarted?"
    )


def make_server_error(address: Address, message: str) -> SessionError:
    """The server answers with an error of its own."""
    if _NO_REGION in message.lower():
        return RegionLost(f"the Triton server at {address.url} and shared memory: {message}")
    return SessionError(f"the Triton server at {address.url} says: {message}")
