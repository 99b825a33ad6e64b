"""``reco model get``: whole or absent, checked, and nobody's folder is overwritten; where no model is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from small_disk import fill_up

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.config import load_settings
from reco_plugin.errors import ArtifactError

Run = Callable[..., Result]
Fail = Callable[..., str]
IN_RAM = {"memory": ":memory:"}


@pytest.fixture
def bare(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no model named anywhere."""
    monkeypatch.delenv("RECO_MODEL")
    return work


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_the_model_once(bare: Path, run: Run, model: Path) -> None:
    assert run("model", "get", "quickstart").stdout.startswith("wrote triton_models: reco-quickstart-mini-clip (128-d")
    assert contents(bare / "triton_models") == contents(model)
    before = (bare / "triton_models" / "manifest.json").stat()
    assert run("model", "get", "quickstart").stdout.startswith("triton_models holds it already: ")
    assert (bare / "triton_models" / "manifest.json").stat() == before
    assert [path.name for path in bare.iterdir()] == ["triton_models"]


def test_an_empty_folder_and_missing_parents_are_filled(bare: Path, run: Run, model: Path) -> None:
    (bare / "empty").mkdir()
    for out in ("empty", "new/er/model"):
        assert run("model", "get", "quickstart", "--out", out).exit_code == 0
        assert contents(bare / out) == contents(model)


@pytest.mark.parametrize("what", ["another model", "a part of it", "file"])
def test_what_is_something_else_stays(bare: Path, fail: Fail, model: Path, what: str) -> None:
    mine = bare / "mine"
    match what:
        case "another model":
            shutil.copytree(model, mine)
            (mine / "tokenizer.json").write_text("{}")
        case "a part of it":
            shutil.copytree(model, mine, ignore=shutil.ignore_patterns("clip_text"))
        case _:
            mine.write_text("mine")
    before = contents(bare)
    assert "error: mine exists and is not the quickstart model" in fail("model", "get", "quickstart", "--out", "mine")
    assert contents(bare) == before


def test_the_working_directory_is_not_replaced(bare: Path, fail: Fail) -> None:
    assert "'.' is the working directory: name a folder in it" in fail("model", "get", "quickstart", "--out", ".")


def test_a_damaged_copy_is_not_handed_on(bare: Path, fail: Fail, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = bare / "site-packages" / "reco_plugin" / "triton_models"
    shutil.copytree(model, damaged)
    with (damaged / "paper_image" / "1" / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    monkeypatch.setattr("reco_plugin.cli.model_get.quickstart_model", lambda: damaged)
    assert "the file was changed or damaged" in fail("model", "get", "quickstart")
    assert [path.name for path in bare.iterdir()] == ["site-packages"]


def test_an_installation_without_a_model_says_so(bare: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("config", "cli.model_get"):
        monkeypatch.setattr(f"reco_plugin.{reader}.quickstart_model", lambda: None)
    assert "this installation carries no quickstart model" in fail("model", "get", "quickstart")
    assert "no model at 'triton_models': manifest.json is missing" in fail("embed", "--text", "x", "--plain")


def test_a_full_disk_leaves_nothing(disk: Path, fail: Fail) -> None:
    filler = fill_up(disk, 3_000_000)
    before = {path for path in disk.rglob("*") if path.name != "lost+found"}
    assert "cannot be written: No space left" in fail("model", "get", "quickstart", "--out", disk / "model")
    assert {path for path in disk.rglob("*") if path.name != "lost+found"} == before == {filler}


def test_where_no_model_is_named_the_one_that_comes_along_is_used_and_it_is_said(bare: Path, model: Path) -> None:
    with (
        pytest.warns(UserWarning, match=r"no model was named.*knows drawings.*reco export --help"),
        Reco.open(**IN_RAM) as reco,
    ):
        assert reco.manifest == Artifact.load(model).manifest
        assert reco.settings.model == model


@pytest.mark.filterwarnings("default")  # as for a user: shown, and no error
def test_the_command_line_says_it_in_one_line(bare: Path, run: Run) -> None:
    result = run("embed", "--text", "x", "--plain")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: no model was named")
    assert result.stderr.count("\n") == 1


def test_a_model_in_the_working_directory_comes_first(bare: Path, run: Run) -> None:
    run("model", "get", "quickstart")
    with Reco.open(**IN_RAM) as reco:  # a warning would be an error here
        assert reco.settings.model == Path("triton_models")


def test_a_broken_model_in_the_working_directory_is_no_reason_to_take_another(bare: Path) -> None:
    (bare / "triton_models").mkdir()
    assert load_settings().model == Path("triton_models")
    with pytest.raises(ArtifactError, match=r"no model at 'triton_models'.*`reco model get quickstart`"):
        Reco.open(**IN_RAM)
