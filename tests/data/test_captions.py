"""Images with several captions each: rows of a data set of the hub, vectors, and tables with bad rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sources import png

from reco_plugin.data import Captioned, read_pairs, read_retrieval, write_retrieval

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def test_the_recipe_for_the_hub_makes_one_row_of_each_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    found = {
        "image": [{"bytes": png(shade), "path": None} for shade in (0, 9)],
        "caption": [["a fox", "fox"], ["bear"]],
    }
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
    datasets.Dataset.from_dict(found, features=features).to_parquet("hub.parquet")
    (recipe,) = [block for block in PAGE.read_text().split("```python\n") if "load_dataset" in block]
    recipe = recipe.partition("```")[0].replace(
        '"nlphuji/flickr30k", split="test"', '"parquet", data_files="hub.parquet", split="train"'
    )
    exec(compile(recipe, str(PAGE), "exec"), {})
    assert [(pair.id, pair.text) for pair in read_pairs("flickr30k")] == [
        ("0#0", "a fox"),
        ("0#1", "fox"),
        ("1#0", "bear"),
    ]
    made = read_retrieval("flickr30k")
    assert (made.texts, made.text_of_image.tolist()) == (["a fox", "fox", "bear"], [0, 0, 1])
    assert Path(made.images[1]).read_bytes() == png(9)


def test_a_limit_of_vectors_keeps_texts_with_their_images(tmp_path: Path) -> None:
    images, texts = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[2, 0, 2, 3, 1]]
    write_retrieval(tmp_path / "r.npz", Captioned("r", images, texts, np.array([2, 0, 2, 3, 1])))
    found = read_retrieval(f"{tmp_path / 'r.npz'}?limit=2")  # images 0 and 2
    np.testing.assert_array_equal(found.images, images[[0, 2]])
    assert found.text_of_image.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found.texts, found.images[found.text_of_image])
