"""A Triton server over gRPC: one connection per server, shared by all sessions of the process that use it."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ...errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable, importing
from ..base import Arrays
from .address import Address

with importing("tritonclient", "triton", "running models on a Triton server"):
    import tritonclient.grpc as client
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # reconnect at once, not after two minutes:
    ("grpc.max_reconnect_backoff_ms", 100),  # shorter than our own pauses between attempts
    ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the timeout of one connection attempt
]
_NEVER_SENT = ("failed to connect", "connection refused", "handshak", " resolution", "errors resolving")
_QUEUE_IS_FULL = "maximum queue size"
_HINT = "Does it run, and is this its port for gRPC (usually 8001)?"
_PAUSES_S = (0.05, 0.2)
"""Before the second and the third attempt; only a request that was never sent is retried."""


class NotReached(SessionUnavailable):
    """The request was never sent, so it can be retried."""


class AccessRefused(SessionError):
    """The server or a proxy refuses the credentials."""


@dataclass(frozen=True)
class Inference:
    """One inference."""

    graph: str
    version: str
    inputs: Mapping[str, npt.NDArray[Any]]  # (B, ...) by name
    outputs: tuple[str, ...]


class TritonLine:
    """A connection, safe to use from several threads; closed when no session holds it, or the process ends."""

    def __init__(self, address: Address) -> None:
        """Prepare the connection; nothing is sent yet."""
        self._address, self._headers = address, dict(address.headers)
        self._client = client.InferenceServerClient(
            address.authority,
            ssl=address.tls,
            root_certificates=str(address.ca) if address.ca else None,
            channel_args=_CHANNEL,
        )
        weakref.finalize(self, self._client.close)

    def infer(self, call: Inference, timeout: float) -> Arrays:
        """Compute the outputs, arrays (B, ...), within ``timeout`` seconds.

        Raises:
            SessionError: Triton has no type for an array, or refuses the request.
            SessionUnavailable: the server cannot be reached, or its queue is full.
            SessionTimeout: it did not answer in time.
        """
        inputs = [_input(name, array) for name, array in call.inputs.items()]
        outputs = [client.InferRequestedOutput(name) for name in call.outputs]
        result = self._ask(self._client.infer, timeout, call.graph, inputs, model_version=call.version, outputs=outputs)
        return {name: result.as_numpy(name) for name in call.outputs}

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """The configuration of a graph that is ready, as JSON; errors as of :meth:`infer`."""
        answer = self._ask(self._client.get_model_config, timeout, graph, version, as_json=True)
        return dict(answer["config"])

    def _ask(self, method: Callable[..., Any], timeout: float, *args: Any, **options: Any) -> Any:
        """Call a method of the client; a request that was never sent is tried again until the deadline."""
        until, pauses = time.monotonic() + timeout, list(_PAUSES_S)
        while True:
            left = max(until - time.monotonic(), 1e-3)
            try:
                return method(*args, headers=self._headers, client_timeout=left, **options)
            except InferenceServerException as error:
                fault = self._fault(str(error.status()).removeprefix("StatusCode."), str(error.message()), timeout)
                if not isinstance(fault, NotReached) or not pauses or until - time.monotonic() <= pauses[0]:
                    raise fault from error
            time.sleep(pauses.pop(0))

    def _fault(self, code: str, message: str, timeout: float) -> SessionError:
        url = self._address.url
        kind: type[SessionError] = SessionError
        said = f"the Triton server at {url} says: {message}"
        if code == "DEADLINE_EXCEEDED":
            kind = SessionTimeout
            said = (
                f"the Triton server at {url} did not answer within {timeout:.3g} s: it is busy, slow or not what "
                "answers there. Raise triton_timeout_s, send smaller batches (batch_size), or add instances."
            )
        elif code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "protocol is restricted" in message:
            kind = AccessRefused  # of a missing key, Triton says UNAVAILABLE
            said = (
                f"the Triton server at {url} refuses access ({message}): set triton_headers, for example "
                '{"authorization": "Bearer …"}, to what it expects'
            )
        elif code == "UNAVAILABLE" and any(words in message.lower() for words in _NEVER_SENT):
            kind, said = NotReached, f"no Triton server is reached at {url} ({message}). {_HINT}"
            if self._address.tls:
                said += " With TLS: does the certificate name this host, and is its authority in triton_ca?"
        elif code == "UNAVAILABLE" and _QUEUE_IS_FULL in message:
            kind = SessionOverloaded
            said = (
                f"the queue of the Triton server at {url} is full ({message}): send less at once, raise "
                "max_queue_size, or add instances"
            )
        elif code in ("UNAVAILABLE", "CANCELLED"):
            kind = SessionUnavailable
            said = f"the Triton server at {url} did not answer ({message}): was it stopped or restarted?"
        return kind(said)


_open: weakref.WeakValueDictionary[Address, TritonLine] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def connect(address: Address) -> TritonLine:
    """The connection to a server, opened if there is none yet."""
    with _lock:
        server = _open.get(address)
        if server is None:
            server = _open[address] = TritonLine(address)
        return server


def _input(name: str, array: npt.NDArray[Any]) -> Any:
    if (kind := np_to_triton_dtype(array.dtype)) is None:
        raise SessionError(f"Triton has no type for {name!r}, an array of {array.dtype}")
    made = client.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made
