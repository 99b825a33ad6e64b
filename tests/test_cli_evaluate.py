"""reco eval on vectors, without any model: tables, JSON, files, and errors as one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from reco_plugin.cli.errors import reports_errors
from reco_plugin.cli.evaluate import eval_app
from reco_plugin.data import Captioned, Labelled, write_labelled, write_pairs, write_retrieval
from reco_plugin.errors import DataError
from reco_plugin.types import Records

CLASSES, D = 110, 64
FREE = ("--fuser", "training-free")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images and texts of a class are unrelated to the encoder; the memory knows which belong together."""
    monkeypatch.chdir(tmp_path)  # no ./triton_models, no ./reco.toml
    monkeypatch.delenv("RECO_MODEL", raising=False)
    rng = np.random.default_rng(0)
    image, text = unit(rng.normal(size=(CLASSES, D))), unit(rng.normal(size=(CLASSES, D)))

    def near(centres: np.ndarray, each: int) -> np.ndarray:
        return unit(np.repeat(centres, each, 0) + 0.3 * unit(rng.normal(size=(CLASSES * each, D))))

    ids = [f"p{i}" for i in range(CLASSES * 5)]
    for suffix in (".npz", ".parquet"):
        write_pairs(tmp_path / f"pairs{suffix}", [Records(ids, near(image, 5), near(text, 5), [{}] * len(ids))])
        labelled = Labelled(
            "x", near(image, 2), np.repeat(np.arange(CLASSES), 2), tuple(map(str, range(CLASSES))), (), text
        )
        write_labelled(tmp_path / f"test{suffix}", labelled)
    write_retrieval(tmp_path / "captions.npz", Captioned("x", near(image, 1), near(text, 1), np.arange(CLASSES)))
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(eval_app, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_zero_shot_of_vectors_needs_no_model(files: Path, suffix: str) -> None:
    result = run("zero-shot", f"test{suffix}", "--memory-from", f"pairs{suffix}", *FREE, "--json", "--k", "5")
    assert (result.exit_code, result.stderr) == (0, "")
    stored = json.loads(result.stdout)
    top1 = {variant["refined"]: variant["top1"]["mean"] for variant in stored["variants"]}
    assert top1["image"] > top1["frozen"] + 0.3
    assert stored["options"] == {"k": 5}
    assert stored["setup"] == {"memory": f"pairs{suffix}", "fuser": "training-free", "pairs": CLASSES * 5}


def test_a_table_on_stdout_and_json_in_a_file(files: Path) -> None:
    result = run("zero-shot", "test.npz", "--memory-from", "pairs.npz", *FREE, "--out", "result.json")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "zero-shot, test.npz: 220 images, 110 classes"
    assert result.stdout.splitlines()[-1] == "memory: 550 pairs"
    assert json.loads((files / "result.json").read_text())["images"] == 220


def test_retrieval_of_vectors(files: Path) -> None:
    result = run("retrieval", "captions.npz", "--memory-from", "pairs.npz", *FREE, "--json")
    assert result.exit_code == 0
    recall = {(v["direction"], v["refined"]): v["recall"]["R@1"] for v in json.loads(result.stdout)["variants"]}
    assert recall["text->image", "query"] > recall["text->image", "frozen"] + 0.3


def test_settings_of_the_environment_count(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_FUSER", "training-free")
    monkeypatch.setenv("RECO_GATE", "false")
    by_environment = run("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--json")
    by_option = run("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--json", *FREE, "--no-gate")
    assert by_environment.exit_code == by_option.exit_code == 0
    assert json.loads(by_environment.stdout)["variants"] == json.loads(by_option.stdout)["variants"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zero-shot", "gone.npz"), "error: gone.npz cannot be read"),
        (("zero-shot", "test.npz", "--memory-from", "pairs.npz"), "Vectors alone need no model: --fuser training-free"),
        (("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--memory", "m", *FREE), "--memory or --memory-from"),
        (("zero-shot", "test.npz", "--memory-from", "test.npz", *FREE), "has no array 'id'"),
        (("zero-shot", "test.npz", "--template", "a {}", *FREE), "leave them out"),
        (("retrieval", "captions.npz", "--memory-from", "gone.parquet", *FREE), "gone.parquet cannot be read"),
        (("retrieval", "test.npz"), "has no array 'text'"),
    ],
)
def test_an_error_is_one_line_on_stderr(files: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_unknown_choices_are_refused(files: Path) -> None:
    assert run("zero-shot", "test.npz", "--search", "both").exit_code == 2
    assert run("zero-shot", "test.npz", "--k", "0").exit_code == 2


@pytest.mark.parametrize("command", ["zero-shot", "retrieval"])
def test_help_teaches_by_example(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    assert f"Example: reco eval {command}" in text
    assert "--memory-from" in text


def test_only_our_errors_lose_their_trace() -> None:
    app = typer.Typer()

    @app.command()
    @reports_errors
    def command(which: str) -> None:
        raise DataError("two\nlines") if which == "ours" else KeyError("a defect")

    ours = CliRunner().invoke(app, ["ours"])
    assert (ours.exit_code, ours.stderr) == (1, "error: two lines\n")
    assert isinstance(CliRunner().invoke(app, ["theirs"]).exception, KeyError)


@pytest.mark.filterwarnings("default")
def test_warnings_become_a_line() -> None:
    import warnings

    app = typer.Typer()

    @app.command()
    @reports_errors
    def command() -> None:
        warnings.warn("skipped 3 images", stacklevel=1)
        warnings.warn("old", FutureWarning, stacklevel=1)

    lines = CliRunner().invoke(app, []).stderr.splitlines()
    assert lines[0] == "warning: skipped 3 images"
    assert "FutureWarning: old" in lines[1]
