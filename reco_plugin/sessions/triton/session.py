"""One graph on a Triton server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...artifact import Artifact
from ...config import Settings
from ...errors import SessionError
from ..base import Arrays, describe_inputs
from .address import address_of
from .ports import Ports, read_config
from .server import Inference, TritonLine, connect

VERSION = "1"
"""The graph's version folder in a model folder."""
_CHECK_S = 5.0
"""Even a busy server answers at once which graphs it has."""


class TritonSession:
    """See :class:`~reco_plugin.sessions.base.Session`; safe to call from several threads.

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
