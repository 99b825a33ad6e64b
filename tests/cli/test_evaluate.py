"""reco eval on vectors, without any model: tables, JSON, files, and errors as one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import eval_app
from reco_plugin.cli.commands import reports_errors
from reco_plugin.data import (
    Captioned,
    Labelled,
    read_pairs,
    read_records,
    write_labelled,
    write_pairs,
    write_retrieval,
)
from reco_plugin.errors import DataError
from reco_plugin.types import Pair, Records

CLASSES, D = 110, 64
FREE = ("--fuser", "reco")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and texts of a class are unrelated to the encoder; the memory knows which belong together."""
    folder = tmp_path_factory.mktemp("written")
    rng = np.random.default_rng(0)
    image, text = unit(rng.normal(size=(CLASSES, D))), unit(rng.normal(size=(CLASSES, D)))

    def near(centres: np.ndarray, each: int) -> np.ndarray:
        return unit(np.repeat(centres, each, 0) + 0.3 * unit(rng.normal(size=(CLASSES * each, D))))

    ids = [f"p{i}" for i in range(CLASSES * 5)]
    for suffix in (".npz", ".parquet"):
        write_pairs(folder / f"pairs{suffix}", [Records(ids, near(image, 5), near(text, 5), [{}] * len(ids))])
    labels, names = np.repeat(np.arange(CLASSES), 2), tuple(map(str, range(CLASSES)))
    write_labelled(folder / "test.npz", Labelled("x", near(image, 2), labels, names, (), text))
    write_retrieval(folder / "captions.npz", Captioned("x", near(image, 1), near(text, 1), np.arange(CLASSES)))
    return folder


@pytest.fixture
def files(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is written, which the test may change and works in."""
    monkeypatch.chdir(shutil.copytree(written, tmp_path, dirs_exist_ok=True))  # no ./triton_models, no ./reco.toml
    monkeypatch.delenv("RECO_MODEL", raising=False)
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(eval_app, list(arguments), catch_exceptions=False)


def test_zero_shot_of_vectors_needs_no_model(files: Path) -> None:
    result = run("zero-shot", "test.npz", "--memory-from", "pairs.parquet", *FREE, "--json", "--k", "5")
    assert (result.exit_code, result.stderr) == (0, "")
    stored = json.loads(result.stdout)
    top1 = {variant["refined"]: variant["top1"]["mean"] for variant in stored["variants"]}
    assert top1["image"] > top1["frozen"] + 0.3
    assert stored["options"] == {"k": 5}
    assert stored["setup"] == {"memory": "pairs.parquet", "fuser": "reco", "pairs": CLASSES * 5}


def test_a_table_on_stdout_and_json_in_a_file(files: Path) -> None:
    result = run("zero-shot", "test.npz", "--memory-from", "pairs.npz", *FREE, "--out", "result.json")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "zero-shot, test.npz: 220 images, 110 classes"
    assert result.stdout.splitlines()[-1] == "memory: 550 pairs"
    assert json.loads((files / "result.json").read_text())["images"] == 220


def test_a_result_without_a_place_is_refused_before_the_work(files: Path) -> None:
    """It was told after hours of encoding, and nothing printed."""
    result = run("zero-shot", "test.npz", "--out", "no/told.json", "--memory-from", "gone.npz", *FREE)
    assert result.exit_code == 1
    assert f"the folder {files / 'no'} does not exist: make it first" in result.stderr


def test_what_held_back_is_said_in_a_line_and_in_json(files: Path) -> None:
    """A third of the classes have pairs, twice each, so that there are enough to learn from."""
    pairs = next(iter(read_records("pairs.npz")))
    rows = np.flatnonzero(np.arange(CLASSES * 5) < CLASSES * 5 // 3)
    twice = [
        Records([f"{n}-{pairs.ids[r]}" for r in rows], pairs.image[rows], pairs.text[rows], [{}] * len(rows))
        for n in "ab"
    ]
    write_pairs(files / "third.npz", twice)
    result = run("zero-shot", "test.npz", "--memory-from", "third.npz", *FREE, "--out", "told.json")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("why text gains little: ")]
    (told,) = [reason for reason in json.loads(Path("told.json").read_text())["reasons"] if reason["refined"] == "text"]
    assert told["says"] in line


def test_retrieval_of_vectors(files: Path) -> None:
    result = run("retrieval", "captions.npz", "--memory-from", "pairs.npz", *FREE, "--json")
    assert result.exit_code == 0
    recall = {(v["direction"], v["refined"]): v["recall"]["R@1"] for v in json.loads(result.stdout)["variants"]}
    assert recall["text->image", "query"] > recall["text->image", "frozen"] + 0.3


def test_unseen_classes_of_a_file(files: Path) -> None:
    (files / "unseen.names").write_text("".join(f"{row}\n" for row in range(0, CLASSES, 2)))
    arguments = ("zero-shot", "test.npz", "--memory-from", "pairs.npz", *FREE)
    plain = json.loads(run(*arguments, "--json").stdout)
    split = json.loads(run(*arguments, "--json", "--unseen", "unseen.names").stdout)
    assert split["variants"] == plain["variants"]
    assert (split["unseen"]["classes"], split["seen"]["classes"]) == (CLASSES // 2, CLASSES // 2)
    image = split["generalised"][1]
    assert (image["seen"]["mean"] + image["unseen"]["mean"]) / 2 == pytest.approx(split["variants"][1]["top1"]["mean"])
    assert set(split) - set(plain) == {"unseen", "seen", "generalised"}


def test_with_a_cache_the_second_run_encodes_nothing(
    tmp_path: Path, model: Path, drawings: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = []
    for pair in drawings:
        pair.image.save(f"{pair.id}.png")
        rows.append({"image": f"{pair.id}.png", "text": pair.text, "label": pair.payload["colour"]})
    Path("set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in ("zero-shot", "retrieval"):
        arguments = (command, "set.jsonl", "--memory-from", "set.jsonl", "--model", str(model), "--json")
        plain, first = run(*arguments), run(*arguments, "--cache", "kept")
        assert (plain.exit_code, first.exit_code) == (0, 0)
        files = {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*.npy")}
        again = run(*arguments, "--cache", "kept")
        assert {path: path.stat().st_mtime_ns for path in Path("kept").rglob("*.npy")} == files != {}
        assert json.loads(plain.stdout) == json.loads(first.stdout) == json.loads(again.stdout)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawings: list[Pair]) -> Path:
    """photos/ with a folder of two drawings for each of 12 classes, and their pairs in pairs.csv."""
    monkeypatch.chdir(tmp_path)
    lines = ["id,image,text"]
    for pair in drawings:
        name = pair.text.split(" ", 2)[2]
        path = Path("photos") / name.replace(" ", "_") / f"{pair.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pair.image.save(path)
        lines.append(f"{pair.id},{path},{name}")
    Path("pairs.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def older(model: Path, folder: Path) -> Path:
    """The same model with a manifest that names no templates."""
    shutil.copytree(model, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["templates"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_templates_are_the_callers_else_the_sources_else_the_models(drawn: Path, model: Path) -> None:
    def told(command: str, *more: str, model: Path = model) -> tuple[str, dict]:
        arguments = (command, "photos" if command == "zero-shot" else ".", "--memory-from", "pairs.csv", *more)
        result = run(*arguments, "--model", str(model), "--out", "told.json")
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.stdout.splitlines() if line.startswith("prompts: ")]
        stored = json.loads(Path("told.json").read_text())
        return line, stored["prompts"] | {"frozen": stored["variants"][0]["top1"]}

    by_model = told("zero-shot")
    assert by_model[0] == "prompts: '{}' (from the model)"
    given, same = told("zero-shot", "--template", "a photo of a {}."), told("zero-shot", "--template", "{}")
    assert given[0] == "prompts: 'a photo of a {}.' (as asked for; the model was trained with '{}')"
    assert same[1] == by_model[1] | {"from": "caller"}
    assert same[1]["frozen"] != given[1]["frozen"], "the template changes what is measured"
    by_default = told("zero-shot", model=older(model, drawn / "older"))
    assert by_default[0] == "prompts: 'a photo of a {}.' (by default: neither source nor model names any)"
    assert by_default[1] == given[1] | {"from": "default"}
    Path("photos/templates.txt").write_text("{} icon\na {}\n")
    assert told("zero-shot")[0] == "prompts: '{} icon' and 1 more (from the source; the model was trained with '{}')"


def test_the_memory_beside_the_user_is_taken_as_by_every_command(drawn: Path, model: Path) -> None:
    asked = ("zero-shot", "photos", "--model", str(model))
    assert "memory: 0 pairs" in run(*asked).output
    with Reco.open(model, memory="memory") as reco:
        pairs = reco.memory.add(read_pairs("pairs.csv"))
    assert f"memory: {pairs:,} pairs" in run(*asked).output


def test_vectors_need_no_option(files: Path) -> None:
    asked = ("retrieval", "captions.npz", "--memory-from", "pairs.npz", "--json")
    unset, named = run(*asked), run(*asked, *FREE)
    assert unset.exit_code == 0, unset.stderr
    assert "warning" not in unset.stderr
    assert json.loads(unset.stdout)["variants"] == json.loads(named.stdout)["variants"] != []


def test_the_caution_of_the_environment_counts(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--json")
    cautious, balanced = (json.loads(run(*asked, "--caution", one).stdout) for one in ("cautious", "balanced"))
    monkeypatch.setenv("RECO_CAUTION", "cautious")
    found = json.loads(run(*asked).stdout)
    assert found["variants"] == cautious["variants"] != balanced["variants"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--fuser", "paper"),
            "Vectors alone need no model: --fuser reco",
        ),
        (("zero-shot", "test.npz", "--memory-from", "pairs.npz", "--memory", "m", *FREE), "--memory or --memory-from"),
        (("zero-shot", "test.npz", "--template", "a {}", *FREE), "leave them out"),
        (
            ("zero-shot", "test.npz", "--cache", "c", "--memory-from", "pairs.npz", *FREE),
            "--cache keeps what was encoded",
        ),
        (("zero-shot", "test.npz", "--unseen", "gone.txt", *FREE), "gone.txt cannot be read"),
    ],
)
def test_an_error_is_one_line_on_stderr(files: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


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
