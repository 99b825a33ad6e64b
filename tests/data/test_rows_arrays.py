"""Rows of arrays: npz, and clip-retrieval's output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, rejected_of, unit, write_parquet

from reco_plugin.data import open_rows

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


def spoilt(rows: int, dtype: type = np.float32) -> np.ndarray:
    """Vectors of which row 2 holds NaN and row 3 is of norm 3."""
    vectors = unit(rows).astype(dtype)
    vectors[1, 0] = np.nan
    vectors[2] *= 3
    return vectors


def test_the_recipe_for_clip_retrieval_makes_a_pair_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, count in ((2, 4), (10, 3), (0, 2)):
        for kind, seed in (("img_emb", number), ("text_emb", number + 1)):
            Path("embeddings", kind).mkdir(parents=True, exist_ok=True)
            np.save(f"embeddings/{kind}/{kind}_{number}.npy", unit(count, 8, seed).astype(np.float16))
        names = [f"{number}/{row}.jpg" for row in range(count)]
        columns = {"image_path": names, "caption": [f"no. {n}" for n in names]}
        write_parquet(Path(f"embeddings/metadata/metadata_{number}.parquet"), columns)
    (recipe,) = [block for block in PAGE.read_text().split("```python\n") if "img_emb" in block]
    exec(compile(recipe.partition("```")[0], str(PAGE), "exec"), {})
    found = {pair.id: pair for pair in pairs_of(open_rows("pairs.parquet"))}
    assert len(found) == 9
    np.testing.assert_allclose(found["10/0.jpg"].image, unit(3, 8, 10)[0], atol=1e-3)
    np.testing.assert_allclose(found["2/3.jpg"].text, unit(4, 8, 3)[3], atol=1e-3)
    assert found["2/3.jpg"].payload == {"caption": "no. 2/3.jpg"}


def test_npz_with_faults(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    payload = np.array(['{"caption": "x", "n": 1}', "", "", "[1]", "", ""])
    ids = np.array(["a", "b", "c", "d", "", "a"])
    np.savez(path, id=ids, image=spoilt(6), text=unit(6, seed=1), payload=payload)
    rows = open_rows(path)
    pair, again = pairs_of(rows)  # the writer looks for repeated ids
    assert (pair.id, pair.payload, again.id) == ("a", {"caption": "x", "n": 1}, "a")
    found = [(row.id, row.reason.partition(",")[0]) for row in rejected_of(rows)]
    assert found[:3] == [
        ("b", "holds NaN or infinity"),
        ("c", "has norm 3"),
        ("d", "payload is '[1]'"),
    ]
    assert found[3][0] is None
    np.savez(path, id=np.array([1.5, 2]), image=unit(2), text=unit(2))
    assert rejected_of(open_rows(path))[0].reason == "expected a text or whole number, got 1.5"
    np.savez(path, id=ids, image=unit(6), text=unit(5))
    (bad,) = open_rows(path)
    assert "text has shape (5, 4), expected 6 rows" in bad.reason
