"""Graphs in process, by OpenVINO."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from ...cpu import fewer_cores
from ...errors import SessionError, importing
from ...settings import Settings
from .base import Arrays, describe_inputs

with importing("openvino", "openvino", "running a model with OpenVINO"):
    import openvino as ov

Arithmetic = Literal["f32", "bf16"]


@cache
def _core() -> Any:
    """Return the only core of the process.

    With two cores, OpenVINO 2026.4 leaves the thread with a signal stack that was freed. The next signal, such as
    Ctrl-C or SIGTERM, then ends the process with a segmentation fault.
    """
    return ov.Core()


def fastest_arithmetic() -> Arithmetic:
    """Return bf16 if the processor supports it, else f32."""
    return "bf16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVinoSession:
    """One graph on the CPU. A new batch size or length costs milliseconds once, since shapes are dynamic."""

    def __init__(self, path: Path, settings: Settings, arithmetic: Arithmetic = "f32") -> None:
        # pinned threads of two processes would share one core and leave the others idle
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": arithmetic, "ENABLE_CPU_PINNING": False}
        if threads := settings.threads or fewer_cores():
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            graph = _core().read_model(path)
        except Exception as error:  # OpenVINO documents no class of exceptions
            raise SessionError(
                f"cannot load {path}: {_line(error)}. Export the model again: reco model export --help"
            ) from error
        try:
            self._model = _core().compile_model(graph, "CPU", {**options, **settings.provider_options})
        except Exception as error:  # as above
            raise SessionError(
                f"OpenVINO cannot run {path} with {settings.provider_options}: {_line(error)}"
            ) from error
        self._path = path
        # names from the graph as read, since compiling adds further names
        self._inputs = {port.any_name: port for port in graph.inputs}
        self._outputs = [port.any_name for port in graph.outputs]
        self._idle: deque[Any] = deque()  # infer requests, each with buffers for one call at a time

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        try:
            self._check(inputs)
            request = self._request()
            values = request.infer(dict(inputs), share_inputs=True).to_tuple()  # to_tuple copies the buffers
        except Exception as error:  # as above
            raise SessionError(f"{self._path} failed on {describe_inputs(inputs)}: {_line(error)}") from error
        self._idle.append(request)
        return dict(zip(self._outputs, values, strict=True))

    def _request(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._model.create_infer_request()

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Check names, types and shapes. OpenVINO would convert types, and reuse the last array for a missing input."""
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"the inputs are {', '.join(self._inputs)}")
        for name, port in self._inputs.items():
            dtype, shape = port.get_element_type().to_dtype(), port.get_partial_shape()
            if inputs[name].dtype != dtype or not shape.compatible(ov.PartialShape(list(inputs[name].shape))):
                raise ValueError(f"{name} must be {dtype}{shape}")


def _line(error: Exception) -> str:
    """Return a message of OpenVINO, which has several lines, as one line."""
    return " ".join(str(error).split())
