"""``reco train`` and ``reco export`` from a table of images to a model that refines."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from ctrl_c import press_ctrl_c
from PIL import Image, ImageDraw
from qdrant_stand_in import Engine, serving
from small_clip import DIMENSION
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.data import write_pairs
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.models.open_clip import load_frozen
from reco_plugin.models.train import FUSION, TorchFuser, load_fusions
from reco_plugin.refine import Refiner
from reco_plugin.types import Records

pytestmark = pytest.mark.xdist_group("export")  # as test_export.py
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "brown", "black")
EACH = 8


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 64 drawings of eight things."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECO_MODEL", raising=False)
    rng = random.Random(0)
    with (tmp_path / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "image", "text", "sku", "kind"])
        for number in range(len(COLOURS) * EACH):
            colour, image = COLOURS[number % len(COLOURS)], Image.new("RGB", (48, 40), "white")
            x, y = rng.randrange(20), rng.randrange(20)
            ImageDraw.Draw(image).ellipse((x, y, x + 18, y + 14), fill=colour)
            image.save(tmp_path / f"{number}.png")
            rows.writerow([f"p{number}", f"{number}.png", f"a {colour} ball number {number}", colour, "ball"])
    return tmp_path


@pytest.fixture
def reco(vit: str) -> Callable[..., Result]:
    """The command line, with the model filled in for train and export."""

    def run(command: str, *arguments: str) -> Result:
        words = ["model", command, "--model", vit] if command in ("train", "export") else [command]
        return CliRunner().invoke(app, [*words, *map(str, arguments)])

    return run


def train(reco: Callable[..., Result], *more: str) -> Result:
    return reco(
        "train", "shop.csv", "--out", "run", "--group", "sku", "--steps", "10", "--batch", "8", "--k", "4",
        "--near-duplicate", "1", *more,
    )  # fmt: skip


def fine(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def fails(result: Result, *words: str) -> None:
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), (result.output, result.exception)
    error = next(line for line in result.output.splitlines() if "error: " in line)
    assert all(word in error for word in words), error


def test_ctrl_c_names_the_folder_and_the_command_goes_on(
    shop: Path, reco: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        press_ctrl_c(patched, at=2)  # images are encoded
        stopped = train(reco)
    assert stopped.exit_code == 130
    assert "encoded vectors stay in run" in stopped.stderr
    fine(train(reco))


@pytest.mark.parametrize("fuser", ["paper", "reco"])
def test_from_a_table_to_a_model_that_refines(fuser: str, shop: Path, reco: Callable[..., Result], vit: str) -> None:
    out = fine(train(reco)).output
    assert f"reco model export --model {vit} --fusion run --out my_model" in out
    fine(reco("export", "--fusion", "run", "--out", "model", *(["--fuser", "paper"] if fuser == "paper" else [])))
    with Reco.open("model", memory="memory", threads=1) as model:
        assert (model.manifest.fusion.fuser, model.manifest.fusion.trained_on) == (fuser, "shop.csv")
        assert (model.manifest.policy.k, model.manifest.fusers) == (4, ("reco", "paper"))
        assert model.manifest.fingerprint.digest == load_frozen(vit).digest
    added = CliRunner().invoke(app, ["memory", "add", "shop.csv", "--model", "model", "--memory", "memory"])
    assert "64 pairs" in fine(added).output
    with Reco.open("model", memory="memory", threads=1) as model:
        images = [f"{i}.png" for i in range(6)]
        plain = model.embed_images(images, refine=False)
        refined = model.refine(plain, modality="image", explain=True, gate=False)
        assert refined.neighbours is not None and refined.neighbours.ids[3][0] == "p3"
        assert (refined.moved > 1e-4).all()
        np.testing.assert_allclose(np.linalg.norm(refined.vectors, axis=1), 1, atol=1e-5)
        trained = load_fusions(Path("run") / FUSION)
        in_torch = Refiner(model.memory, TorchFuser(trained), k=4)
        texts = model.embed_texts([f"a {colour} ball number 3" for colour in COLOURS], refine=False)
        for modality, vectors in (("image", plain), ("text", texts)):
            served = model.refine(vectors, modality=modality, explain=True, fuser="paper")
            expected = in_torch.refine(vectors, modality=modality, explain=True)
            assert np.abs(served.vectors - vectors).max() > 1e-3
            for part in ("vectors", "reliability", "weights"):
                np.testing.assert_allclose(getattr(served, part), getattr(expected, part), atol=1e-5, err_msg=part)
        assert model.embed_texts(["a red ball"]).shape == (1, DIMENSION)


def test_the_same_call_again_goes_on_from_what_is_there(shop: Path, reco: Callable[..., Result]) -> None:
    fine(train(reco))
    (vectors,) = Path("run").glob("vectors-*.npz")
    before, weights = vectors.stat().st_mtime_ns, load_fusions(Path("run") / FUSION).state_dict()
    fine(train(reco))
    again = load_fusions(Path("run") / FUSION).state_dict()
    assert vectors.stat().st_mtime_ns == before and all(torch.equal(weights[name], again[name]) for name in weights)
    assert [path for path in Path("run").iterdir() if path.suffix in (".tmp", ".partial")] == []


def test_vectors_of_a_start_with_other_pairs_are_not_used(shop: Path, reco: Callable[..., Result]) -> None:
    """Of another source, of the same one with another caption, and with another picture behind a path."""
    table = Path("shop.csv")
    Path("other.csv").write_text("\n".join(table.read_text().splitlines()[:41]))
    for source in ("other.csv", "shop.csv"):  # starts that end after encoding
        fails(reco("train", source, "--out", "run", "--group", "brand"), "no 'brand'")
    table.write_text(table.read_text().replace("a red ball number 0", "something else"))
    fine(train(reco))
    Image.new("RGB", (48, 40), "black").save("0.png")
    fine(train(reco))
    assert len(list(Path("run").glob("vectors-*.npz"))) == 4


@pytest.mark.parametrize("change", [("--steps", "11"), ("--heads", "4"), ("--seed", "3"), ("--near-duplicate", "0.99")])
def test_another_recipe_in_the_same_folder_is_refused(
    change: tuple[str, str], shop: Path, reco: Callable[..., Result]
) -> None:
    fine(train(reco))
    kept = (Path("run") / "recipe.json").read_text()
    fails(train(reco, *change), "another recipe", "run")
    assert (Path("run") / "recipe.json").read_text() == kept and json.loads(kept)["steps"] == 10


def test_a_mistake_does_not_bar_the_folder(shop: Path, reco: Callable[..., Result]) -> None:
    fails(train(reco, "--heads", "3"), "40", "3 heads")
    fails(train(reco, "--device", "warp"), "device 'warp'")
    fails(train(reco, "--memory", "nowhere"), "nowhere")
    assert not Path("run").exists(), "told before anything is encoded"
    fails(train(reco, "--group", "brand"), "64 pairs have no 'brand'", "'p0'")
    fails(train(reco, "--group", "kind"), "pairs of at least two groups")
    fine(train(reco))


def test_a_rate_that_is_too_high_is_told_as_soon_as_the_loss_is_no_number(
    shop: Path, reco: Callable[..., Result]
) -> None:
    fails(train(reco, "--lr", "inf"), "--lr", "finite")
    fails(train(reco, "--lr", "1e30", "--steps", "30"), "the loss is nan at step 10", "a lower --lr")
    assert not (Path("run") / FUSION).exists()


def test_pairs_that_cannot_be_used_are_named(shop: Path, reco: Callable[..., Result]) -> None:
    fails(reco("train", "none.csv", "--out", "run"), "none.csv")
    Path("3.png").write_bytes(b"no image")
    fails(train(reco), "3.png")
    assert list(Path("run").glob("*")) == [] if Path("run").exists() else True
    table = Path("shop.csv").read_text()
    Path("shop.csv").write_text(table.replace("p3,", "p2,").replace(",3.png", ",4.png"))
    fails(train(reco), "shop.csv", "id 'p2' came before")
    Path("shop.csv").write_text(table.replace(",3.png", ",4.png"))
    fine(train(reco))  # what failed left nothing behind that would
    Path("file").write_text("")
    fails(reco("train", "shop.csv", "--out", "file"), "file is a file")


def test_vectors_of_another_encoder_are_refused(shop: Path, reco: Callable[..., Result]) -> None:
    side = np.eye(16, dtype=np.float32)
    write_pairs("pairs.npz", [Records([str(i) for i in range(16)], side, side, [{}] * 16)])
    fails(reco("train", "pairs.npz", "--out", "run"), "16", "40")
    side = np.eye(DIMENSION, dtype=np.float32)
    captions = [{"caption": f"a {colour} ball"} for colour in COLOURS * 5]
    write_pairs("pairs.npz", [Records([str(i) for i in range(DIMENSION)], side, side, captions)])
    fails(reco("train", "pairs.npz", "--out", "run"), "pairs.npz holds text vectors of another encoder", "check=0")
    fine(reco("train", "pairs.npz?check=0", "--out", "run", "--steps", "2", "--batch", "8", "--k", "4"))


def test_a_separate_memory_is_retrieved_from(shop: Path, reco: Callable[..., Result], vit: str) -> None:
    clip = load_frozen(vit)
    fingerprint = Fingerprint(clip.name, clip.digest, clip.dimension)
    memory = open_memory("memory", fingerprint)
    memory.close()
    fails(train(reco, "--memory", "memory"), "memory", "empty")
    rng = np.random.default_rng(0)
    side = rng.normal(size=(12, DIMENSION))
    side = (side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32)
    memory = open_memory("memory", fingerprint)
    memory.upsert(Records([f"m{i}" for i in range(12)], side, side[::-1].copy(), [{}] * 12))
    memory.close()
    fine(train(reco, "--memory", "memory"))
    other = open_memory("other", Fingerprint("another", "cd" * 32, DIMENSION))
    other.close()
    fails(reco("train", "shop.csv", "--out", "run2", "--memory", "other"), "another")


def test_pairs_without_a_group_show_only_themselves(
    shop: Path, reco: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three with no, no and a blank value, one whose value is another's id, and a red one."""
    from reco_plugin.models import run

    table = (shop / "shop.csv").read_text()
    for number, colour, value in ((0, "red", ""), (1, "green", ""), (2, "blue", "  "), (3, "yellow", "p0")):
        table = table.replace(f"ball number {number},{colour},", f"ball number {number},{value},")
    (shop / "shop.csv").write_text(table)
    seen: list[list[str]] = []
    gather = run.gather
    monkeypatch.setattr(run, "gather", lambda *args: seen.append(args[3]) or gather(*args))
    fine(train(reco))
    (groups,) = seen
    assert [groups.count(group) for group in groups[:4]] == [1, 1, 1, 1]
    assert (groups[8], groups.count("red"), groups[3]) == ("red", EACH - 1, "p0")


def test_a_memory_on_a_server_is_opened_with_the_settings(
    shop: Path, reco: Callable[..., Result], vit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key, options and collection; the key is in no recipe."""
    clip = load_frozen(vit)
    rng = np.random.default_rng(0)
    side = rng.normal(size=(12, clip.dimension))
    side = (side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32)
    with serving(engine=Engine(key="hush-4711")) as server:
        url = server.url("http")
        fingerprint = Fingerprint(clip.name, clip.digest, clip.dimension)
        memory = open_memory(url, fingerprint, collection="shop", api_key="hush-4711")
        memory.upsert(Records([f"m{i}" for i in range(12)], side, side[::-1].copy(), [{"sku": "red"}] * 12))
        memory.close()
        fails(train(reco, "--memory", f"{url}?collection=shop"), "cannot open the memory", "RECO_MEMORY_API_KEY")
        monkeypatch.setenv("RECO_MEMORY_API_KEY", "hush-4711")
        fails(train(reco, "--memory", f"{url}?collection=elsewhere"), "elsewhere")
        monkeypatch.setenv("RECO_MEMORY_COLLECTION", "shop")
        server.engine.seen.clear()
        fine(train(reco, "--memory", url))
        assert server.engine.seen["query"] > 0
    recipe = (Path("run") / "recipe.json").read_text()
    assert "hush" not in recipe


def test_nothing_to_retrieve_is_nothing_to_learn_from(shop: Path, reco: Callable[..., Result]) -> None:
    fails(train(reco, "--near-duplicate", "0"), "no pair finds a neighbour", "--near-duplicate")


@pytest.mark.parametrize("command", ["train", "export"])
def test_a_missing_package_is_named_with_its_install_line(
    command: str, shop: Path, reco: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")

    monkeypatch.setattr("reco_plugin.models.encoder.load_frozen", missing)
    arguments = ["shop.csv", "--out", "run"] if command == "train" else ["--out", "model"]
    fails(reco(command, *arguments), "tensorboard", "pip install 'reco-plugin[train]'")


def test_export_as_json_of_an_untrained_model_and_its_refusals(shop: Path, reco: Callable[..., Result]) -> None:
    result = fine(reco("export", "--out", "model", "--json"))
    parities = json.loads(result.stdout)
    assert [p["graph"] for p in parities] == ["clip_image", "clip_text"]
    assert all(p["least_cosine"] > 0.99999 for p in parities)
    fails(reco("export", "--out", "model", "--fusion", "nowhere"), "nowhere")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    fails(reco("export", "--out", "mine"), "mine", "no model folder")
