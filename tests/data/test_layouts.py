"""Labelled sets in tables and folders; classes by their ids; unseen classes; options of a source."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reco_plugin.data import Labelled, is_vectors, read_labelled, read_pairs, write_labelled
from reco_plugin.data.images import LazyImages
from reco_plugin.data.source import Location, parse_source
from reco_plugin.errors import ConfigError, DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        picture(tmp_path / "pics" / f"{name}.png")
    return tmp_path


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        lines = [comma.join(rows[0]), *(comma.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_catalogue_is_a_labelled_set(shop: Path, suffix: str) -> None:
    rows = [
        {"image": "pics/a.png", "label": "lamp", "query_id": "q1", "group": 7},
        {"image": "pics/b.png", "label": "chair", "query_id": "q2", "group": 8},
        {"image": "pics/c.png", "label": "lamp", "query_id": "q3", "group": 7},
    ]
    found = read_labelled(table(shop / f"shop{suffix}", rows))
    assert found.classes == ("lamp", "chair")  # in order of first appearance
    assert found.labels.tolist() == [0, 1, 0]
    assert found.images[1] == shop / "pics" / "b.png"
    assert (found.query_ids, found.groups.tolist()) == (("q1", "q2", "q3"), ["7", "8", "7"])


def test_a_catalogue_with_classes_and_ids(shop: Path) -> None:
    rows = [{"id": 5, "image": "pics/a.png", "class": "lamp"}, {"id": 6, "image": "pics/b.png", "class": "0"}]
    path = table(shop / "shop.csv", rows)
    assert read_labelled(path).classes == ("lamp", "0")
    (shop / "classes.txt").write_text("chair\nsofa\nlamp\n")
    (shop / "unseen.txt").write_text("Sofa\n")
    found = read_labelled(path)
    assert (found.classes, found.labels.tolist()) == (("chair", "sofa", "lamp"), [2, 0])  # a name, and a number
    assert (found.query_ids, found.groups) == (("5", "6"), None)  # the ids that `reco memory add` gives the same rows
    assert found.unseen.tolist() == [False, True, False]


def test_labels_are_ids_of_a_table_of_classes(shop: Path) -> None:
    """As of OVEN: very many names, of which few are asked for, and some are told to be unseen."""
    rows = [{"image": "pics/a.png", "label": "Q2"}, {"image": "pics/b.png", "label": "Q1"}]
    path = f"{table(shop / 'asked.csv', rows)}?classes={shop / 'names.jsonl'}"
    named = [{"id": "Q1", "name": "Käuzchen", "unseen": True}, {"id": "Q2", "name": "007", "unseen": False}]
    table(shop / "names.jsonl", named)
    found = read_labelled(path)
    assert (found.classes, found.labels.tolist()) == (("Käuzchen", "007"), [1, 0])
    assert found.unseen.tolist() == [True, False]
    table(shop / "names.jsonl", [{"id": one["id"], "name": one["name"]} for one in named])
    assert read_labelled(path).unseen is None


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([{"id": "Q1", "name": "wren"}], "column 'label': 'Q2' is the id of no class of"),
        ([{"id": "Q2", "name": "wren"}, {"id": "Q2", "name": "owl"}], "line 2, column 'id': 'Q2' comes twice"),
        ([{"id": "Q2"}], "line 1, column 'name': missing"),
        ([{"id": "Q2", "name": "owl", "unseen": "maybe"}], "column 'unseen': 'maybe' is none of true"),
        ([{"id": "Q2", "name": "owl", "unseen": 1}, {"id": "Q1", "name": "wren"}], "unseen of 1 of 2 classes"),
        ([], "has no rows"),
    ],
)
def test_a_bad_table_of_classes(shop: Path, named: list[dict[str, object]], message: str) -> None:
    path = table(shop / "asked.csv", [{"image": "pics/a.png", "label": "Q2"}])
    with pytest.raises(DataError, match=message):
        read_labelled(f"{path}?classes={table(shop / 'names.jsonl', named)}")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "pics/a.png", "text": "x"}], "line 2, column 'label': missing or empty, and so is 'class'"),
        ([{"picture": "pics/a.png", "label": "x"}], r"no column 'image'; its columns are"),
        ([{"image": "pics/z.png", "label": "lamp"}], "line 2, column 'image': 'pics/z.png' is not a file"),
        ([{"image": "pics/a.png", "label": "lmap"}], r"'lmap' is no class .* did you mean 'lamp'"),
        ([{"image": "pics/a.png", "label": "3"}], r"'3' is no class .* choose from 'chair', 'sofa', 'lamp'"),
        (
            [
                {"image": "pics/a.png", "label": "lamp", "group": 1},
                {"image": "pics/b.png", "label": "lamp", "group": ""},
            ],
            "line 3, column 'group': empty, while other rows have one",
        ),
    ],
)
def test_a_bad_catalogue(shop: Path, rows: list[dict[str, object]], message: str) -> None:
    (shop / "classes.txt").write_text("chair\nsofa\nlamp\n")
    with pytest.raises(DataError, match=message):
        read_labelled(table(shop / "shop.csv", rows))


def test_an_empty_catalogue_and_a_label_that_is_none(shop: Path) -> None:
    (shop / "shop.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        read_labelled(shop / "shop.jsonl")
    with pytest.raises(DataError, match=r"column 'label': expected a text or a whole number, got \['x'\]"):
        read_labelled(table(shop / "shop.jsonl", [{"image": "pics/a.png", "label": ["x"]}]))


def unit(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 3))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = Labelled("v", unit(4), np.array([1, 0, 1, 1]), ("wren", "owl"), (), unit(2, 1), groups=np.array([5, 5, 6, 6]))


def test_unseen_classes_of_vectors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    write_labelled(path, replace(VECTORS, unseen=np.array([False, True])))
    found = read_labelled(path)
    assert (found.unseen.dtype, found.unseen.tolist()) == (np.bool_, [False, True])
    (tmp_path / "other.txt").write_text("wren\n")
    assert read_labelled(path, unseen=tmp_path / "other.txt").unseen.tolist() == [True, False]
    write_labelled(path, VECTORS)
    assert read_labelled(path).unseen is None


@pytest.mark.parametrize(
    ("unseen", "message"),
    [
        (np.array([True]), r"unseen is bool of shape \(1,\), expected bool of \(2,\)"),
        (np.array([0, 1]), "unseen is int64"),
    ],
)
def test_bad_unseen_arrays(tmp_path: Path, unseen: np.ndarray, message: str) -> None:
    columns = {"image": VECTORS.images, "label": VECTORS.labels, "prompts": VECTORS.prompts, "unseen": unseen}
    np.savez(tmp_path / "v.npz", **columns)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path / "v.npz")


def test_class_folders_take_unseen_classes_and_a_limit(tmp_path: Path) -> None:
    for name in ("n01_wren/a.png", "n01_wren/b.png", "n02_owl/c.png", "n02_owl/d.png"):
        picture(tmp_path / "birds" / name)
    (tmp_path / "birds" / "unseen.txt").write_text("n02_owl\n")  # as the folder is called
    found = read_labelled(f"{tmp_path / 'birds'}?limit=2")
    assert (found.classes, found.unseen.tolist()) == (("n01 wren", "n02 owl"), [False, True])
    assert (found.labels.tolist(), found.query_ids) == ([0, 1], ("n01_wren/a.png", "n02_owl/c.png"))
    assert list(found.images) == [tmp_path / "birds" / "n01_wren" / "a.png", tmp_path / "birds" / "n02_owl" / "c.png"]


def test_shards_take_unseen_classes_from_the_folder_above(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    with tarfile.open(tmp_path / "test" / "0.tar", "w") as tar:
        for name, data in {"a.png": b"x", "a.cls": b"1", "b.png": b"y", "b.cls": b"0"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "classnames.txt").write_text("wren\nowl\n")
    (tmp_path / "unseen.txt").write_text("owl\n")
    found = read_labelled(f"{tmp_path / 'test'}?limit=1")
    assert (found.labels.tolist(), found.unseen.tolist(), list(found.images)) == ([0], [False, True], [b"y"])


def test_a_limit_of_vectors(tmp_path: Path) -> None:
    write_labelled(tmp_path / "v.npz", VECTORS)
    source = f"{tmp_path / 'v.npz'}?limit=2"
    assert is_vectors(source)
    found = read_labelled(source)
    assert (found.labels.tolist(), found.groups.tolist()) == ([0, 1], [5, 6])  # rows 1 and 2
    np.testing.assert_array_equal(found.images, VECTORS.images[1:3])
    assert found.prompts.shape == (2, 3)


def test_lazy_images_open_what_is_asked_for() -> None:
    opened: list[int] = []
    images = LazyImages(5, lambda row: opened.append(row) or bytes([row]))
    assert (len(images), images[-1], images[1:3]) == (5, b"\x04", [b"\x01", b"\x02"])
    assert opened == [4, 1, 2]
    with pytest.raises(IndexError):
        images[5]


def test_options_of_a_source(tmp_path: Path) -> None:
    assert parse_source("a/b?c.npz?limit=3&x=y/z") == Location("a/b?c.npz", {"limit": "3", "x": "y/z"})
    assert parse_source("{0..3}?.tar") == Location("{0..3}?.tar")
    odd = tmp_path / "a?limit=3"
    odd.mkdir()
    assert parse_source(odd) == Location(str(odd))
    with pytest.raises(ConfigError, match="option 'x' is given twice"):
        parse_source("a?x=1&x=2")
    with pytest.raises(ConfigError, match="it takes none"):
        read_pairs(f"{tmp_path}?limit=3")
