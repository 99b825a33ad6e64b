"""Ctrl-C in a long command: one line that says what stays, exit code 130, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ctrl_c import press_ctrl_c
from live_service import wait_until

from reco_plugin.__main__ import main

pytestmark = pytest.mark.slow

Ask = Callable[..., Any]
SMALL = ("--batch-size", "8")


@pytest.fixture
def stopped(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs a command until its progress is shown the n-th time, and returns the one line."""

    def stop(*arguments: object, at: int) -> str:
        with monkeypatch.context() as patched:
            press_ctrl_c(patched, at=at)
            result = run(*arguments)
        assert (result.exit_code, result.stdout) == (130, ""), result.output
        assert "Traceback" not in result.stderr
        (told,) = (line for line in result.stderr.splitlines() if "interrupted" in line)
        return told

    return stop


@pytest.mark.parametrize(("command", "more"), [("add", ()), ("build", ("--swap",))])
def test_what_was_written_stays_and_the_same_command_goes_on(
    work: Path, catalogue: Path, stopped: Callable[..., str], ask: Ask, command: str, more: tuple[str, ...]
) -> None:
    asked = ("memory", command, catalogue, *more, *SMALL)
    assert stopped(*asked, at=2).startswith("interrupted: what was written stays")
    again = ask(*asked)
    assert again["unchanged"] >= 8
    assert (again["added"] + again["unchanged"], again["pairs"]) == (24, 24)


def test_what_writes_nothing_says_so(work: Path, catalogue: Path, memory: Path, stopped: Callable[..., str]) -> None:
    assert stopped("memory", "build", catalogue, "--dry-run", at=1) == "interrupted: nothing was written"
    assert stopped("memory", "copy", memory, "pairs.npz", at=1) == "interrupted: nothing was written to pairs.npz"
    assert not (work / "pairs.npz").exists()


def test_a_process_ends_with_130_and_no_trace(work: Path, catalogue: Path, model: Path) -> None:
    """By a signal from outside, while rows are read, encoded and written by several threads."""
    rows = catalogue.read_text().splitlines()
    header, first = rows[0], rows[1].partition(",")[2]
    table = catalogue.with_name("many.csv")
    table.write_text("\n".join([header, *(f"n{number},{first}" for number in range(100_000))]))
    running = subprocess.Popen(
        [sys.executable, "-m", "reco_plugin", "memory", "build", str(table), "--model", str(model), *SMALL],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        wait_until(lambda: running.poll() is not None or list(work.glob("memory/shard/segments/*")))
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
        table.unlink()
    assert (running.returncode, out, err[:11]) == (130, "", "interrupted"), err
    assert "Traceback" not in err


def test_an_interruption_while_it_loads_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = "reco_plugin.cli.embed"

    class Interrupts:
        def find_spec(self, name: str, *_: object) -> None:
            if name == loads:
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, loads, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["reco", "embed", "--text", "x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, *capsys.readouterr()) == (130, "", "")
