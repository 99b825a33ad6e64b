"""A disk that gets full at any step of ``reco fit``: a line that says so, and with room the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fit_worlds import made
from small_disk import fill_up
from typer.testing import CliRunner

from reco_plugin.cli.app import app
from reco_plugin.fit import FitResult
from reco_plugin.fit.result import RESULT

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
STEPS = {  # bytes that are left on the disk -> what there is no room for
    100_000: "rows/",
    1_400_000: "training.tmp/",
    3_500_000: "checkpoint.pt",
    9_000_000: "model",
}


def command(source: str, model: Path, out: Path) -> list[str]:
    options = ["--group", "thing", "--k", "5", "--fuser", "paper", "--steps", "101", "--batch", "16"]
    return ["fit", source, "--model", str(model), "--out", str(out), *options]


def run(words: list[str]) -> tuple[int, str]:
    """In a process of its own, whose end nothing must disturb: the code it ends with, and what it says."""
    process = [sys.executable, "-m", "reco_plugin", *words]
    done = subprocess.run(process, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return done.returncode, done.stderr


def run_here(words: list[str]) -> tuple[int, str]:
    """The same in this process, which takes less time."""
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stderr


@pytest.mark.filterwarnings("default")
def test_whatever_there_is_no_room_for(disk: Path, source: Callable[..., str], model: Path, tmp_path: Path) -> None:
    pairs, out = source(made()), disk / "run"
    words = command(pairs, model, out)
    for left, what in STEPS.items():
        filler = fill_up(disk, left)  # each time the run goes on from where there was no more room
        code, said = (run if what == "checkpoint.pt" else run_here)(words)
        filler.unlink()
        told = said.splitlines()[-1]
        assert code == 1, (left, code, said)
        assert told.startswith("error: ") and "cannot be written: No space left" in told and what in told, (left, told)
        assert "Traceback" not in said and not (out / RESULT).exists()
    assert run(words)[0] == run_here(command(pairs, model, tmp_path / "undisturbed"))[0] == 0
    assert FitResult.read(out) == FitResult.read(tmp_path / "undisturbed")
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp" or ".part" in path.name]
