"""A disk that gets full at any step of ``reco fit``: a line that says so, and with room the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from fit_worlds import made
from small_disk import fill_up
from typer.testing import CliRunner

from reco_plugin.artifact import Artifact
from reco_plugin.cli.app import app
from reco_plugin.fit import FitResult
from reco_plugin.fit.config import RESULT

pytestmark = pytest.mark.xdist_group("export")  # as train/test_export.py
STEPS = {  # bytes that are left on the disk -> what there is no room for
    100_000: "rows/",
    4_000_000: "model",
}


def run(source: str, model: Path, out: Path) -> Result:
    options = ["--group", "thing", "--k", "5", "--fuser", "paper", "--steps", "6", "--batch", "16"]
    return CliRunner().invoke(app, ["fit", source, "--model", str(model), "--out", str(out), *options])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what torch was writing then
def test_whatever_there_is_no_room_for(
    disk: Path, source: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, out = source(made()), disk / "run"
    for left, what in STEPS.items():
        filler = fill_up(disk, left)  # each time the run goes on from where there was no more room
        done = run(pairs, model, out)
        filler.unlink()
        told = done.stderr.splitlines()[-1]
        assert done.exit_code == 1, (left, done.exit_code, done.stderr)
        assert told.startswith("error: ") and "cannot be written: No space left" in told and what in told, (left, told)
        assert "Traceback" not in done.stderr and not (out / RESULT).exists()
    assert run(pairs, model, out).exit_code == 0
    Artifact.load(out / "model").verify()
    monkeypatch.setattr("reco_plugin.fit.run.write_report_of", lambda *_: None)  # which nothing is compared with
    assert run(pairs, model, tmp_path / "undisturbed").exit_code == 0
    assert FitResult.read(out) == FitResult.read(tmp_path / "undisturbed")
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp" or ".part" in path.name]
