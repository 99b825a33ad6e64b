"""Graphs in process, by ONNX Runtime."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...cpu import cores, fewer_cores
from ...errors import SessionError, importing
from ...settings import Settings
from .base import Arrays, describe_inputs

with importing("onnxruntime", "cpu", "running a model in process"):
    import onnxruntime as ort

log = logging.getLogger(__name__)
VERSION: str = ort.__version__
ON_CPU, ON_CUDA = "ONNX Runtime on the CPU", "ONNX Runtime on CUDA"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def has_cuda() -> bool:
    """Whether this ONNX Runtime was built for CUDA. Loading the CUDA libraries may still fail."""
    return _PROVIDERS["cuda"] in ort.get_available_providers()


_DISABLED_OPTIMIZERS = ["FuseFp16InitializerToFp32NodeTransformer"]
"""In ONNX Runtime 1.32, this optimizer crashes the process on some float16 graphs on a CPU."""

_SPIN_US = 100
"""How long an idle thread of a graph spins before it sleeps. With the default of ONNX Runtime, busy machines need up to
50 % more CPU, and a single query is no faster."""

_PIXEL_DIMS = 4  # dimensions of (B, H, W, 3)

_MAX_COPY_BYTES = 2**30
"""Size of a graph's files from which on it is not loaded a second time, to save memory."""

_MIN_ROWS, _MIN_IMAGES = 16, 4
"""Rows, or images, that each thread gets at least when a batch is split between threads. That is faster than threads
which share each product of a graph, since these wait for each other after each product."""


@cache
def warn_of_cpu(reason: str) -> None:
    """Log once in a process that a GPU may be unused."""
    log.warning("the models run on the CPU: %s", reason)


class OrtSession:
    """One graph on one execution provider. It never falls back to another provider."""

    def __init__(self, path: Path, settings: Settings, *, logs: bool = True) -> None:
        """Load a graph.

        Args:
            path: the ONNX file.
            settings: provider, its options, and threads.
            logs: whether ONNX Runtime logs a failed run, besides raising an exception.
        """
        provider = _PROVIDERS[settings.provider]
        self.any_length = settings.provider == "cpu"
        """Whether each text may run at its own length, which is faster on a CPU. Elsewhere texts are padded to few
        lengths: Triton merges requests of equal length only, and a GPU was not measured."""
        if provider not in ort.get_available_providers():
            raise SessionError(
                f"provider {settings.provider!r} is not available: onnxruntime {ort.__version__} has only "
                f"{', '.join(ort.get_available_providers())}. For CUDA: pip uninstall onnxruntime && "
                "pip install 'reco-plugin[gpu]'; or choose provider='cpu'."
            )
        self._path, self._settings, self._logs = path, settings, logs
        self._session = self._load(settings.threads or fewer_cores())
        self._check_provider(provider, path)
        known = self._session.get_provider_options()[provider]
        if unknown := sorted(set(settings.provider_options) - set(known)):
            raise SessionError(f"{provider} does not know the provider options {', '.join(unknown)}: leave them out")
        self._names = [output.name for output in self._session.get_outputs()]
        self._threads = (settings.threads or cores()) if settings.provider == "cpu" else 1
        self._single: ort.InferenceSession | None = None  # the same graph on one thread
        self._pool: ThreadPoolExecutor | None = None
        self._once = threading.Lock()  # never released by the thread that opens the second session

    def _load(self, threads: int) -> ort.InferenceSession:
        settings, options = self._settings, ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3 if self._logs else 4
        # threads spin while a graph runs, which is faster, but not after it
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        try:
            return ort.InferenceSession(
                str(self._path),
                options,
                providers=[(_PROVIDERS[settings.provider], dict(settings.provider_options))],
                disabled_optimizers=_DISABLED_OPTIMIZERS,
            )
        except Exception as error:  # its exceptions have no common base
            raise SessionError(
                f"cannot load {self._path}: {error}. Export the model again: reco model export --help"
            ) from error

    def _check_provider(self, expected: str, path: Path) -> None:
        used = self._session.get_providers()
        if used[0] != expected:
            raise SessionError(
                f"{path} needs {expected}, but ONNX Runtime chose {', '.join(used)}, since the libraries of {expected} "
                "(CUDA, cuDNN) did not load. Install them or choose provider='cpu'."
            )

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute all outputs by name; arrays are (B, ...)."""
        try:
            first = next(iter(inputs.values()), np.empty(0))  # the graph reports missing inputs
            parts = min(self._threads, len(first) // (_MIN_IMAGES if first.ndim == _PIXEL_DIMS else _MIN_ROWS))
            values = (parts > 1 and self._run_parts(inputs, parts)) or self._session.run(self._names, dict(inputs))
        except Exception as error:  # as above
            raise SessionError(f"{self._path} failed on {describe_inputs(inputs)}: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def _run_parts(self, inputs: Mapping[str, npt.NDArray[Any]], parts: int) -> list[npt.NDArray[Any]]:
        """Compute all outputs, some rows in each thread; empty if the batch or the graph cannot be split."""
        if len(lengths := {len(array) for array in inputs.values()}) > 1:
            return []  # the graph reports it
        (rows,) = lengths
        if self._once.acquire(blocking=False):
            self._open_single()
        session, pool = self._single, self._pool
        if session is None or pool is None:
            return []
        ends = [rows * part // parts for part in range(parts + 1)]
        cuts = [{name: array[a:b] for name, array in inputs.items()} for a, b in itertools.pairwise(ends)]
        others: list[Future[Any]] = []
        for cut in cuts[1:]:
            try:
                others.append(pool.submit(session.run, self._names, cut))
            except RuntimeError:  # no more threads, or the interpreter exits
                others.append(Future())
                others[-1].set_result(session.run(self._names, cut))
        answers = [session.run(self._names, cuts[0]), *(other.result() for other in others)]
        return [np.concatenate(output) for output in zip(*answers, strict=True)]

    def _open_single(self) -> None:
        """Load the graph a second time, for one thread, unless it is large."""
        size = sum(file.stat().st_size for file in self._path.parent.iterdir() if file.is_file())
        if size >= _MAX_COPY_BYTES:
            log.info("threads share the products of large batches: %s is too large to be loaded twice", self._path)
            return
        try:
            single = self._load(1)
        except SessionError as error:
            log.warning("threads share the products of large batches: %s", error)
            return
        self._pool, self._single = ThreadPoolExecutor(self._threads - 1, "rows"), single
