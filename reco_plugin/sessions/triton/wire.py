"""The few things that a session asks of a Triton server, over whichever protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from ...errors import SessionError
from ..base import Arrays
from .address import Address


@dataclass(frozen=True)
class Placement:
    """An input that lies in a shared-memory region instead of in the request."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True)
class Inference:
    """One inference.

    Attributes:
        placed: inputs that are not sent; by name.
    """

    graph: str
    version: str
    inputs: Mapping[str, npt.NDArray[Any]]
    outputs: tuple[str, ...]
    placed: Mapping[str, Placement] = field(default_factory=dict)


class Wire(Protocol):
    """A connection, or a pool of them; safe to use from several threads.

    All methods raise what :mod:`.faults` makes, and return or raise within ``timeout`` seconds.
    """

    def infer(self, call: Inference, timeout: float) -> Arrays:
        """Compute the outputs."""
        ...

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """The configuration of a graph that is ready, as JSON."""
        ...

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        """Let the server map a shared-memory object of this host."""
        ...

    def unregister(self, region: str, timeout: float) -> None:
        """Let the server unmap it."""
        ...

    def close(self) -> None:
        """Drop the connections."""
        ...


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
    """The inputs in the classes of either client: with their data, or with the place where the data lie.

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
