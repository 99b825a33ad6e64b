"""All commands: help that teaches, light imports, one-line errors, settings."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

import reco_plugin.cli
from reco_plugin.cli.app import app, main
from reco_plugin.cli.shared import print_result
from reco_plugin.errors import DataError
from reco_plugin.options import RefineOptions, options_of

pytestmark = pytest.mark.slow


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


REFINING = frozenset(options_of(RefineOptions))
"""Options of a refinement, which settings, Python and HTTP describe in the same words."""
WHOLE: Any = typer.main.get_command(app)


def command_at(path: tuple[str, ...]) -> Any:
    command = WHOLE
    for name in path:
        command = command.commands[name]
    return command


ALL = sorted(commands(WHOLE))


def parameters(path: tuple[str, ...]) -> list[Any]:
    return list(command_at(path).made.params)


def test_there_are_at_most_twenty_commands() -> None:
    assert {" ".join(path) for path in ALL} >= {
        *("demo", "doctor", "embed", "serve", "compare"),
        *(f"memory {name}" for name in ("build", "add", "sync", "remove", "search", "info", "copy")),
        *("memory versions", "memory feedback", "model export", "model add", "model train"),
    }
    assert len(ALL) <= 20


def test_help_is_sentences_with_an_example(run: Callable[..., Result]) -> None:
    for path in ALL:
        shown = run(*path, "--help").stdout
        assert f"Example: reco {' '.join(path)}" in " ".join(shown.split())
        for one in parameters(path) if path[0] != "serve" else ():
            assert one.name in REFINING or re.match(r"[A-Z-].*[.?]$", one.help or "", flags=re.DOTALL), (
                path,
                one.name,
                one.help,
            )


def test_a_flag_is_spelled_one_way() -> None:
    flags = {flag for path in ALL for one in parameters(path) for flag in one.opts}
    assert not flags & {"-k", "--results", "--collection", "--option", "--output", "--filter", "--format", "--yaml"}


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RECO_")}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean | environment,
        timeout=120,
        check=False,
    )


def test_what_lists_the_commands_imports_none_of_them(tmp_path: Path) -> None:
    """Help, completion and a mistyped name need their names alone, and start five times as fast so."""
    code = """
        import sys
        from reco_plugin.cli.app import main
        for words in ("--help", "memory --help", "--version", "memory inf"):
            sys.argv = ["reco", *words.split()]
            try:
                main()
            except SystemExit as end:
                print(words, end.code, file=sys.stderr)
        print(*(name for name in sys.modules if name.startswith("reco_plugin")), file=sys.stderr)
        print(*({"numpy", "torch", "onnxruntime", "qdrant_edge"} & sys.modules.keys()), file=sys.stderr)
        """
    done = python("-c", dedent(code), folder=tmp_path)
    lines = done.stderr.splitlines()
    loaded = ("", *(f".{name}" for name in ("cli", "errors", "cli.app")))
    assert lines[:3] == ["--help 0", "memory --help 0", "--version 0"]
    assert "Did you mean 'info'?" in done.stderr
    assert lines[-3:] == ["memory inf 2", " ".join(f"reco_plugin{name}" for name in loaded), ""]
    assert all(path[-1] in done.stdout for path in ALL if path[:-1] in ((), ("memory",)))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("reco memory re", {"remove"}),
        ("reco embed --target t", {"text"}),
    ],
)
def test_what_is_typed_is_completed(typed: str, offered: set[str]) -> None:
    environment = {"_RECO_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": typed}
    for action in ("is-args", "get-args"):
        environment["_TYPER_COMPLETE_FISH_ACTION"] = action
        done = CliRunner().invoke(app, prog_name="reco", env=environment)
    told = {line.partition("\t")[0] for line in done.stdout.splitlines()}  # name, tab, help in some lines
    assert {name for name in told if not re.search(r"[ .]", name)} == offered


def test_completion_is_installed_for_the_command_also_by_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(Path(reco_plugin.__file__).with_name("__main__.py")), "--install-completion"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, "completion installed in" in capsys.readouterr().out) == (0, True)
    bash = ["bash", "--norc", "-c", ". ~/.bashrc && complete -p"]
    told = subprocess.run(bash, capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("complete -o default -F _reco_completion reco\n", "")


def test_the_package_runs_as_a_module(tmp_path: Path, model: Path, catalogue: Path) -> None:
    done = python("-m", "reco_plugin", "memory", "add", str(catalogue), "--model", str(model), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "added 24 pairs; the memory holds 24\n")
    assert "%|" not in done.stderr  # no progress bar into a pipe
    again = python("-m", "reco_plugin", "memory", "info", folder=tmp_path)
    assert again.stdout.startswith("edge memory at memory: 24 pairs\n")


def test_an_error_of_the_process_is_one_line(tmp_path: Path) -> None:
    done = python("-m", "reco_plugin", "memory", "info", "--memory", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no memory at 'nowhere'")
    assert done.stderr.count("\n") == 1


def test_an_error_names_the_way_out(work: Path, catalogue: Path, fail: Callable[..., str]) -> None:
    assert "reco model export" in fail("memory", "add", catalogue, "--model", "no-model")
    assert "gone.csv" in fail("memory", "add", "gone.csv")
    assert list(work.iterdir()) == []
    assert "reco memory" in fail("memory", "info")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("memory search x --k 0", 2, "Invalid value for '--k'"),
        ("memory search x --kk 1", 2, "No such option: --kk"),
        ("embed --text x --role judge", 2, "Invalid value for '--role'"),
        ("memory build", 1, "error: give a source to build from, or --relearn"),
        ("embed --input gone.txt", 1, "error: gone.txt cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_is_named(work: Path, command: str, code: int, said: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_nothing_but_the_result_is_written_to_stdout_under_json(memory: Path) -> None:
    code = (
        "import sys\n"
        "from reco_plugin.cli.app import main\n"
        "loads = lambda event, told: event == 'import' and told[0] == 'tokenizers' and print('a library')\n"
        "sys.addaudithook(loads)\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "memory", "search", "a red circle", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert "a library" in done.stderr


def test_a_path_of_the_home_is_one_also_where_the_shell_left_it(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bash leaves that of ``--out=~/…``; a folder called ``~`` was made."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "texts.txt").write_text("a fox\n")
    asked = ["embed", "--plain", "--input=~/texts.txt", "--out=~/vectors.npy"]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    assert (home / "vectors.npy").is_file()
    assert not Path("~").exists()


def test_the_home_is_meant_by_the_environment_too(
    memory: Path, model: Path, work: Path, fail: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``reco.toml``, where no shell reads it."""
    monkeypatch.setenv("HOME", str(work))
    (work / "mine").symlink_to(model)
    monkeypatch.setenv("RECO_MODEL", "~/mine")
    monkeypatch.setenv("RECO_MEMORY", f"~/{memory.relative_to(work)}")
    told = CliRunner().invoke(app, ["doctor"], catch_exceptions=False).stdout
    assert "24 pairs of" in told
    assert "everything works" in told


def test_a_result_that_cannot_be_written_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("reco_plugin.cli.shared.typer.echo", full)
    with pytest.raises(DataError, match="cannot be written to standard output: No space left on device"):
        print_result("vectors")
