"""A ``reco`` in a process of its own without the second that importing takes: forked from one that has imported it.

It is a process like any other, a child of the tests' own: what it is given, says, and ends with is its own, too. So are
our benchmarks, and whatever trains (``lean_start.py``), which has imported torch: four seconds; and the processes that
this one starts itself. Tests of how a process starts from nothing ask for
the fixture ``from_nothing``. Where what was imported runs threads (without ``OMP_NUM_THREADS=1``) every process does.
"""

from __future__ import annotations

import builtins
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
import tomllib
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import lean_start

OURS = ("reco_plugin", "benchmarks")
RECO = (
    "reco_plugin.cli.app", "reco_plugin.cli.memory", "reco_plugin.cli.memory_fill", "reco_plugin.cli.doctor",
    "reco_plugin.reco", "reco_plugin.serve.run", "reco_plugin.serve.app", "reco_plugin.memory.edge",
    "reco_plugin.memory.exact", "reco_plugin.sessions.ort", "onnxruntime", "qdrant_edge", "tokenizers",
    "uvicorn.loops.auto", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "PIL.PngImagePlugin",
)  # fmt: skip
TRAINING = (
    "reco_plugin.cli.fit", "reco_plugin.fit", "reco_plugin.train.loop", "torch",
    "torch._dynamo", "onnxruntime", "tokenizers",
)  # fmt: skip
TESTING = (
    "torch._dynamo", "torchvision", "transformers", "timm", "open_clip", "qdrant_client", "openai", "voyageai",
    "cohere", "llama_index.core", "langchain_core.retrievers", "haystack", "onnxruntime", "fastapi",
    "redis", "matplotlib.font_manager",
)  # fmt: skip
"""What test modules import, of others: nine of the fifteen seconds that a process of the tests takes to collect.

Pandas is not among it: it starts a thread, which no fork has. Nor is Ray, which has daemons of its own.
"""
CLONE, CLONE_PARENT = 56, 0x8000  # the number is of x86-64
CAN_FORK = sys.platform == "linux" and platform.machine() == "x86_64"
READY, THREADS = b"ready", b"threads"
Started = subprocess.Popen


class Prepared(Started):
    """``subprocess.Popen``, whose ``python -m`` of ours is forked; whatever else is started as ever."""

    _parts = inspect.signature(Started._execute_child)

    def _execute_child(self, *given: Any) -> None:
        asked = self._parts.bind(self, *given).arguments
        with _lock:
            way = _way(imported) if (imported := _what_it_imports(asked)) else None
        if way is None:
            super()._execute_child(*given)
            return
        _fork_for(self, asked, way)


_lock = threading.Lock()
_ways: dict[tuple[Any, ...], socket.socket | None] = {}
"""To the processes that fork, or None to one that cannot; of this process, not of one that it was forked from."""


def _what_it_imports(asked: dict[str, Any]) -> tuple[str, ...]:
    """What is imported before a process is forked; nothing where it starts as ever."""
    words, env = asked["args"], _startup(os.environ if asked["env"] is None else asked["env"])
    if _is_unusual(asked) or len(words) < 3:
        return ()
    if words[1:3] == ["-u", "-c"]:  # as pytest-xdist starts those that test
        return TESTING
    ours = words[1] == "-m" and words[2].partition(".")[0] in OURS
    if env == _startup(lean_start.ENVIRONMENT):
        trains = ours or words[1] == "-c" or words[1].endswith(".py")
        return TRAINING if trains else ()
    return RECO if ours and env == _startup(os.environ) else ()


def _is_unusual(asked: dict[str, Any]) -> bool:
    """Whether something is asked that only a process that starts as ever does."""
    words = asked["args"]
    unusual = any(asked[name] for name in ("preexec_fn", "pass_fds", "shell", "executable"))
    unusual |= any(asked[name] not in (None, -1) for name in ("uid", "gid", "gids", "umask", "process_group"))
    return unusual or not isinstance(words, list | tuple) or words[0] != sys.executable


def _trains_together(asked: dict[str, Any]) -> bool:
    """Whether a process that trains starts another one of its kind: itself again, or one of a launcher's."""
    if _is_unusual(asked) or (asked["env"] is not None and _startup(asked["env"]) != _startup(os.environ)):
        return False
    how, *rest = [word for word in asked["args"][1:] if word != "-u"] or [""]
    return str(how).endswith(".py") or (how == "-m" and rest[0].partition(".")[0] in OURS)


def _startup(env: Any) -> dict[str, str]:
    """Variables that count while Python and libraries are loaded."""
    return {
        name: env[name] for name in env if name.startswith(("PYTHON", "OMP_", "OPENBLAS_", "MALLOC_", "LD_", "LC_"))
    }


def _way(imported: tuple[str, ...]) -> socket.socket | None:
    """To a process that has imported this, begun where there is none yet; None if it cannot fork."""
    env = lean_start.ENVIRONMENT if imported == TRAINING else dict(os.environ)
    key = os.getpid(), imported, *sorted(_startup(env).items())
    if key not in _ways:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.set_inheritable(True)
        os.posix_spawn(sys.executable, [sys.executable, __file__, str(theirs.fileno()), *imported], env)
        theirs.close()
        _ways[key] = ours if (told := ours.recv(64)) == READY else None
        if told != READY:
            ours.close()
            assert told == THREADS, "the process that forks others has failed"
    return _ways[key]


def _fork_for(popen: Any, asked: dict[str, Any], way: socket.socket) -> None:
    """Begin what is asked of a ``Popen``, which then knows its id."""
    ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
    files = [asked[name] if asked[name] != -1 else fd for fd, name in enumerate(("p2cread", "c2pwrite", "errwrite"))]
    with _lock:
        popen.pid = _forked(asked, files, way)
    popen._child_created = True
    popen._close_pipe_fds(*(asked[name] for name in ends))


def _forked(asked: dict[str, Any], files: list[int], way: socket.socket) -> int:
    """The id of a process that does what is asked."""
    env = dict(os.environ if asked["env"] is None else asked["env"])
    place = os.fspath(asked["cwd"] or Path.cwd())
    outlives = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # its terminal, as nohup says
    said = [os.fspath(word) for word in asked["args"]], place, env, asked["start_new_session"], outlives
    socket.send_fds(way, [json.dumps(said).encode()], files)
    return int(way.recv(64))


def let_go() -> None:
    """End the processes that fork; the next test that needs one begins another."""
    while _ways:
        if way := _ways.popitem()[1]:
            way.close()


def main(way: socket.socket, imported: list[str]) -> None:
    """Import, and fork for each command that comes, until the tests end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for those who were asked for
    testing = tuple(imported) == TESTING
    gc.disable()  # looking for garbage among what is imported takes a fifth of the time
    with warnings.catch_warnings():
        if testing:
            _warn_as_the_tests_do()
        for name in imported:
            try:
                import_module(name)
            except Exception:
                if not testing:  # there, the modules that import it tell
                    raise
    for name in ("anyio", "langsmith"):  # pytest warns that it cannot rewrite the asserts of its plugins any more
        if module := sys.modules.get(name):
            module.__doc__ = f"{module.__doc__} PYTEST_DONT_REWRITE"
    gc.collect()
    gc.freeze()
    gc.enable()
    alone = len(list(Path("/proc/self/task").iterdir())) == 1
    try:
        way.send(READY if alone else THREADS)
    except BrokenPipeError:  # whoever waited for it was interrupted
        return
    if not alone:  # a thread is not forked with the others, and whoever waits for it waits forever
        return
    _fork_for_each(way, trains=tuple(imported) == TRAINING)


def _fork_for_each(way: socket.socket, *, trains: bool) -> None:
    """Fork for each command that comes, until who asks is gone; returns in each process that was forked, too."""
    while True:
        said, files, *_ = socket.recv_fds(way, 1 << 20, 3)
        if not said:
            return
        if not (pid := _fork_a_sibling()):
            way.close()
            words, place, env, new_session, outlives = json.loads(said)
            _take_files(files)
            if trains:
                _let_it_start_others()
            signal.signal(signal.SIGHUP, signal.SIG_IGN if outlives else signal.SIG_DFL)
            _become(words, place, env, new_session)
            return
        for file in files:
            os.close(file)
        way.send(str(pid).encode())


def _warn_as_the_tests_do() -> None:
    """What these warn of while they are imported fails the tests that import them, as where nothing is forked."""
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    for line in settings["tool"]["pytest"]["ini_options"]["filterwarnings"]:
        action, message, category, module = (*line.split(":"), "", "", "")[:4]
        warnings.filterwarnings(action, message, getattr(builtins, category or "Warning"), module)


def _fork_a_sibling() -> int:
    """As ``os.fork``, but it is a child of the process that started this one, which waits for it."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(python.syscall(CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    (python.PyOS_AfterFork_Parent if pid else python.PyOS_AfterFork_Child)()
    if pid < 0:
        raise OSError("no process could be made")
    return pid


def _take_files(files: list[int]) -> None:
    """Take these as standard input, output and error."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(files) + 1)


def _let_it_start_others() -> None:
    """Let this process, which will train, start others as it was started itself: a copy of it forks them, here and now.

    Later, it has threads. Torch keeps the class that starts processes, so that class itself is changed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)  # who reads what this process says waits for no other one
        for number in range(3):
            os.dup2(nothing, number)
        os.close(nothing)
        _fork_for_each(theirs, trains=False)
        sys.exit()
    theirs.close()
    start_as_ever, parts = Started._execute_child, Prepared._parts

    def execute(self: Any, *given: Any) -> None:
        asked = parts.bind(self, *given).arguments
        if _trains_together(asked):
            _fork_for(self, asked, ours)
        else:
            start_as_ever(self, *given)

    Started._execute_child = execute


def _become(words: list[str], place: str, env: dict[str, str], new_session: bool) -> None:
    """Be ``python`` with these words."""
    at_once = "-u" in words[1:2] or bool(env.get("PYTHONUNBUFFERED"))  # as torchrun starts those that it waits for
    for number, name, errors in ((0, "stdin", "strict"), (1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw = at_once and number > 0
        binary = io.open(number, "wb" if number else "rb", 0 if raw else -1, closefd=False)  # noqa: SIM115, UP020
        by_line = not raw and (number == 2 or binary.isatty())
        text = io.TextIOWrapper(binary, "utf-8", errors, line_buffering=by_line, write_through=raw)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    how, *rest = [word for word in words[1:] if word != "-u"]
    if how == "-m":
        sys.argv[:], sys.path[0] = rest, place
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv[:], sys.path[0] = ["-c", *rest[1:]], ""
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv[:], sys.path[0] = [how, *rest], str(Path(how).parent)
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
