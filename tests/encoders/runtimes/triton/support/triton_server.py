"""A real Triton server from the nvidia-pytriton wheel, without docker and without a GPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[5]
VENV = ROOT / ".venv-triton"
START_S = 60.0
_COLLISION = "boost::interprocess::lock_exception"  # of two that start, or end and start, at the same moment
STOP_S = 10.0
ENCODERS = ("clip_image", "clip_text")
"""What a Reco asks of a server by default; each other model is a process that starts, too."""


class NoServerHere(Exception):
    """The wheel is not installed, with the way to install it."""


@dataclass(frozen=True)
class Wheel:
    """Where the parts of the server lie."""

    server: Path
    libraries: Path
    backend: Path
    stub: Path

    @classmethod
    def find(cls, venv: Path = VENV) -> Wheel:
        """Look for the wheel in its environment.

        Raises:
            NoServerHere: it is not there, or not for the environment's Python.
        """
        packages = next(venv.glob("lib/python3.*/site-packages"), None)
        if packages is None or not (packages / "pytriton" / "tritonserver").is_dir():
            raise NoServerHere(f"no Triton server in {venv}: nvidia-pytriton is not installed (make install-triton)")
        parts, python = packages / "pytriton" / "tritonserver", packages.parent.name.removeprefix("python")
        stub = parts / "python_backend_stubs" / python / "triton_python_backend_stub"
        if not stub.is_file():
            raise NoServerHere(f"the Triton server in {venv} has no stub for Python {python}")
        return cls(
            parts / "bin" / "tritonserver", packages / "nvidia_pytriton.libs", parts / "backends" / "python", stub
        )

    def assemble(self, folder: Path) -> Path:
        """Write a backend directory: Python's, and ours that answers to the name ``onnxruntime``."""
        python, ours = folder / "python", folder / "onnxruntime"
        python.mkdir(parents=True)
        ours.mkdir()
        shutil.copy2(self.backend / "libtriton_python.so", python)  # a link out of the directory is refused
        (python / "triton_python_backend_utils.py").symlink_to(self.backend / "triton_python_backend_utils.py")
        (python / "triton_python_backend_stub").symlink_to(self.stub)
        shutil.copy(Path(__file__).with_name("triton_onnxruntime_backend.py"), ours / "model.py")
        return folder


@dataclass
class TritonServer:
    """One server on ports of its own; it can be killed and started again on the same ones."""

    wheel: Wheel
    backends: Path
    repositories: Sequence[Path]
    log: Path
    models: Sequence[str] = ()
    """Those to load; all when empty."""
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of this process."""
    ports: tuple[int, int, int] = field(default_factory=lambda: free_ports())
    prefix: str = field(default_factory=lambda: f"reco-test-{uuid.uuid4().hex[:12]}-")
    process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.ports[0]}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def start(self) -> TritonServer:
        """Return when every model is ready.

        Raises:
            RuntimeError: it ended or was not ready in time; with its errors.
        """
        for again in (True, True, False):
            begun = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self._command(),
                    env=self._environment(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            give_up = time.monotonic() + START_S
            while not self._ready():
                if self.process.poll() is not None or time.monotonic() > give_up:
                    break
                time.sleep(0.05)
            else:
                return self
            self.stop()
            said = self.log.read_bytes()[begun:].decode(errors="replace")
            if not (again and _COLLISION in said):
                break
        raise RuntimeError(f"the Triton server did not start, see {self.log}:\n{said}")

    def encoded(self, model: str = "clip_image") -> int:
        """Items that a model has encoded so far."""
        with urllib.request.urlopen(f"{self.http}/v2/models/{model}/stats") as reply:
            return int(json.load(reply)["model_stats"][0]["inference_count"])

    def kill(self) -> None:
        """End it as a crash would: at once, in the middle of whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._clear_up()

    def stop(self) -> None:
        """End it in order; afterwards no process and no shared-memory file of it is left."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._clear_up()

    def processes(self) -> list[int]:
        """Process ids of the server and its stubs: they share its session. A zombie has ended."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended meanwhile
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if self.process is not None and int(session) == self.process.pid and state != "Z":
                    found.append(int(stat.parent.name))
        return found

    def shared_memory(self) -> list[Path]:
        """Its files in shared memory."""
        return sorted(Path("/dev/shm").glob(f"{self.prefix}*"))

    def _clear_up(self) -> None:
        """A stub that was busy when its server was killed never ends by itself, and keeps its file."""
        give_up = time.monotonic() + STOP_S
        while (left := self.processes()) and time.monotonic() < give_up:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for path in self.shared_memory():
            path.unlink(missing_ok=True)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/v2/health/ready", timeout=1) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def _command(self) -> list[str]:
        grpc, http, metrics = self.ports
        chosen = [f"--load-model={name}" for name in self.models]
        return [
            str(self.wheel.server),
            *(f"--model-repository={folder}" for folder in self.repositories),
            f"--backend-directory={self.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.prefix}",
            "--disable-auto-complete-config",  # saves one start of the stub per model
            *(["--model-control-mode=explicit", *chosen] if chosen else []),
            f"--grpc-port={grpc}",
            f"--http-port={http}",
            f"--metrics-port={metrics}",
            "--grpc-address=127.0.0.1",
            "--http-address=127.0.0.1",
            "--allow-gpu-metrics=false",
            "--exit-timeout-secs=3",
            "--log-info=false",
            "--log-warning=false",
            *self.options,
        ]

    def _environment(self) -> dict[str, str]:
        """The stub runs the first python3 on the PATH; its libpython is the one of the Python that made the venv."""
        libraries = [str(self.wheel.libraries), sysconfig.get_config_var("LIBDIR") or ""]
        path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", "")])
        found = {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)), "PATH": path}
        return {**os.environ, **found, **self.environment}


def free_ports() -> tuple[int, int, int]:
    """Three ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        first, second, third = (each.getsockname()[1] for each in sockets)
    return first, second, third
