"""How far a job is: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import io

import pytest
from tqdm import tqdm

from reco_plugin import progress
from reco_plugin.progress import progress_bar

Capsys = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    with progress_bar(total=3, desc="build", unit="row") as bar:
        assert type(bar) is tqdm
        bar.update(3)
    assert "\rbuild: 100%" in shown.getvalue()


def test_a_log_has_lines_and_no_carriage_return(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_S", "LAST_S"):  # else lines get rarer, and which of two quick steps is told is luck
        monkeypatch.setattr(progress, name, 0.0)
    with progress_bar(total=6, desc="build", unit="row") as bar:
        for rejected in range(3):
            bar.set_postfix(rejected=rejected, refresh=False)
            bar.update(2)
    for _ in progress_bar(range(2), desc="train", unit="step", leave=False):
        pass
    text = capsys.readouterr().err
    assert "\r" not in text
    assert text.endswith("\n")
    first, *lines = text.splitlines()
    assert first.startswith("build: 0/6 [")
    assert [line.partition(" [")[0] for line in lines[:3]] == ["build: 2/6", "build: 4/6", "build: 6/6"]
    assert lines[1].endswith("row/s, rejected=1]")
    assert lines[-1].startswith("train: 2/2 [")


def test_a_log_has_no_line_of_a_short_job(capsys: Capsys) -> None:
    with progress_bar(total=100, desc="build") as bar:
        for _ in range(100):
            bar.update(1)
    assert list(progress_bar(range(100), desc="train")) == list(range(100))
    assert capsys.readouterr().err == ""


def test_the_last_line_is_where_the_job_ended(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with progress_bar(total=6, desc="build") as bar:
        bar.update(2)
        bar.mininterval = 60.0  # as later in a long job
        bar.update(4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" [")[0] for line in lines] == ["build: 0/6", "build: 2/6", "build: 6/6"]


def test_steps_that_count_nothing_are_named(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_bar(unit="row") as bar:
        for name, after_s in (("split", 10.0), ("judge", 0.0), ("judge", 10.0), ("write", 0.0)):
            monkeypatch.setattr(progress, "FIRST_S", after_s)
            bar.set_description_str(name, refresh=False)
            bar.reset(0)
    assert capsys.readouterr().err == "judge\nwrite\n"


def test_a_bar_that_is_not_wanted_says_nothing(capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with progress_bar(total=1, desc="encode", disable=True) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""
