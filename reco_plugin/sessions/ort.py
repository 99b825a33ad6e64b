"""ONNX Runtime in process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..config import Settings
from ..errors import SessionError, importing
from .base import Arrays, describe_inputs

with importing("onnxruntime", "cpu", "running a model in process"):
    import onnxruntime as ort

log = logging.getLogger(__name__)
VERSION: str = ort.__version__
ON_CPU, ON_CUDA = "ONNX Runtime on the CPU", "ONNX Runtime on CUDA"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def has_cuda() -> bool:
    """Whether this ONNX Runtime was built for CUDA; its libraries may still not load."""
    return _PROVIDERS["cuda"] in ort.get_available_providers()


_BROKEN = ["FuseFp16InitializerToFp32NodeTransformer"]
"""Steps of ONNX Runtime's optimiser: this one ends the process (1.32) on some graphs that compute in float16, on a CPU.
Weights that are only stored so are cast by another step."""


@cache
def warn_of_cpu(why: str) -> None:
    """Warn once in a process that a GPU may be there and is not used."""
    log.warning("the models run on the CPU: %s", why)


class OrtSession:
    """One graph on one execution provider, without fallback to another."""

    def __init__(self, path: Path, settings: Settings, *, logs: bool = True) -> None:
        """Load a graph; without ``logs``, a run that fails is told by its exception alone."""
        provider = _PROVIDERS[settings.provider]
        self.any_length = settings.provider == "cpu"
        """Whether texts may run at their own length. A server merges requests of equal length only, OpenVINO keeps
        memory for each new shape, two megabytes of ViT-B/32, and on a GPU, where a call weighs more beside its tokens,
        what more calls bring is not measured: there they get few lengths."""
        if provider not in ort.get_available_providers():
            raise SessionError(
                f"provider {settings.provider!r} was asked for, but this onnxruntime {ort.__version__} has only "
                f"{', '.join(ort.get_available_providers())}. For CUDA: pip uninstall onnxruntime && "
                "pip install 'reco-plugin[gpu]'; or choose provider='cpu'."
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.enable_cpu_mem_arena = settings.arena
        options.log_severity_level = 3 if logs else 4
        # threads spin while a graph runs, which is faster, and not after it, while others need the processor
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = ort.InferenceSession(
                str(path),
                options,
                providers=[(provider, dict(settings.provider_options))],
                disabled_optimizers=_BROKEN,
            )
        except Exception as error:  # onnxruntime raises a class of its own per failure, without a common base
            raise SessionError(f"cannot load {path}: {error}. Export the model again: reco export --help") from error
        self._check_provider(provider, path)
        taken = self._session.get_provider_options()[provider]
        if dropped := sorted(set(settings.provider_options) - set(taken)):
            raise SessionError(f"{provider} does not know the provider options {', '.join(dropped)}: leave them out")
        self._path, self._names = path, [output.name for output in self._session.get_outputs()]

    def _check_provider(self, wanted: str, path: Path) -> None:
        used = self._session.get_providers()
        if used[0] != wanted:
            raise SessionError(
                f"{path} was asked to run on {wanted}, but ONNX Runtime chose {', '.join(used)}: its libraries "
                "(CUDA, cuDNN) did not load. Install them or choose provider='cpu'."
            )

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        try:
            values = self._session.run(self._names, dict(inputs))
        except Exception as error:  # see above
            raise SessionError(f"{self._path} failed on {describe_inputs(inputs)}: {error}") from error
        return dict(zip(self._names, values, strict=True))
