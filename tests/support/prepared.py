"""A ``reco`` in a process of its own without the second that importing takes: forked from one that has imported it.

It is a process like any other, a child of the tests' own: what it is given, says, and ends with is its own, too. So are
our benchmarks. Tests of how a process starts from nothing ask for the fixture ``from_nothing``.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import io
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

OURS = ("reco_plugin", "benchmarks")
IMPORTED = (
    "reco_plugin.cli.app", "reco_plugin.reco", "reco_plugin.serve.run", "reco_plugin.serve.app",
    "reco_plugin.memory.edge", "reco_plugin.memory.exact", "reco_plugin.sessions.ort", "onnxruntime", "qdrant_edge",
    "uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "tokenizers", "PIL.PngImagePlugin",
)  # fmt: skip
CLONE, CLONE_PARENT = 56, 0x8000  # the number is of x86-64
CAN_FORK = sys.platform == "linux" and platform.machine() == "x86_64"
Started = subprocess.Popen


class Prepared(Started):
    """``subprocess.Popen``, whose ``python -m`` of ours is forked; whatever else is started as ever."""

    _parts = inspect.signature(Started._execute_child)

    def _execute_child(self, *given: Any) -> None:
        asked = self._parts.bind(self, *given).arguments
        if not _is_the_same(asked):
            super()._execute_child(*given)
            return
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        files = [
            asked[name] if asked[name] != -1 else fd for fd, name in enumerate(("p2cread", "c2pwrite", "errwrite"))
        ]
        with _lock:
            self.pid = _forked(asked, files)
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in ends))


_lock = threading.Lock()
_ways: dict[int, socket.socket] = {}
"""Of this process, not of one that it was forked from."""


def _is_the_same(asked: dict[str, Any]) -> bool:
    """Whether what is started would have imported the same, from the same places, and is given nothing unusual."""
    env = os.environ if asked["env"] is None else asked["env"]
    words, own = asked["args"], _startup(os.environ)
    plain = not (asked["preexec_fn"] or asked["pass_fds"] or asked["shell"] or asked["executable"])
    if not plain or not isinstance(words, list) or words[:2] != [sys.executable, "-m"]:
        return False
    return words[2].partition(".")[0] in OURS and _startup(env) == own


def _startup(env: Any) -> dict[str, str]:
    """Variables that count while Python and libraries are loaded."""
    return {
        name: env[name] for name in env if name.startswith(("PYTHON", "OMP_", "OPENBLAS_", "MALLOC_", "LD_", "LC_"))
    }


def _forked(asked: dict[str, Any], files: list[int]) -> int:
    """The id of a process that does what is asked."""
    if os.getpid() not in _ways:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        os.posix_spawn(sys.executable, [sys.executable, __file__, str(theirs.fileno())], os.environ)
        theirs.close()
        _ways[os.getpid()] = ours
    env = dict(os.environ if asked["env"] is None else asked["env"])
    place = os.fspath(asked["cwd"] or Path.cwd())
    said = [os.fspath(word) for word in asked["args"]], place, env, asked["start_new_session"]
    socket.send_fds(_ways[os.getpid()], [json.dumps(said).encode()], files)
    return int(_ways[os.getpid()].recv(64))


def main(way: socket.socket) -> None:
    """Import, and fork for each command that comes, until the tests end."""
    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be forked"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for those who were asked for
    while True:
        said, files, *_ = socket.recv_fds(way, 1 << 20, 3)
        if not said:
            return
        if not (pid := _fork_a_sibling()):
            way.close()
            _become(files, *json.loads(said))
            return
        for file in files:
            os.close(file)
        way.send(str(pid).encode())


def _fork_a_sibling() -> int:
    """As ``os.fork``, but it is a child of the process that started this one, which waits for it."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(python.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    (python.PyOS_AfterFork_Parent if pid else python.PyOS_AfterFork_Child)()
    if pid < 0:
        raise OSError("no process could be made")
    return pid


def _become(files: list[int], words: list[str], place: str, env: dict[str, str], new_session: bool) -> None:
    """Be ``python -m …`` with these words."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(files) + 1)
    for number, name, errors in ((0, "stdin", "strict"), (1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        binary = io.open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115, UP020
        text = io.TextIOWrapper(binary, "utf-8", errors, line_buffering=number == 2 or binary.isatty())
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = words[2:]
    sys.path[0] = place
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
