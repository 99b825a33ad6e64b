"""``reco eval study`` as a user calls it: drawn images through the shipped model, and vectors without any model."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ctrl_c import press_ctrl_c
from PIL import Image
from typer.testing import CliRunner

from reco_plugin import Pair
from reco_plugin.cli.app import app
from reco_plugin.data import write_labelled, write_pairs
from reco_plugin.evaluate.findings import Findings


def reco(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def failed(*arguments: object) -> str:
    result = reco("eval", "study", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, drawings: list[Pair]) -> Path:
    """A folder of 12 classes with a small drawing each, and a memory table of the large ones beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECO_MODEL", str(model))
    lines = ["id,image,text,kind"]
    for pair in drawings:
        size, _, kind = pair.id.partition("-")
        folder = tmp_path / ("photos/" + kind.replace("-", "_") if size == "small" else "large")
        folder.mkdir(parents=True, exist_ok=True)
        assert isinstance(pair.image, Image.Image)
        pair.image.save(folder / f"{pair.id}.png")
        if size == "large":
            lines.append(f"{pair.id},large/{pair.id}.png,{pair.text},{kind.replace('-', ' ')}")
    (tmp_path / "memory.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Any) -> Path:
    """test.npz and pairs.npz, and no model anywhere."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.npz", [world.pairs()])
    write_labelled(tmp_path / "test.npz", world.labelled())
    return tmp_path


FREE = ("--memory-from", "pairs.npz", "--fuser", "reco")


def test_images_through_the_model(photos: Path) -> None:
    asked = ("photos", "--memory-from", "memory.csv", "--label-key", "kind", "--out", "runs/shapes")
    result = reco("eval", "study", *asked)
    assert result.exit_code == 0, result.output
    assert "Top-1 over all classes: 12 images, 12 classes" in result.stdout
    assert "next: reco report runs/shapes\nagain: reco eval study --config runs/shapes/config.json" in result.stdout
    run = photos / "runs" / "shapes"
    findings = Findings.read(run)
    assert findings.setup["pairs belong to classes by"] == "label key"
    assert findings.setup["test classes with pairs"] == 6
    assert findings.setup["class prompts"] == "'{}' (from the model)"
    time = next(section for section in findings.sections if section.key == "cost").tables[0]
    assert [row["name"] for row in time.rows][:2] == ["encode an image", "encode a text"]
    shown = (*findings.gains, *findings.harms)
    for case in shown:
        assert case.picture is not None
        with Image.open(run / "pictures" / case.picture) as picture:
            assert (picture.format, max(picture.size) <= 128) == ("WEBP", True)
    cached = {path: path.stat().st_mtime_ns for path in (run / "vectors").rglob("*.npy")}
    assert len(cached) == 2  # images and prompts
    again = reco("eval", "study", *asked[:-1], "runs/again", "--cache", run / "vectors")
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (run / "vectors").rglob("*.npy")} == cached
    assert not (photos / "runs" / "again" / "vectors").exists()


@pytest.mark.parametrize("place", ["as built", "copied", "from another folder"])
def test_cases_show_the_pictures_of_pairs_wherever_the_memory_is(
    photos: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their paths are relative to the table, which need not be where the command is run."""
    shop = photos / "shop"
    shop.mkdir()
    (photos / "memory.csv").rename(shop / "memory.csv")
    (photos / "large").rename(shop / "large")
    assert reco("memory", "build", "shop/memory.csv", "--memory", "memory").exit_code == 0
    memory = "memory"
    if place == "copied":
        shutil.copytree("memory", "elsewhere/memory")
        shutil.rmtree("memory")
        memory = "elsewhere/memory"
    elif place == "from another folder":
        (photos / "work").mkdir()
        monkeypatch.chdir(photos / "work")
        memory = "../memory"
    asked = (str(photos / "photos"), "--memory", memory, "--label-key", "kind", "--sections", "cases", "--no-gate")
    result = reco("eval", "study", *asked, "--out", photos / "run")
    assert result.exit_code == 0, result.output
    found = Findings.read(photos / "run")
    shown = [pair for case in (*found.gains, *found.harms) for pair in (*case.neighbours, *case.prompt_neighbours)]
    assert shown
    assert all(pair.picture and (photos / "run" / "pictures" / pair.picture).is_file() for pair in shown)


def test_bytes_on_disk_are_those_that_the_disk_gives(photos: Path) -> None:
    """The files of an embedded memory have holes: of the 160 MiB that their sizes add up to, few are there."""
    assert reco("memory", "build", "memory.csv", "--memory", "memory").exit_code == 0
    asked = ("photos", "--memory", "memory", "--label-key", "kind", "--sections", "cost")
    result = reco("eval", "study", *asked, "--out", "run")
    assert result.exit_code == 0, result.output
    tables = {table.title: table for table in Findings.read(Path("run")).sections[0].tables}
    said = {row["name"]: row["bytes"] for row in tables["bytes per pair"].rows}
    assert 1_000 < said["edge memory on disk, everything"] < 1_000_000


def test_the_next_commands_can_be_pasted(vectors: Path) -> None:
    result = reco("eval", "study", "test.npz", *FREE, "--sections", "main", "--out", "runs/May #1")
    next_, again = result.stdout.splitlines()[-2:]
    assert shlex.split(next_) == ["next:", "reco", "report", "runs/May #1"]
    assert shlex.split(again)[-4:] == ["--config", "runs/May #1/config.json", "--out", "runs/May #1-again"]
    assert reco(*shlex.split(next_)[2:], "--formats", "json").exit_code == 0


def test_ctrl_c_keeps_what_was_measured(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("eval", "study", "test.npz", *FREE, "--sections", "main,cases", "--out", "runs/a")
    with monkeypatch.context() as patched:
        press_ctrl_c(patched, at=1, of="sections")
        stopped = reco(*asked)
    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert stopped.stderr.endswith(
        "interrupted: encoded vectors and finished sections stay in runs/a; the same command resumes from there\n"
    )
    kept = {path.name: path.stat().st_mtime_ns for path in Path("runs/a/sections").iterdir()}
    assert list(kept) == ["main.json"]
    assert reco(*asked).exit_code == 0
    assert Path("runs/a/sections/main.json").stat().st_mtime_ns == kept["main.json"]


def test_several_models_must_be_of_one_encoder(photos: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"digest": "0" * 64}))
    asked = ("photos", "--memory-from", "memory.csv", "--fuser", "paper", "--model", model)
    refused = reco("eval", "study", *asked, "--model", other)
    assert refused.exit_code == 1
    assert refused.stderr.endswith("give trainings of one encoder, and study another encoder in a run of its own\n")
    shutil.copytree(model, tmp_path / "twin")
    same = failed(*(word if word != "paper" else "reco" for word in asked), "--model", tmp_path / "twin")
    assert "--fuser reco has no weights: several models would all be the same" in same
    result = reco("eval", "study", *asked, "--model", tmp_path / "twin", "--sections", "main", "--out", "runs/two")
    assert result.exit_code == 0, result.output
    table = Findings.read(Path("runs/two")).sections[0].tables[0]
    assert {"lowest", "highest"} <= {column.key for column in table.columns}
    assert table.rows[1]["lowest"] == table.rows[1]["highest"] == table.rows[1]["top1"]  # twins


def test_vectors_alone_and_again_by_the_configuration(vectors: Path) -> None:
    first = reco("eval", "study", "test.npz", *FREE, "--sections", "main,baselines,gate,cases", "--out", "runs/a")
    assert first.exit_code == 0, first.output
    second = reco("eval", "study", "--config", "runs/a/config.json", "--out", "runs/b")
    assert second.exit_code == 0, second.output
    assert "warning" not in second.stderr
    a, b = (Findings.read(Path("runs") / name) for name in "ab")
    assert a == b
    assert a.command == (
        "reco eval study test.npz --fuser reco --memory-from pairs.npz --sections main,baselines,gate,cases"
    )
    assert a.name == "test.npz"


@pytest.mark.filterwarnings("default")
def test_a_configuration_whose_data_have_changed_is_told(vectors: Path, world: Any) -> None:
    asked = ("eval", "study", "test.npz", *FREE, "--sections", "main")
    assert reco(*asked).exit_code == 0
    assert (vectors / "runs" / "test" / "findings.json").is_file()  # the default folder
    write_pairs(vectors / "pairs.npz", [world.pairs(each=2)])
    result = reco("eval", "study", "--config", "runs/test/config.json", "--out", "runs/b")
    assert "warning: not what the first run saw: gate, memory; the figures will differ" in result.stderr


def test_distractors_captions_and_a_development_set(vectors: Path, world: Any) -> None:
    import numpy as np

    from reco_plugin.data import Captioned, write_retrieval

    write_pairs(vectors / "other.npz", [world.pairs(each=1)])
    write_labelled(vectors / "dev.npz", world.labelled(each=1))
    write_retrieval(vectors / "captions.npz", Captioned("x", world.image, world.text, np.arange(40)))
    more = ("--distractors", "other.npz", "--dev", "dev.npz", "--captions", "captions.npz")
    result = reco("eval", "study", "test.npz", *FREE, *more, "--sections", "main,retrieval,harm", "--out", "run")
    assert result.exit_code == 0, result.output
    main, retrieval, harm = Findings.read(Path("run")).sections
    assert [table.title.partition(":")[0] for table in main.tables] == ["all classes"]  # nothing was set apart
    assert retrieval.tables
    assert any(str(row["memory"]).startswith("irrelevant pairs only: 40") for row in harm.tables[0].rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a labelled set to study"),
        (("test.npz", *FREE, "--sections", "mian"), "unknown section 'mian'"),
        (("test.npz", *FREE, "--label-key", "kind"), "'kind' is in no payload of the memory; there are: caption"),
        (("test.npz", *FREE, "--control", "x"), "--control needs a model"),
        (("gone.npz", *FREE), "gone.npz cannot be read"),
        (("test.npz", "--config", "run/config.json"), "--config says everything already: leave out source"),
        (("--config", "gone.json"), "gone.json is no configuration of a study"),
    ],
)
def test_an_error_is_one_line(vectors: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in failed(*arguments)
