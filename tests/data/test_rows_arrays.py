"""Rows of arrays: npz, a folder of npy, clip-retrieval's output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, rejected_of, unit, write_parquet

from reco_plugin.data import open_rows, rows_arrays
from reco_plugin.errors import DataError


def spoilt(rows: int, dtype: type = np.float32) -> np.ndarray:
    """Vectors of which row 2 holds NaN and row 3 is of norm 3."""
    vectors = unit(rows).astype(dtype)
    vectors[1, 0] = np.nan
    vectors[2] *= 3
    return vectors


def clip_retrieval(folder: Path, *, texts: bool = True, dtype: type = np.float16) -> Path:
    """Three files whose numbers are not in the order of their names."""
    for number, rows in ((2, 4), (10, 3), (0, 2)):
        for kind in ("img_emb", "text_emb") if texts else ("img_emb",):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            vectors = unit(rows, 8, number) if kind == "text_emb" or number != 2 else spoilt(rows)
            np.save(folder / kind / f"{kind}_{number}.npy", vectors.astype(dtype))
        names = [f"{number}/{row}.jpg" for row in range(rows)]
        columns = {"image_path": names, "caption": [f"no. {n}" for n in names], "url": [f"http://x/{n}" for n in names]}
        write_parquet(folder / "metadata" / f"metadata_{number}.parquet", columns)
    return folder


def test_clip_retrieval(tmp_path: Path) -> None:
    rows = open_rows(clip_retrieval(tmp_path))
    assert rows.total == 9
    assert [part.name.rpartition("/")[2] for part in rows.parts] == ["img_emb_0.npy", "img_emb_2.npy", "img_emb_10.npy"]
    pairs = pairs_of(rows)
    assert [pair.id for pair in pairs] == [
        *("0/0.jpg", "0/1.jpg", "2/0.jpg", "2/3.jpg", "10/0.jpg", "10/1.jpg", "10/2.jpg")
    ]
    assert pairs[0].payload == {"caption": "no. 0/0.jpg", "url": "http://x/0/0.jpg"}
    np.testing.assert_allclose(pairs[4].image, unit(3, 8, 10)[0], atol=1e-3)
    np.testing.assert_allclose([np.linalg.norm(pair.text) for pair in pairs], 1, atol=1e-6)
    assert [(row.where, row.id) for row in rejected_of(rows)] == [
        (f"{tmp_path}/img_emb/img_emb_2.npy, row 2, column 'image'", "2/1.jpg"),
        (f"{tmp_path}/img_emb/img_emb_2.npy, row 3, column 'image'", "2/2.jpg"),
    ]


def test_clip_retrieval_without_texts_takes_the_captions(tmp_path: Path) -> None:
    pairs = pairs_of(open_rows(f"{clip_retrieval(tmp_path, texts=False)}?id=url"))
    assert (pairs[0].id, pairs[0].text) == ("http://x/0/0.jpg", "no. 0/0.jpg")
    assert pairs[0].payload == {"caption": "no. 0/0.jpg", "image_path": "0/0.jpg"}


def test_clip_retrieval_that_does_not_fit_together(tmp_path: Path) -> None:
    folder = clip_retrieval(tmp_path)
    np.save(folder / "text_emb" / "text_emb_2.npy", unit(3, 8))
    with pytest.raises(DataError, match=r"text_emb_2.npy has shape \(3, 8\), expected 4 rows"):
        open_rows(folder)
    (folder / "text_emb" / "text_emb_2.npy").unlink()
    with pytest.raises(DataError, match="text_emb has no file with the number 2"):
        open_rows(folder)
    clip_retrieval(tmp_path)
    write_parquet(folder / "metadata" / "metadata_0.parquet", {"image_path": ["a"], "caption": ["b"]})
    with pytest.raises(DataError, match=r"metadata_0\.parquet has 1 rows"):
        open_rows(folder)


def test_a_folder_of_arrays_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_arrays, "_ROWS_PER_PART", 4)
    np.save(tmp_path / "image.npy", spoilt(10))
    np.save(tmp_path / "text.npy", unit(10, seed=1))
    rows = open_rows(tmp_path)
    assert (rows.total, len(rows.parts)) == (10, 3)
    assert [pair.id for pair in pairs_of(rows)] == [f"image#{row}" for row in (1, 4, 5, 6, 7, 8, 9, 10)]
    np.save(tmp_path / "id.npy", np.array([f"p{row}" for row in range(10)]))
    pairs = pairs_of(open_rows(tmp_path))
    assert [pair.id for pair in pairs] == [f"p{row}" for row in (0, 3, 4, 5, 6, 7, 8, 9)]
    np.testing.assert_array_equal(pairs[-1].text, unit(10, seed=1)[9])
    np.save(tmp_path / "id.npy", np.arange(9))
    with pytest.raises(DataError, match=r"id.npy has shape \(9,\), expected 10 rows"):
        open_rows(tmp_path)
    (tmp_path / "text.npy").unlink()
    with pytest.raises(DataError, match=r"text\.npy cannot be read as an array"):
        open_rows(tmp_path)


def test_arrays_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    """A file of 4 GB with a hole in it can be opened and its first rows read."""
    for name in ("image", "text"):
        path = tmp_path / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(2_000_000, 512))
        array[:10] = unit(10, 512)
        del array
    rows = open_rows(tmp_path)
    assert rows.total == 2_000_000
    first = next(iter(rows))
    np.testing.assert_array_equal(first.image, unit(10, 512)[0])
    assert next(rows.parts[-1].read()).reason.startswith("has norm 0")


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
