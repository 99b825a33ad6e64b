"""The services: how each is started, asked, and what its processes take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import processes
from ..processes import ask, bytes_of, free_port, seconds_of
from ..service import started as ours_started
from ..stand_in import server as stand_in
from .checkpoint import Made
from .dialects import Dialect

ROOT = Path(__file__).resolve().parents[2]
INFINITY, SENTENCE, TRITON = "infinity", "sentence-transformers", "Triton"
AUTO = "ours, fp32, auto"
OURS = {"ours, fp32": "fp32", AUTO: "fp32", "ours, int8": "int8"}
"""Ours, and the model folder of each: with the default engine, and with the one that ``provider = "auto"`` finds."""
NAMES = (INFINITY, SENTENCE, TRITON, *OURS)
_START_S = 180.0


class NotHere(Exception):
    """A service that cannot run on this machine, and why."""


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Attributes:
        name: of :data:`NAMES`.
        dialect: how it is asked.
        port: on this machine.
        pid: of its first process.
    """

    name: str
    dialect: Dialect
    port: int
    pid: int

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far, of all its processes."""
        return seconds_of(self.pid)

    @property
    def ram(self) -> int:
        """Bytes that its processes take, shared pages divided among them."""
        return bytes_of(self.pid)


@contextmanager
def started(name: str, made: Made, python: Path, threads: int, folder: Path) -> Iterator[Running]:
    """Run a service until the block ends; it answers when the block begins.

    Args:
        name: of :data:`NAMES`.
        made: the weights.
        python: of the environment of the others.
        threads: of its arithmetic.
        folder: for logs.

    Raises:
        NotHere: it cannot run here.
        RuntimeError: it ended, or did not answer in time; with the end of its log.
    """
    cores = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    log = folder / f"{name.replace(', ', '-')}.log"
    if name == TRITON:
        with _triton(made, folder, threads) as running:
            yield running
        return
    if name in OURS:
        (memory := folder / f"memory of {name}").mkdir()
        flags = ["--log-level", "info", "--no-page"]
        with (
            _variables(cores | {"RECO_THREADS": str(threads), "RECO_PROVIDER": "auto" if name == AUTO else "cpu"}),
            ours_started(made.folder / OURS[name], memory, log, flags) as service,
        ):
            yield Running(name, "ours", int(service.url.rpartition(":")[2]), service.pid)
        return
    port = free_port()
    if name == INFINITY:
        command = [str(python.parent / "infinity_emb"), "v2", "--model-id", str(made.checkpoint), "--device", "cpu"]
        command += ["--served-model-name", "clip", "--engine", "torch", "--host", "127.0.0.1", "--port", str(port)]
        told: Running = Running(name, "infinity", port, 0)
    else:
        command = [str(python), "-m", "uvicorn", "sentence_service:app", "--port", str(port), "--log-level", "warning"]
        command += ["--app-dir", str(Path(__file__).parent)]
        told = Running(name, "plain", port, 0)
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    environment = {**os.environ, **cores, **offline, "CHECKPOINT": str(made.checkpoint)}
    environment.pop("PYTHONPATH", None)  # this repository is not the others'
    answers = partial(ask, f"http://127.0.0.1:{port}/health")
    with processes.running(name, command, log, answers, _START_S, patience_s=20, env=environment) as pid:
        yield replace(told, pid=pid)


@contextmanager
def _variables(some: Mapping[str, str]) -> Iterator[None]:
    """Variables of this process, for those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in some}
    os.environ.update(some)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _triton(made: Made, folder: Path, threads: int) -> Iterator[Running]:
    """Triton with our repository and its model ``reco``."""
    model = made.folder / "fp32"
    with stand_in("http") as memory:
        variables = {"RECO_MODEL": str(model), "RECO_MEMORY": memory}
        repositories = [model, ROOT / "deploy" / "triton"]
        with triton_of_the_tests(repositories, folder, threads=threads, environment=variables) as server:
            assert server.process is not None
            yield Running(TRITON, "kserve", int(server.http.rpartition(":")[2]), server.process.pid)


@contextmanager
def triton_of_the_tests(repositories: Sequence[Path], folder: Path, *, threads: int, **options: Any) -> Iterator[Any]:
    """The Triton server of the tests, whose graphs run in a Python backend on so many threads; its files in a folder.

    Raises:
        NotHere: it is not installed.
    """
    support = ROOT / "tests" / "sessions" / "triton" / "support"
    sys.path.append(str(support))
    try:
        from triton_server import NoServerHere, TritonServer, Wheel
    finally:
        sys.path.remove(str(support))
    try:
        wheel = Wheel.find()
    except NoServerHere as error:
        raise NotHere(str(error)) from error
    environment = {"TRITON_TEST_THREADS": str(threads), **options.pop("environment", {})}
    backends, log = wheel.assemble(folder / "backends"), folder / "triton.log"
    server = TritonServer(wheel, backends, repositories, log, environment=environment, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
