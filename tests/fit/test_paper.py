"""The paper's layer within ``reco fit``: by one process or several, and killed while it trains.

Processes here are real ones, joined over gloo on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from fit_worlds import D, made
from lean_start import ENVIRONMENT, SUPPORT
from terminal import run_on_a_terminal
from typer.testing import CliRunner

from reco_plugin.cli.app import app
from reco_plugin.data import write_pairs
from reco_plugin.errors import ConfigError
from reco_plugin.fit import FitConfig, FitResult, begin, run_fit
from reco_plugin.fit.config import RESULT
from reco_plugin.train import loop
from reco_plugin.train.data import open_data
from reco_plugin.train.loop import CHECKPOINT, FUSION, TrainConfig, load_fusions, train_fusions
from reco_plugin.train.model import FusionConfig

pytestmark = pytest.mark.xdist_group("distributed")  # as train/test_distributed.py: what trains is forked from one
FOLDER = Path("candidates") / "paper"
WITHOUT_GRAPHS = (str(SUPPORT / "fit_without_graphs.py"),)


@pytest.fixture(scope="module")
def pairs(source: Callable[..., str]) -> str:
    return source(made())


def command(
    pairs: str, model: Path, out: Path, *options: str, start: tuple[str, ...] = ("-m", "reco_plugin")
) -> list[str]:
    words = ["fit", pairs, "--model", str(model), "--group", "thing", "--k", "5", "--fuser", "paper"]
    return [sys.executable, *start, *words, "--out", str(out), *options]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=240, check=False)


def write_neither_model_nor_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``fit_without_graphs.py``: they take most of the time; checkpoints are nearer to each other."""
    monkeypatch.setattr("reco_plugin.fit.run.write_model", lambda *_: {})
    monkeypatch.setattr("reco_plugin.fit.run.write_report_of", lambda *_: None)
    monkeypatch.setattr(loop, "TrainConfig", partial(TrainConfig, checkpoint_every=10))


def test_two_processes_train_and_one_does_the_rest(pairs: str, model: Path, tmp_path: Path) -> None:
    options = ["--steps", "6", "--batch", "32", "--precision", "bf16"]
    words = command(pairs, model, tmp_path / "two", *options, "--processes", "2", start=WITHOUT_GRAPHS)
    done = run_on_a_terminal(words, env=ENVIRONMENT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: ") == 1
    assert done.stderr.count("find neighbours:   0%") == 1 and done.stderr.count("train fusions:   0%") == 1
    result = FitResult.read(tmp_path / "two")
    assert [one.name for one in result.candidates] == ["paper"]
    assert "The paper's layer was trained by 2 processes" in " ".join(result.notes)
    trained = load_fusions(tmp_path / "two" / FOLDER / FUSION).state_dict()

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *WITHOUT_GRAPHS)
    done = run(command(pairs, model, tmp_path / "run", *options, start=launcher))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: ") == 1
    again = load_fusions(tmp_path / "run" / FOLDER / FUSION).state_dict()
    assert all(torch.equal(trained[name], again[name]) for name in trained), "two processes, however started"
    data = open_data(tmp_path / "two" / FOLDER / "training")
    start = train_fusions(data, FusionConfig("paper", D), tmp_path / "0", TrainConfig(steps=0)).state_dict()
    assert not all(torch.equal(trained[name], start[name]) for name in trained)


@pytest.mark.usefixtures("from_nothing")  # as a user's: here the second one imports what it needs, too
def test_where_the_first_process_fails_the_others_stop(pairs: str, model: Path, tmp_path: Path) -> None:
    done = run(command(pairs, model, tmp_path / "run", "--processes", "2", "--max-pairs", "40"))
    assert done.returncode == 1
    assert "groups are too few" in done.stderr and "process 1 stops because the first one failed" in done.stderr
    assert "Traceback" not in done.stderr and "terminate called" not in done.stderr
    assert not (tmp_path / "run" / RESULT).exists()


def test_what_one_process_fits_takes_no_others(pairs: str, model: Path, tmp_path: Path) -> None:
    config = FitConfig.of(source=pairs, model=str(model), fuser="reco")
    with pytest.raises(ConfigError, match="2 processes are for --fuser paper: 'reco' takes one process seconds"):
        begin(config, tmp_path / "run", 2)
    with pytest.raises(ConfigError, match="torch cannot use device 'cuda:77'"):
        begin(config.model_copy(update={"device": "cuda:77"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_killed_while_it_trains_it_comes_to_the_same(
    pairs: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is killed is a process of its own; it goes on in this one, in which the other fit runs, too."""
    write_neither_model_nor_report(monkeypatch)
    monkeypatch.setattr("reco_plugin.fit.run._check_torch", lambda: None)  # imports what exports
    words = command(pairs, model, tmp_path / "cut", "--steps", "12", "--batch", "16", start=WITHOUT_GRAPHS)
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path / "cut" / FOLDER / CHECKPOINT).exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -9
    assert torch.load(tmp_path / "cut" / FOLDER / CHECKPOINT)["step"] == 10
    start = len(WITHOUT_GRAPHS) + 1
    for folder in ("cut", "whole"):
        done = CliRunner().invoke(app, [*words[start:-6], "--out", str(tmp_path / folder), *words[-4:]])
        assert done.exit_code == 0, done.output
    assert FitResult.read(tmp_path / "cut") == FitResult.read(tmp_path / "whole")
    files = [tmp_path / name / FOLDER / FUSION for name in ("cut", "whole")]
    cut, uncut = (load_fusions(path).state_dict() for path in files)
    assert all(torch.equal(cut[name], uncut[name]) for name in uncut)


def test_a_catalogue_that_grew_is_trained_anew(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_neither_model_nor_report(monkeypatch)
    pairs, out = tmp_path / "pairs.npz", tmp_path / "run"
    config = FitConfig.of(source=f"{pairs}?check=0", model=str(model), k=5, fuser="paper", steps=2)
    write_pairs(pairs, [made(120)])
    first = run_fit(config, out)
    write_pairs(pairs, [made(150)])
    second = run_fit(config, out)
    assert second.source_digest != first.source_digest and second.counts["pairs"] == 600
    assert (out / FOLDER / "catalogue.txt").read_text().strip() == second.source_digest
    assert len(list((out / "candidates").iterdir())) == 1
