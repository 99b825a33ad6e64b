"""Graphs on a Triton server, over gRPC: one connection per server, which all sessions of the process share."""

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
    ("grpc.initial_reconnect_backoff_ms", 100),  # reconnect at once, not after two minutes:
    ("grpc.max_reconnect_backoff_ms", 100),  # shorter than our own pauses between attempts
    ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the timeout of one connection attempt
]
_NEVER_SENT = ("failed to connect", "connection refused", "handshak", " resolution", "errors resolving")
_QUEUE_IS_FULL = "maximum queue size"
_HINT = "Does it run, and is this its port for gRPC (usually 8001)?"
_PAUSES_S = (0.05, 0.2)
"""Before the second and the third attempt; only a request that was never sent is retried."""
VERSION = "1"
"""The graph's version folder in a model folder."""
_CHECK_S = 5.0
"""Even a busy server answers at once which graphs it has."""


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


class TritonSession:
    """See :class:`~reco_plugin.encoders.runtimes.base.Session`; safe to call from several threads.

    A request has at most ``max_batch`` rows, and ``timeout`` seconds; more rows are sent in several, one after another.
    """

    def __init__(
        self, server: TritonLine, graph: str, outputs: tuple[str, ...], *, max_batch: int, timeout: float
    ) -> None:
        self._server, self._graph, self._outputs = server, graph, outputs
        self._max_batch, self._timeout = max(max_batch, 1), timeout

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        rows = self._rows(inputs)
        if not rows:  # Triton refuses empty batches: one row tells the shapes, and is dropped
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
    """Open a graph on the server of ``triton_url``, and check that it is the one of the model folder.

    Raises:
        ConfigError: a setting of Triton cannot be used.
        SessionUnavailable: the server cannot be reached.
        SessionTimeout: it did not answer in time.
        SessionError: it does not serve this graph, or another one under its name.
        MissingExtra: the Triton client is not installed.
    """
    address = address_of(settings)
    expected = read_config(artifact.folder / graph / "config.pbtxt")
    server = connect(address)
    try:
        config = server.config(graph, VERSION, settings.triton_timeout_s)
    except SessionError as error:
        served = type(error) is SessionError  # the server answers, but does not have it
        way_out = f".{_way_out(artifact)}" if served else ""
        raise type(error)(f"{graph} cannot be opened: {error}{way_out}") from error
    found = Ports.of(config)
    _compare(artifact, graph, expected, found, address.url)
    return TritonSession(
        server,
        graph,
        tuple(port.name for port in expected.outputs),
        max_batch=found.max_batch,
        timeout=settings.triton_timeout_s,
    )


def check_triton(graph: str, settings: Settings) -> None:
    """Check that the server of ``triton_url`` has a graph ready; over the connection of open sessions.

    Raises:
        ConfigError, MissingExtra: a setting of Triton cannot be used; its client is not installed.
        SessionUnavailable, SessionTimeout: no answer, or none within 5 s, or ``triton_timeout_s`` if that is less.
        SessionError: the server does not serve this graph.
    """
    connect(address_of(settings)).config(graph, VERSION, min(settings.triton_timeout_s, _CHECK_S))


def _compare(artifact: Artifact, graph: str, expected: Ports, found: Ports, url: str) -> None:
    if (found.inputs, found.outputs) != (expected.inputs, expected.outputs):
        raise SessionError(
            f"{graph} is not the same on both sides: the server at {url} has {found}, the model folder "
            f"{artifact.folder} has {expected}.{_way_out(artifact)}"
        )
    checksum = artifact.manifest.graphs[graph].sha256
    if found.checksum not in {None, checksum}:
        raise SessionError(
            f"{graph} is not the same on both sides: the server at {url} has the graph with sha256 "
            f"{str(found.checksum)[:12]}…, the model folder {artifact.folder} that with {checksum[:12]}…."
            f"{_way_out(artifact)}"
        )


def _way_out(artifact: Artifact) -> str:
    return (
        f" Serve this folder (tritonserver --model-repository={artifact.folder}), or set model to the folder that "
        "is served."
    )
