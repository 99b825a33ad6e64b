"""gRPC, through ``tritonclient``: one channel, which is safe to share between threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import SessionError, importing
from ..base import Arrays
from . import wire
from .address import Address
from .wire import Inference, infer_inputs

with importing("tritonclient", "triton", "running models on a Triton server"):
    import tritonclient.grpc as client
    from tritonclient.utils import InferenceServerException

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # reconnect at once, not after two minutes:
    ("grpc.max_reconnect_backoff_ms", 100),  # shorter than our own pauses between attempts
    ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the timeout of one connection attempt
]
_NEVER_SENT = ("failed to connect", "connection refused", "handshak", " resolution", "errors resolving")


class GrpcWire:
    """See :class:`~.wire.Wire`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._headers = dict(address.headers)
        self._client = client.InferenceServerClient(
            address.authority,
            ssl=address.tls,
            root_certificates=str(address.ca) if address.ca else None,
            channel_args=_CHANNEL,
        )

    def infer(self, call: Inference, timeout: float) -> Arrays:
        """Compute the outputs, arrays (B, ...)."""
        inputs = infer_inputs(client.InferInput, call)
        outputs = [client.InferRequestedOutput(name) for name in call.outputs]
        result = self._ask(self._client.infer, timeout, call.graph, inputs, model_version=call.version, outputs=outputs)
        return {name: result.as_numpy(name) for name in call.outputs}

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """The configuration of a graph that is ready, as JSON."""
        answer = self._ask(self._client.get_model_config, timeout, graph, version, as_json=True)
        return dict(answer["config"])

    def register(self, region: str, key: str, size: int, timeout: float) -> None:
        """Have the server map a shared-memory object of this host."""
        self._ask(self._client.register_system_shared_memory, timeout, region, key, size)

    def unregister(self, region: str, timeout: float) -> None:
        """Have the server unmap it."""
        self._ask(self._client.unregister_system_shared_memory, timeout, region)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _ask(self, method: Callable[..., Any], timeout: float, *args: Any, **options: Any) -> Any:
        try:
            return method(*args, headers=self._headers, client_timeout=timeout, **options)
        except InferenceServerException as error:
            raise self._fault(str(error.status()).removeprefix("StatusCode."), str(error.message()), timeout) from error

    def _fault(self, code: str, message: str, timeout: float) -> SessionError:
        match code:
            case "DEADLINE_EXCEEDED":
                return wire.make_timeout(self._address, timeout)
            case "UNAVAILABLE" if any(words in message.lower() for words in _NEVER_SENT):
                return wire.make_not_reached(self._address, message)
            case "UNAVAILABLE" if "protocol is restricted" in message:  # Triton's code for a missing key
                return wire.make_access_error(self._address, message)
            case "UNAVAILABLE" | "CANCELLED":
                return wire.make_unavailable(self._address, message)
            case "UNAUTHENTICATED" | "PERMISSION_DENIED":
                return wire.make_access_error(self._address, message)
            case _:
                return wire.make_server_error(self._address, message)
