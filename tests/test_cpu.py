"""How many cores a process may use, and that the libraries which compute take no more threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_once import open_session

from reco_plugin.cpu import cores
from reco_plugin.encoders.runtimes import onnxruntime as session
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.settings import load_settings

MODEL = Path(__file__).resolve().parents[1] / "triton_models"
ALL = cores(Path("/nowhere"))
V2 = {"proc/self/cgroup": "0::/system.slice/reco.service"}


def place(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 8),
        (V2 | {"sys/fs/cgroup/cpu.max": "250000 100000"}, 3),  # of a container, which sees its own as the root
        (V2 | {"sys/fs/cgroup/system.slice/reco.service/cpu.max": "50000 100000"}, 1),
        (
            V2
            | {"sys/fs/cgroup/system.slice/reco.service/cpu.max": "max 100000"}
            | {"sys/fs/cgroup/system.slice/cpu.max": "400000 100000", "sys/fs/cgroup/cpu.max": "600000 100000"},
            4,
        ),
        (V2 | {"sys/fs/cgroup/cpu.max": "no number"}, 8),
    ],
)
def test_the_least_of_all_limits_counts(files, found, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores(place(tmp_path, files)) == found


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or ALL < 2, reason="this process cannot be held to one core")
def test_a_command_on_one_core_has_numpy_take_one_thread():
    """It is told before numpy is loaded."""
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "sys.argv = ['reco', '--version']\n"
        "from reco_plugin.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'numpy' not in sys.modules\n"
        "print(os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-2:] == ["1", "1"]


@pytest.mark.parametrize(("threads", "limit", "given"), [(0, 0, 0), (0, 3, 3), (2, 3, 2)])
def test_a_graph_takes_the_threads_of_the_limit_unless_a_person_says_how_many(threads, limit, given, monkeypatch):
    monkeypatch.setattr(session, "fewer_cores", lambda: limit)
    monkeypatch.setattr(OrtSession, "__init__", open_session)
    opened = OrtSession(MODEL / "clip_text" / "1" / "model.onnx", load_settings(threads=threads))
    assert opened._session.get_session_options().intra_op_num_threads == given
    ids = np.ones((2, 5), np.int32)
    name = opened._session.get_inputs()[0].name
    assert len(opened.run({name: ids})) >= 1
