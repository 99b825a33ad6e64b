"""Graphs on a Triton server, over gRPC. All sessions of a process share one connection per server."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import SessionError, SessionOverloaded, SessionTimeout, SessionUnavailable, importing
from ...settings import Settings
from ..model_folder import Artifact
from .base import Arrays, describe_inputs
from .triton_address import Address, Ports, address_of, read_config

with importing("tritonclient", "triton", "running models on a Triton server"):
    import tritonclient.grpc as client
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # reconnect at once instead of after up to two minutes,
    ("grpc.max_reconnect_backoff_ms", 100),  # sooner than the pauses between attempts below
    ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name, the timeout of one connection attempt
]
_NEVER_SENT = ("failed to connect", "connection refused", "handshak", " resolution", "errors resolving")
_QUEUE_IS_FULL = "maximum queue size"
_HINT = "Does it run, and is this its port for gRPC (usually 8001)?"
_PAUSES_S = (0.05, 0.2)
"""Pauses before the second and the third attempt; only a request that was never sent is retried."""
VERSION = "1"
"""Name of a graph's version folder in a model folder."""
_CHECK_S = 5.0
"""Timeout of a check, which even a busy server answers at once."""


class NotReached(SessionUnavailable):
    """The server cannot be reached, and the request was never sent, so it can be retried."""


class AccessRefused(SessionError):
    """The server or a proxy refuses the credentials."""


@dataclass(frozen=True)
class Inference:
    """One request of an inference."""

    graph: str
    version: str
    inputs: Mapping[str, npt.NDArray[Any]]  # (B, ...) by name
    outputs: tuple[str, ...]


class TritonConnection:
    """A connection, safe to use from several threads; it is closed with its last session, or when the process ends."""

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
            SessionTimeout: the server did not answer in time.
        """
        inputs = [_input(name, array) for name, array in call.inputs.items()]
        outputs = [client.InferRequestedOutput(name) for name in call.outputs]
        result = self._call(
            self._client.infer, timeout, call.graph, inputs, model_version=call.version, outputs=outputs
        )
        return {name: result.as_numpy(name) for name in call.outputs}

    def config(self, graph: str, version: str, timeout: float) -> dict[str, Any]:
        """Return the configuration of a graph that is ready, as JSON; errors as in :meth:`infer`."""
        answer = self._call(self._client.get_model_config, timeout, graph, version, as_json=True)
        return dict(answer["config"])

    def _call(self, method: Callable[..., Any], timeout: float, *args: Any, **options: Any) -> Any:
        """Call a method of the client; a request that was never sent is retried until the deadline."""
        until, pauses = time.monotonic() + timeout, list(_PAUSES_S)
        while True:
            left = max(until - time.monotonic(), 1e-3)
            try:
                return method(*args, headers=self._headers, client_timeout=left, **options)
            except InferenceServerException as error:
                failure = self._error_of(str(error.status()).removeprefix("StatusCode."), str(error.message()), timeout)
                if not isinstance(failure, NotReached) or not pauses or until - time.monotonic() <= pauses[0]:
                    raise failure from error
            time.sleep(pauses.pop(0))

    def _error_of(self, code: str, message: str, timeout: float) -> SessionError:
        url = self._address.url
        kind: type[SessionError] = SessionError
        text = f"the Triton server at {url} reports: {message}"
        if code == "DEADLINE_EXCEEDED":
            kind = SessionTimeout
            text = (
                f"the Triton server at {url} did not answer within {timeout:.3g} s: it is busy or slow, "
                "or another server is at this address. Raise triton_timeout_s, lower batch_size, or add instances."
            )
        elif code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "protocol is restricted" in message:
            kind = AccessRefused  # for a missing key, Triton reports UNAVAILABLE
            text = (
                f"the Triton server at {url} refuses access ({message}): set triton_headers, for example "
                '{"authorization": "Bearer …"}, to what it expects'
            )
        elif code == "UNAVAILABLE" and any(words in message.lower() for words in _NEVER_SENT):
            kind, text = NotReached, f"no Triton server can be reached at {url} ({message}). {_HINT}"
            if self._address.tls:
                text += " With TLS: does the certificate name this host, and is its authority in triton_ca?"
        elif code == "UNAVAILABLE" and _QUEUE_IS_FULL in message:
            kind = SessionOverloaded
            text = (
                f"the queue of the Triton server at {url} is full ({message}): send fewer requests at once, raise "
                "max_queue_size, or add instances"
            )
        elif code in ("UNAVAILABLE", "CANCELLED"):
            kind = SessionUnavailable
            text = f"the Triton server at {url} did not answer ({message}): was it stopped or restarted?"
        return kind(text)


_open: weakref.WeakValueDictionary[Address, TritonConnection] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def connect(address: Address) -> TritonConnection:
    """Return the connection to a server, opened if necessary."""
    with _lock:
        server = _open.get(address)
        if server is None:
            server = _open[address] = TritonConnection(address)
        return server


def _input(name: str, array: npt.NDArray[Any]) -> Any:
    if (kind := np_to_triton_dtype(array.dtype)) is None:
        raise SessionError(f"Triton has no type for {name!r}, an array of {array.dtype}")
    tensor = client.InferInput(name, list(array.shape), kind)
    tensor.set_data_from_numpy(array)
    return tensor


class TritonSession:
    """One graph on a Triton server; safe to call from several threads.

    A request has at most ``max_batch`` rows and ``timeout`` seconds. More rows go in several requests, in sequence.
    """

    def __init__(
        self, server: TritonConnection, graph: str, outputs: tuple[str, ...], *, max_batch: int, timeout: float
    ) -> None:
        self._server, self._graph, self._outputs = server, graph, outputs
        self._max_batch, self._timeout = max(max_batch, 1), timeout

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        rows = self._rows(inputs)
        if not rows:  # Triton refuses empty batches: send one row to get the shapes
            one = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in inputs.items()}
            return {name: array[:0] for name, array in self._send(one).items()}
        if rows <= self._max_batch:
            return self._send(inputs)
        starts = range(0, rows, self._max_batch)
        parts = [self._send({name: a[at : at + self._max_batch] for name, a in inputs.items()}) for at in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _rows(self, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
        rows = {len(array) if array.ndim else None for array in inputs.values()}
        if len(rows) != 1 or None in rows:
            raise SessionError(f"{self._graph} failed on {describe_inputs(inputs)}: the inputs must have the same rows")
        return int(rows.pop() or 0)

    def _send(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        call = Inference(self._graph, VERSION, inputs, self._outputs)
        try:
            return self._server.infer(call, self._timeout)
        except SessionError as error:
            raise type(error)(f"{self._graph} failed on {describe_inputs(inputs)}: {error}") from error


def open_triton(artifact: Artifact, graph: str, settings: Settings) -> TritonSession:
    """Open a graph on the server of ``triton_url``, and check that it is the graph of the model folder.

    Raises:
        ConfigError: a setting of Triton is invalid.
        SessionUnavailable: the server cannot be reached.
        SessionTimeout: the server did not answer in time.
        SessionError: the server does not serve this graph, or serves another one under its name.
        MissingExtra: the Triton client is not installed.
    """
    address = address_of(settings)
    expected = read_config(artifact.folder / graph / "config.pbtxt")
    server = connect(address)
    try:
        config = server.config(graph, VERSION, settings.triton_timeout_s)
    except SessionError as error:
        is_missing = type(error) is SessionError  # the server answers, but does not have the graph
        hint = f".{_hint(artifact)}" if is_missing else ""
        raise type(error)(f"{graph} cannot be opened: {error}{hint}") from error
    served = Ports.of(config)
    _compare(artifact, graph, expected, served, address.url)
    return TritonSession(
        server,
        graph,
        tuple(port.name for port in expected.outputs),
        max_batch=served.max_batch,
        timeout=settings.triton_timeout_s,
    )


def check_triton(graph: str, settings: Settings) -> None:
    """Check that the server of ``triton_url`` has a graph ready, within 5 s or ``triton_timeout_s`` if that is less.

    Raises:
        ConfigError: a setting of Triton is invalid.
        MissingExtra: the Triton client is not installed.
        SessionUnavailable: the server cannot be reached.
        SessionTimeout: the server did not answer in time.
        SessionError: the server does not serve this graph.
    """
    connect(address_of(settings)).config(graph, VERSION, min(settings.triton_timeout_s, _CHECK_S))


def _compare(artifact: Artifact, graph: str, expected: Ports, served: Ports, url: str) -> None:
    if (served.inputs, served.outputs) != (expected.inputs, expected.outputs):
        raise SessionError(
            f"{graph} differs: the server at {url} has {served}, the model folder {artifact.folder} has {expected}."
            f"{_hint(artifact)}"
        )
    checksum = artifact.manifest.graphs[graph].sha256
    if served.checksum not in {None, checksum}:
        raise SessionError(
            f"{graph} differs: its sha256 is {str(served.checksum)[:12]}… on the server at {url} and {checksum[:12]}… "
            f"in the model folder {artifact.folder}.{_hint(artifact)}"
        )


def _hint(artifact: Artifact) -> str:
    return (
        f" Serve this folder (tritonserver --model-repository={artifact.folder}), or set model to the folder that "
        "is served."
    )
