"""Entity sets: OVEN's files, vectors that are mapped, many entities."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reco_plugin.data import read_entities
from reco_plugin.data.entities import EntityFile
from reco_plugin.errors import ConfigError, DataError


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


ENTITIES = [
    {"id": "Q1", "name": "Boeing 707", "split": "seen"},
    {"id": "Q2", "name": "Käuzchen", "split": "unseen"},
    {"id": "Q3", "name": "wren", "split": "seen"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        picture(tmp_path / "pics" / name)
    lines(tmp_path / "entities.jsonl", ENTITIES)
    queries = [
        {"id": "x", "image": "pics/a.png", "entity": "Q3"},
        {"id": "y", "image": "pics/b.png", "entity": "Q2", "question": "what bird is this?"},
        {"id": "z", "image": "pics/b.png", "entity": "Q2"},
    ]
    lines(tmp_path / "queries.jsonl", queries)
    return tmp_path


def test_queries_and_entities(folder: Path) -> None:
    found = read_entities(folder)
    assert (len(found), len(found.entities), found.labels.tolist()) == (3, 3, [2, 1, 1])
    assert found.images == [folder / "pics" / name for name in ("a.png", "b.png", "b.png")]
    assert found.questions == ("", "what bird is this?", "")
    assert found.unseen.tolist() == [False, True, True]  # as their entities
    assert found.entities.unseen.tolist() == [False, True, False]
    assert found.query_ids == ("x", "y", "z")
    assert list(found.names(2)) == [["Boeing 707", "Käuzchen"], ["wren"]]
    assert (found.entities.name(1), found.vectors()) == ("Käuzchen", None)
    picked = read_entities(f"{folder}?limit=2")
    assert (picked.labels.tolist(), picked.query_ids) == ([1, 1], ("y", "z"))  # two of three queries are of Q2
    assert (picked.questions, len(picked.entities)) == (("what bird is this?", ""), 3)
    assert list(picked.images) == [folder / "pics" / "b.png"] * 2


def test_the_fields_of_oven(tmp_path: Path) -> None:
    """Images are known by their ids, in folders of shards; entities come from the Wikipedia dump."""
    for name in ("00/oven_00000007.JPEG", "01/oven_01000002.jpg"):
        picture(tmp_path / "images" / name)
    dump = [{"wikidata_id": "Q9", "wikipedia_title": "Owl"}, {"wikidata_id": "Q8", "wikipedia_title": "Fox"}]
    lines(tmp_path / "oven" / "entities.jsonl", dump)
    common = {"question": "what is it?", "entity_text": "ignored"}
    queries = [
        {"data_id": "v0", "image_id": "oven_01000002", "entity_id": "Q8", "data_split": "val_seen"} | common,
        {"data_id": "v1", "image_id": "oven_00000007", "entity_id": "Q9", "data_split": "val_unseen"} | common,
        {"data_id": "t0", "image_id": "oven_00000007", "entity_id": "Q9", "data_split": "test_seen"} | common,
    ]
    lines(tmp_path / "oven" / "queries.jsonl", queries)
    found = read_entities(f"{tmp_path / 'oven'}?split=val&images={tmp_path / 'images'}")
    assert (found.labels.tolist(), found.unseen.tolist(), found.query_ids) == ([1, 0], [False, True], ("v0", "v1"))
    assert [path.name for path in found.images] == ["oven_01000002.jpg", "oven_00000007.JPEG"]
    assert list(found.names()) == [["Owl", "Fox"]]
    assert found.entities.unseen is None
    only = read_entities(f"{tmp_path / 'oven'}?split=val_unseen&images={tmp_path / 'images'}")
    assert only.query_ids == ("v1",)
    with pytest.raises(DataError, match="holds no queries of the split 'train'"):
        read_entities(f"{tmp_path / 'oven'}?split=train&images={tmp_path / 'images'}")
    with pytest.raises(DataError, match=r"line 1, column 'image_id': no image below .* is called oven_01000002\.jpg"):
        read_entities(tmp_path / "oven")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "queries.jsonl",
            [{"image": "pics/a.png", "entity": "Q4"}],
            "column 'entity': 'Q4' is no id of entities.jsonl",
        ),
        ("queries.jsonl", [{"image": "pics/a.png"}], "expected the id of an entity, got None"),
        ("queries.jsonl", [{"image": "pics/z.png", "entity": "Q1"}], "'pics/z.png' is not a file"),
        ("queries.jsonl", [{"entity": "Q1"}], "column 'image': expected the path of an image, got None"),
        ("queries.jsonl", [], "holds no queries"),
        (
            "queries.jsonl",
            [{"image": "pics/a.png", "entity": "Q1", "split": "val_entity"}],
            "line 1: the split 'val_entity' must be seen or unseen",
        ),
        ("entities.jsonl", [], "holds no entities"),
        (
            "entities.jsonl",
            [{"id": "Q1"}],
            "line 1: expected a text in name or entity_text or wikipedia_title, got None",
        ),
        ("entities.jsonl", [{"name": "x"}], "expected a text in id"),
        ("entities.jsonl", [*ENTITIES, {"id": "Q1", "name": "x", "split": "seen"}], "the id 'Q1' comes twice"),
        ("entities.jsonl", [*ENTITIES, {"id": "Q4", "name": "x"}], "3 of 4 entities have a split"),
    ],
)
def test_bad_files(folder: Path, name: str, rows: list[dict[str, object]], message: str) -> None:
    lines(folder / name, rows)
    with pytest.raises(DataError, match=message):
        read_entities(folder)


def test_lines_that_are_no_objects(folder: Path) -> None:
    for text, message in [("{", "line 1 is not JSON"), ('\n["Q1"]', "line 2 is not a JSON object"), ("\xff", "UTF-8")]:
        (folder / "entities.jsonl").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=message):
            read_entities(folder)
    (folder / "entities.jsonl").unlink()
    with pytest.raises(DataError, match=r"entities\.jsonl does not exist"):
        read_entities(folder)


def test_many_entities_are_held_compactly(tmp_path: Path) -> None:
    count = 20_000
    path = tmp_path / "entities.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"id": "Q{row * 7}", "name": "the entity of number {row}"}}\n' for row in range(count))
    tracemalloc.start()
    found = EntityFile(path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 40 * count  # offset, hash and order: 24 bytes each; the texts alone would be 100
    assert list(found.rows(["Q0", "Q7", "Q139993", "Q8", "Q7"])) == [0, 1, count - 1, None, 1]
    assert found.name(count - 1) == f"the entity of number {count - 1}"
    batches = list(found.names(6000))
    assert [len(batch) for batch in batches] == [6000, 6000, 6000, 2000]
    assert batches[1][5] == "the entity of number 6005"


def unit(rows: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


ARRAYS = {
    "image": unit(4),
    "label": np.array([2, 0, 2, 4]),
    "entities": unit(5, 1).astype(np.float16),
    "unseen": np.array([True, False, False, False, True]),
    "names": np.array(["owl", "fox", "bear", "wren", "cat"]),
    "query_id": np.array(["a", "b", "c", "d"]),
}


def save(target: Path, arrays: dict[str, np.ndarray]) -> Path:
    if target.suffix == ".npz":
        np.savez(target, **arrays)
    else:
        target.mkdir()
        for name, values in arrays.items():
            np.save(target / f"{name}.npy", values)
    return target


@pytest.mark.parametrize("name", ["set.npz", "set"])
def test_vectors(tmp_path: Path, name: str) -> None:
    found = read_entities(save(tmp_path / name, ARRAYS))
    np.testing.assert_array_equal(found.images, ARRAYS["image"])
    assert (found.labels.tolist(), found.unseen.tolist()) == ([2, 0, 2, 4], [False, True, False, True])
    assert found.query_ids == ("a", "b", "c", "d")
    assert list(found.names(2)) == [["owl", "fox"], ["bear", "wren"], ["cat"]]
    batches = list(found.vectors(2))
    assert [batch.shape for batch in batches] == [(2, 8), (2, 8), (1, 8)]
    np.testing.assert_allclose(np.concatenate(batches), unit(5, 1), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(batches[0], axis=1), 1, atol=1e-6)  # float16 is made unit-norm again
    assert isinstance(found.entities.array, np.memmap) == (name == "set")
    assert found.entities.name(3) == "wren"


def test_vectors_need_neither_names_nor_splits(tmp_path: Path) -> None:
    arrays = {name: ARRAYS[name] for name in ("image", "label", "entities")}
    found = read_entities(f"{save(tmp_path / 'set.npz', arrays)}?limit=1")
    assert (list(found.names()), found.unseen, found.query_ids) == ([["0", "1", "2", "3", "4"]], None, None)
    assert (len(found), found.images.shape) == (1, (1, 8))


@pytest.mark.parametrize("name", ["set.npz", "set"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entities": unit(5)[:, :4]}, r"entities must be \(C, 8\) floating point.* got \(5, 4\)"),
        ({"entities": np.ones((5, 8), int)}, r"floating point, as image is; got \(5, 8\) of int64"),
        ({"label": np.array([2, 0, 2, 5])}, r"label\[3\] is 5, expected a whole number from 0 to 4"),
        ({"label": np.array([2])}, r"label has shape \(1,\), expected 4 rows"),
        ({"names": np.array(["owl"])}, r"names has shape \(1,\), expected 5 rows"),
        ({"unseen": np.array([True])}, r"unseen has shape \(1,\)"),
        ({"image": 2 * unit(4)}, r"image\[0\] has norm 2"),
        ({"entities": None}, "entities"),
        ({"label": None}, "label"),
    ],
)
def test_bad_vectors(tmp_path: Path, name: str, changes: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {key: values for key, values in (ARRAYS | changes).items() if values is not None}
    with pytest.raises(DataError, match=message):
        read_entities(save(tmp_path / name, arrays))


def test_vectors_of_entities_are_checked_as_they_are_read(tmp_path: Path) -> None:
    wrong = unit(5)
    wrong[3] *= 2
    found = read_entities(save(tmp_path / "set", ARRAYS | {"entities": wrong}))
    batches = found.vectors(2)
    assert len(next(batches)) == 2
    with pytest.raises(DataError, match=r"entities \(counted from row 2\)\[1\] has norm 2"):
        next(batches)


def test_entity_sources_that_are_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        read_entities(tmp_path / "gone")
    with pytest.raises(DataError, match=r"is no entity set: give a folder with queries.jsonl"):
        read_entities(tmp_path / "pics")
    with pytest.raises(
        ConfigError, match=r"no option 'splits' \(did you mean 'split'\?\): its options are limit, split, images"
    ):
        read_entities(f"{folder}?splits=val")
    (tmp_path / "noise").mkdir()
    for name in ("image", "label", "entities"):
        (tmp_path / "noise" / f"{name}.npy").write_bytes(b"noise")
    with pytest.raises(DataError, match=r"image\.npy cannot be read as an array"):
        read_entities(tmp_path / "noise")
