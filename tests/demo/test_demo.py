"""``reco demo`` as a user runs it, and the page that it writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import some_drawings
from chromium_started import silent_page
from learned_once import learned_once
from some_drawings import load_some
from typer.testing import CliRunner

from reco_plugin.cli.app import app
from reco_plugin.ingest.corrections import read_corrections
from reco_plugin.memory import open_memory
from reco_plugin.sources.images import allowed_folders

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("quickstart")]  # one worker runs the whole demo

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("unseen", "seen", "all")
Twice = tuple[Path, dict[str, Any], subprocess.CompletedProcess[str]]
SIDES = {"frozen", "both", "image", "text"}


def demo(out: Path, model: Path = ROOT / "triton_models") -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECO_MODEL", str(model))
        return CliRunner().invoke(app, ["demo", "--out", str(out)], catch_exceptions=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first demo learned, which another of the same drawings would learn again."""
    return tmp_path_factory.mktemp("learned")


@pytest.fixture(scope="module")
def ran(out: Path, learned: Path) -> Any:
    """With some of the drawings; tests/quickstart/test_benchmark.py says what the method promises, of the same."""
    with pytest.MonkeyPatch.context() as patch, learned_once(learned):
        patch.setattr("reco_plugin.demo.run.load", load_some)
        result = demo(out)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def results(ran: Any, out: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((out / "results.json").read_text())
    return stored


def test_results_have_exactly_the_promised_keys_and_show_what_the_demo_claims(results: dict[str, Any]) -> None:
    assert set(results) == {*GROUPS, "without_unseen", "empty_memory", "pairs", "clean"}
    assert set(results["without_unseen"]) == set(results["empty_memory"]) == set(GROUPS)
    for stage in (results, results["without_unseen"], results["empty_memory"]):
        for group in GROUPS:
            assert set(stage[group]) == SIDES
            assert all(0 <= value["top1"] <= value["top5"] <= 100 for value in stage[group].values())
    assert results["pairs"] == 1464
    unseen = results["unseen"]
    assert unseen["both"]["top1"] - unseen["frozen"]["top1"] >= 28


def test_exchanged_captions_are_listed_and_the_decisions_are_a_file_that_a_sync_reads(
    results: dict[str, Any], out: Path
) -> None:
    assert set(results["clean"]) == {"right", "exchanged", "corrected", "listed"}
    decisions = read_corrections(out / "clean" / "corrections.csv")
    assert len(decisions) == 30
    assert sum(one.decision == "replace" for one in decisions.values()) == results["clean"]["listed"][1] > 0


def test_the_terminal_shows_the_results_and_the_way_on(ran: Any, results: dict[str, Any], out: Path) -> None:
    gain = results["unseen"]["both"]["top1"] - results["unseen"]["frozen"]["top1"]
    assert f"{gain:+.1f} points top-1" in ran.stdout
    assert str(out / "index.html") in ran.stdout
    assert f"memory search 'a fox' --memory {out / 'memory'}" in ran.stdout


def test_the_playground_finds_a_drawing_for_each_pair(ran: Any, out: Path) -> None:
    (folder,) = allowed_folders(out / "memory")
    with closing(open_memory(out / "memory", None, create=False)) as memory:
        named = [folder / str(payload["image"]) for _, payload in memory.payloads()]
    assert len(named) == len(set(named)) == 1464
    assert {file.is_file() for file in named} == {True}


def test_the_tour_runs_on_what_the_demo_leaves(ran: Any, out: Path, tmp_path: Path) -> None:
    rows = (out / "catalogue.csv").read_text("utf-8").splitlines()
    assert rows[0] == "id,image,text,style"
    assert len(rows) > 350
    classes = sorted(path for path in (out / "photos").iterdir())
    assert len(classes) > 70
    assert all(list(path.glob("*.png")) for path in classes)
    few = tmp_path / "photos"
    for path in classes[:20]:
        shutil.copytree(path, few / path.name)
    (out / "few.csv").write_text("\n".join(rows[:80]) + "\n", "utf-8")  # beside the drawings that it names
    memory = str(tmp_path / "memory")
    for arguments in (["memory", "build", str(out / "few.csv")], ["eval", str(few), "--out", str(tmp_path / "eval")]):
        done = CliRunner().invoke(
            app, [*arguments, "--memory", memory, "--model", str(ROOT / "triton_models")], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
    assert (tmp_path / "eval" / "eval.html").is_file()


def test_the_page_stands_alone_and_shows_gains_and_harms(ran: Any, out: Path) -> None:
    page = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'\b(?:src|href|srcset|action|data)="([^"]*)"', page)
    assert links and all(link.startswith("data:image/") for link in links)
    assert not re.search(r"<(?:link|iframe|object)\b|url\(|@import", page)
    assert len(page) < 3e6
    gains = re.findall(r'<b class="(up|down)">[+-]100 points', page)
    assert gains.count("up") == 5
    assert gains.count("down") > 0
    for credit in ("OpenMoji", "CC-BY-SA-4.0", "Twemoji", "Emojibase", "ICLR 2024"):
        assert credit in page


@pytest.mark.browser
def test_thirty_keys_on_the_page_save_the_decisions_of_the_demo(ran: Any, out: Path, browser: Any) -> None:
    decided = read_corrections(out / "clean" / "corrections.csv")
    with silent_page(browser, out / "clean" / "clean.html") as page:
        for card in page.locator(".caption").all():
            ((id_, _), *_) = json.loads(card.get_attribute("data-pairs"))
            one = decided.get(id_)
            if one is None:
                page.keyboard.press("ArrowDown")
            elif one.decision == "right" or one.new == card.get_attribute("data-suggestion"):
                page.keyboard.press("n" if one.decision == "right" else "y")
            else:
                page.keyboard.press("e")
                page.keyboard.type(one.new)
                page.keyboard.press("Enter")
        with page.expect_download() as download:
            page.keyboard.press("s")
        download.value.save_as(out / "clean" / "saved.csv")
    assert read_corrections(out / "clean" / "saved.csv") == decided


@pytest.mark.browser
def test_a_narrow_screen_needs_no_scrolling_sideways(ran: Any, out: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((out / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


AGAIN = """
import sys
from pathlib import Path
class Absent:
    def find_spec(self, name, *_):
        if name in ("torch", "open_clip", "resvg_py"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
from learned_once import learned_once
from some_drawings import load_some
from reco_plugin.demo import run
run.load = load_some
model, out, learned = map(Path, sys.argv[1:])
with learned_once(learned):
    run.run(model, out)
assert not [name for name in sys.modules if name.split(".")[0] in ("torchvision", "transformers", "onnx")]
"""


@pytest.fixture(scope="module")
def twice(ran: Any, out: Path, learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """The demo's folder, elsewhere, and the demo again where there is no torch: the first results, the second run."""
    out = Path(shutil.copytree(out, tmp_path_factory.mktemp("twice") / "out"))
    first = json.loads((out / "results.json").read_text())
    (out / "memory" / "stray").touch()
    command = [sys.executable, "-c", AGAIN, ROOT / "triton_models", out, learned]
    paths = os.pathsep.join([str(Path(some_drawings.__file__).parent), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths}
    return out, first, subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_second_run_replaces_the_first(twice: Twice) -> None:
    out, first, again = twice
    assert again.returncode == 0, again.stderr
    assert "points top-1" in again.stdout
    new = json.loads((out / "results.json").read_text())
    assert new["pairs"] == first["pairs"]  # replaced, not added to
    assert new["empty_memory"] == first["empty_memory"]
    for group in GROUPS:  # equally near neighbours come in any order, and the last of them may be left out
        assert new[group]["both"]["top1"] == pytest.approx(first[group]["both"]["top1"], abs=0.5)
    assert not (out / "memory" / "stray").exists()
    assert not list(out.glob("*.tmp"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [("memory", "memory.json"), ("photos", "cat.png")],
)
def test_a_folder_that_the_demo_did_not_make_stays(tmp_path: Path, folder: str, name: str) -> None:
    """``reco demo --out .`` beside somebody's own ./memory, or ./photos, must not touch it."""
    mine = tmp_path / folder / name
    mine.parent.mkdir()
    mine.write_text("mine")
    result = demo(tmp_path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / folder} ")
    assert "--out" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == [folder, name]
    assert mine.read_text() == "mine"


def test_without_a_model_it_ends_at_once_and_says_why(tmp_path: Path) -> None:
    result = demo(tmp_path / "out", model=tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no model at ")
    assert result.stderr.count("\n") == 1  # no progress bar before it either
    assert not (tmp_path / "out").exists()
