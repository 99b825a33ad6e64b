"""``reco model train`` and ``export``: from a table of images to a model that refines as torch does."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from small_clip import DIMENSION

from reco_plugin import Reco
from reco_plugin.errors import ConfigError, DataError, FingerprintMismatch, RecoError
from reco_plugin.export.export_options import ExportOptions, Recipe
from reco_plugin.fusion.refiner import Refiner
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.sources import read_pairs, write_pairs
from reco_plugin.types import Records, other

pytest.importorskip("torch")
from reco_plugin.export.onnx_export import export_model
from reco_plugin.export.open_clip import load_frozen
from reco_plugin.export.train_layer import FUSION, Fusions, TorchFuser, train

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("export")]  # as test_export.py
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "brown", "black")
EACH = 4


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of drawings of eight things."""
    monkeypatch.chdir(tmp_path)
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
def run(vit: str, shop: Path) -> Callable[..., Fusions]:
    """Train on the shop for a few steps."""

    def start(source: str = "shop.csv", **options: Any) -> Fusions:
        usual = {"group": "sku", "steps": 10, "batch": 8, "k": 4, "near_duplicate": 1.0}
        return train(Recipe(model=vit, source=source, **usual | options), Path("run"))

    return start


def test_from_a_table_to_a_model_that_refines(run: Callable[..., Fusions], vit: str) -> None:
    trained = run()
    export_model(ExportOptions(model=vit, fusion=Path("run"), fuser="paper"), Path("model"))
    with Reco.open("model", memory="memory", threads=1) as model:
        assert (model.manifest.fusion.fuser, model.manifest.fusion.trained_on) == ("paper", "shop.csv")
        assert (model.manifest.policy.k, model.manifest.fusers) == (4, ("reco", "paper"))
        model.memory.add(read_pairs("shop.csv"))
        images = model.embed_images([f"{i}.png" for i in range(6)], refine=False)
        texts = model.embed_texts([f"a {colour} ball number 3" for colour in COLOURS], refine=False)
        in_torch = Refiner(model.memory, TorchFuser(trained), k=4)
        for modality, vectors in (("image", images), ("text", texts)):
            served = model.refine(vectors, modality=modality, target=other(modality), explain=True)  # type: ignore[arg-type]
            expected = in_torch.refine(vectors, modality=modality, explain=True)  # type: ignore[arg-type]
            assert (served.moved > 1e-6).all()
            for part in ("vectors", "reliability", "weights"):
                np.testing.assert_allclose(getattr(served, part), getattr(expected, part), atol=1e-5, err_msg=part)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"heads": 3}, ConfigError, "3 heads"),
        ({"group": "brand"}, DataError, "brand"),
        ({"group": "kind"}, DataError, "two groups"),
        ({"near_duplicate": 0.0}, DataError, "--near-duplicate"),
        ({"lr": 1e30, "steps": 30}, ConfigError, "--lr"),
    ],
)
def test_a_mistake_is_named_and_leaves_no_layer(
    options: dict[str, Any], error: type[RecoError], word: str, run: Callable[..., Fusions]
) -> None:
    with pytest.raises(error, match=word):
        run(**options)
    assert not (Path("run") / FUSION).exists()


def test_vectors_of_another_encoder_are_refused(run: Callable[..., Fusions]) -> None:
    side = np.eye(DIMENSION, dtype=np.float32)
    captions = [{"caption": f"a {colour} ball"} for colour in COLOURS * 5]
    write_pairs("pairs.npz", [Records([str(i) for i in range(DIMENSION)], side, side, captions)])
    with pytest.raises(FingerprintMismatch, match="check=0"):
        run("pairs.npz", group=None)
    run("pairs.npz?check=0", group=None)


def test_a_separate_memory_is_retrieved_from(run: Callable[..., Fusions], vit: str) -> None:
    clip = load_frozen(vit)
    fingerprint = Fingerprint(clip.name, clip.digest, clip.dimension)
    open_memory("memory", fingerprint).close()
    with pytest.raises(DataError, match="empty"):
        run(memory="memory")
    side = np.eye(DIMENSION, dtype=np.float32)[:12]
    memory = open_memory("memory", fingerprint)
    memory.upsert(Records([f"m{i}" for i in range(12)], side, side[::-1].copy(), [{}] * 12))
    memory.close()
    run(memory="memory")
    open_memory("other", Fingerprint("another", "cd" * 32, DIMENSION)).close()
    with pytest.raises(FingerprintMismatch):
        run(memory="other")
