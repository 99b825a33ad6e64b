"""ONNX Runtime in process."""

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
    """Whether this ONNX Runtime was built for CUDA; its libraries may still not load."""
    return _PROVIDERS["cuda"] in ort.get_available_providers()


_BROKEN = ["FuseFp16InitializerToFp32NodeTransformer"]
"""Steps of ONNX Runtime's optimiser: this one ends the process (1.32) on some graphs that compute in float16, on a CPU.
Weights that are only stored so are cast by another step."""

_SPIN_US = 100
"""How long a thread of a graph looks for its next piece of work before it sleeps. Where others want the cores, ONNX
Runtime's own patience takes up to half as much CPU again; where nobody does, a lone query takes as long either way."""

_OF_PIXELS = 4  # dimensions of (B, H, W, 3)

_LARGE = 2**30
"""Bytes of a graph's files from which on it is not loaded a second time: a container may have no room for it."""

_PART, _PIXELS = 16, 4
"""Rows from which on a part of a batch has a thread of its own, and those of pixels, which cost more. Threads that
share the products of a graph wait for each other at the end of each; two that have half of the rows do not."""


@cache
def warn_of_cpu(why: str) -> None:
    """Warn once in a process that a GPU may be there and is not used."""
    log.warning("the models run on the CPU: %s", why)


class OrtSession:
    """One graph on one execution provider, without fallback to another."""

    def __init__(self, path: Path, settings: Settings, *, logs: bool = True) -> None:
        """Load a graph.

        Args:
            path: the graph.
            settings: provider, its options and threads.
            logs: whether ONNX Runtime logs a run that fails, which its exception tells, too.
        """
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
        self._path, self._settings, self._logs = path, settings, logs
        self._session = self._load(settings.threads or fewer_cores())
        self._check_provider(provider, path)
        taken = self._session.get_provider_options()[provider]
        if dropped := sorted(set(settings.provider_options) - set(taken)):
            raise SessionError(f"{provider} does not know the provider options {', '.join(dropped)}: leave them out")
        self._names = [output.name for output in self._session.get_outputs()]
        self._threads = (settings.threads or cores()) if settings.provider == "cpu" else 1
        self._single: ort.InferenceSession | None = None  # the graph once more, on one thread
        self._pool: ThreadPoolExecutor | None = None
        self._once = threading.Lock()  # taken by who makes these two, and not given back

    def _load(self, threads: int) -> ort.InferenceSession:
        settings, options = self._settings, ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3 if self._logs else 4
        # threads spin while a graph runs, which is faster, and not after it, while others need the processor
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        try:
            return ort.InferenceSession(
                str(self._path),
                options,
                providers=[(_PROVIDERS[settings.provider], dict(settings.provider_options))],
                disabled_optimizers=_BROKEN,
            )
        except Exception as error:  # onnxruntime raises a class of its own per failure, without a common base
            raise SessionError(
                f"cannot load {self._path}: {error}. Export the model again: reco model export --help"
            ) from error

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
            first = next(iter(inputs.values()), np.empty(0))  # the graph says what is missing
            parts = min(self._threads, len(first) // (_PIXELS if first.ndim == _OF_PIXELS else _PART))
            values = (parts > 1 and self._run_parts(inputs, parts)) or self._session.run(self._names, dict(inputs))
        except Exception as error:  # see above
            raise SessionError(f"{self._path} failed on {describe_inputs(inputs)}: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def _run_parts(self, inputs: Mapping[str, npt.NDArray[Any]], parts: int) -> list[npt.NDArray[Any]]:
        """All outputs, each thread with rows of its own; none where rows or memory forbid."""
        if len(lengths := {len(array) for array in inputs.values()}) > 1:
            return []  # it is told by the graph
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
            except RuntimeError:  # the system refuses threads, or the process ends
                others.append(Future())
                others[-1].set_result(session.run(self._names, cut))
        answers = [session.run(self._names, cuts[0]), *(other.result() for other in others)]
        return [np.concatenate(output) for output in zip(*answers, strict=True)]

    def _open_single(self) -> None:
        """Once, and not of a large graph: it needs as much memory as the first."""
        size = sum(file.stat().st_size for file in self._path.parent.iterdir() if file.is_file())
        if size >= _LARGE:
            log.info("threads share the products of large batches: %s is too large to be loaded twice", self._path)
            return
        try:
            single = self._load(1)
        except SessionError as error:
            log.warning("threads share the products of large batches: %s", error)
            return
        self._pool, self._single = ThreadPoolExecutor(self._threads - 1, "rows"), single
