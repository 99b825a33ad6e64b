"""OpenVINO in process."""

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
    """One for the process, never dropped.

    A core gives the thread a stack for signals, and takes it away when it is dropped. Of two that lived at the same
    time, the thread is left with one that is gone (OpenVINO 2026.4): the next signal, a Ctrl-C or a SIGTERM, ends the
    process with a segmentation fault.
    """
    return ov.Core()


def fastest_arithmetic() -> Arithmetic:
    """bf16 where the processor multiplies it, else float32."""
    return "bf16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVinoSession:
    """One graph on the CPU. Shapes stay dynamic: a new batch size or length costs milliseconds, once."""

    def __init__(self, path: Path, settings: Settings, arithmetic: Arithmetic = "f32") -> None:
        # Pinned, the threads of two processes share one core and leave the other idle.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": arithmetic, "ENABLE_CPU_PINNING": False}
        if threads := settings.threads or fewer_cores():
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            graph = _core().read_model(path)
        except Exception as error:  # openvino raises RuntimeError for most failures, but promises no class
            raise SessionError(
                f"cannot load {path}: {_line(error)}. Export the model again: reco model export --help"
            ) from error
        try:
            self._model = _core().compile_model(graph, "CPU", {**options, **settings.provider_options})
        except Exception as error:  # see above
            raise SessionError(
                f"OpenVINO cannot run {path} with {settings.provider_options}: {_line(error)}"
            ) from error
        self._path = path
        # The graph as read, since compiling gives a port further names.
        self._inputs = {port.any_name: port for port in graph.inputs}
        self._outputs = [port.any_name for port in graph.outputs]
        self._idle: deque[Any] = deque()  # requests hold buffers: one for each call at a time

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        try:
            self._check(inputs)
            request = self._request()
            values = request.infer(dict(inputs), share_inputs=True).to_tuple()  # copies: the buffers are used again
        except Exception as error:  # see above
            raise SessionError(f"{self._path} failed on {describe_inputs(inputs)}: {_line(error)}") from error
        self._idle.append(request)
        return dict(zip(self._outputs, values, strict=True))

    def _request(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            return self._model.create_infer_request()

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """OpenVINO converts types, and takes the last call's array for a missing one."""
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"the inputs are {', '.join(self._inputs)}")
        for name, port in self._inputs.items():
            dtype, shape = port.get_element_type().to_dtype(), port.get_partial_shape()
            if inputs[name].dtype != dtype or not shape.compatible(ov.PartialShape(list(inputs[name].shape))):
                raise ValueError(f"{name} must be {dtype}{shape}")


def _line(error: Exception) -> str:
    """OpenVINO's messages have several lines, with the places in its sources."""
    return " ".join(str(error).split())
