"""read_labelled and read_retrieval: layouts, vectors, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_sources import png, unit, write_tar

from reco_plugin.data import (
    Captioned,
    Labelled,
    open_rows,
    read_labelled,
    read_retrieval,
    write_labelled,
    write_retrieval,
)
from reco_plugin.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "birds"
    for name in ("n01_wren/a.png", "n01_wren/b.png", "n02_owl/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


def test_a_folder_with_a_folder_per_class(folder: Path) -> None:
    found = read_labelled(folder)
    assert found.labels.tolist() == [0, 0, 1]
    assert found.classes == ("n01 wren", "n02 owl")
    assert found.query_ids == ("n01_wren/a.png", "n01_wren/b.png", "n02_owl/c.png")
    assert found.templates == (), "the model's are taken"
    assert (len(found), found.name, found.prompts) == (3, "birds", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.txt", "wren\nowl\n"),
    ],
)
def test_display_names_and_templates_of_a_folder(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    (folder / "templates.txt").write_text("a {}.\n\nthe {c}.\n")
    found = read_labelled(folder)
    assert found.classes == ("wren", "owl")
    assert found.templates == ("a {}.", "the {c}.")
    assert found.templates_from == "source"
    given = read_labelled(folder, templates=["only {}"])
    assert (given.templates, given.templates_from) == (("only {}",), "caller")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", "wren", "has 1 class names, expected 2, one for each class folder"),
        ("templates.txt", "a photo", r"template 'a photo' has no \{\}"),
        ("n03/readme.md", "", "n03 holds no images"),
    ],
)
def test_a_bad_folder(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_labelled(folder)


@pytest.mark.parametrize("name", [b"n03_\xe4/d.png", b"n02_owl/\xe4.png"])
def test_names_that_are_no_text_are_refused(folder: Path, name: bytes) -> None:
    """As of archives that were packed elsewhere: neither a class nor an id can be called so."""
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png())
    with pytest.raises(DataError, match=r"xe4.* in .*birds is not UTF-8: rename it"):
        read_labelled(folder)
    path.with_suffix(".txt").write_text("an owl")
    with pytest.raises(DataError, match=r"xe4.* in .*birds is not UTF-8: rename it"):
        read_retrieval(folder)


def test_clip_benchmark_shards_with_the_texts_in_the_folder_above(tmp_path: Path) -> None:
    """classnames.txt and templates lie in the root, the shards in test/, templates have {c}."""
    (tmp_path / "classnames.txt").write_text("wren\nowl\n")
    write_tar(tmp_path / "test" / "0.tar", {"s0.cls": b"1", "s0.webp": png(1), "s1.cls": b"0\n", "s1.png": png(2)})
    write_tar(tmp_path / "test" / "1.tar", {"s2.cls": b"1", "s2.jpg": png(3)})
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    found = read_labelled(tmp_path / "test")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.classes == ("wren", "owl")
    assert found.templates == ("a photo of a {c}.",)
    assert found.query_ids == ("s0", "s1", "s2")
    assert list(found.images) == [png(1), png(2), png(3)]
    assert found.images[1:] == [png(2), png(3)]


@pytest.mark.parametrize(
    ("members", "names", "message"),
    [
        ({"a.png": b"x"}, "wren", "no label for the image 'a'"),
        ({"a.cls": b"0"}, "wren", "holds no images"),
        ({"a.png": b"x", "a.cls": b"wren"}, "wren", "'a.cls': expected the number of a class, got 'wren'"),
        ({"a.png": b"x", "a.cls": b"1"}, "wren", r".cls\[0\] is 1, expected a whole number from 0 to 0"),
        ({"a.png": b"x", "a.cls": b"0"}, "", "has 0 class names"),
        ({"a.png": b"x", "a.cls": b"0"}, None, "have no classnames.txt"),
    ],
)
def test_bad_shards(tmp_path: Path, members: dict[str, bytes], names: str | None, message: str) -> None:
    shard = write_tar(tmp_path / "test" / "0.tar", members)
    if names is not None:
        (tmp_path / "classnames.txt").write_text(names)
    with pytest.raises(DataError, match=message):
        read_labelled(shard)


VECTORS = Labelled(
    name="v",
    images=unit(4, 3),
    labels=np.array([1, 0, 1, 1]),
    classes=("wren", "owl"),
    templates=(),
    prompts=unit(2, 3, 1),
    query_ids=("a", "b", "c", "d"),
    groups=np.array([5, 5, 6, 6]),
)


def test_vectors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    write_labelled(path, VECTORS)
    found = read_labelled(path)
    np.testing.assert_array_equal(found.images, VECTORS.images)
    np.testing.assert_array_equal(found.prompts, VECTORS.prompts)
    assert found.labels.tolist() == [1, 0, 1, 1]
    assert (found.classes, found.query_ids) == (VECTORS.classes, VECTORS.query_ids)
    assert found.groups.tolist() == [5, 5, 6, 6]
    with pytest.raises(ConfigError, match="leave them out"):
        read_labelled(path, templates=["a {}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.array([0, 0, 2, 0])}, r"label\[2\] is 2, expected a whole number from 0 to 1"),
        ({"label": np.array([0, 0, 1.0, 0])}, r"label\[0\] is 0.0"),
        ({"label": np.array([0, 1])}, r"label has shape \(2,\), expected 4 rows"),
        ({"prompts": unit(2, 5)}, r"prompts must have shape \(B, 3\), got \(2, 5\)"),
        ({"prompts": None}, "has no array 'prompts'"),
        ({"image": 3 * unit(4, 3)}, r"image\[\d\] has norm 3"),
        ({"image": np.float32(1)}, r"image must have shape \(N, D\), got \(\)"),
        ({"classes": np.array(["wren"])}, "1 class names for 2 prompts"),
        ({"query_id": np.array(["a"])}, r"query_id has shape \(1,\)"),
    ],
)
def test_bad_vectors(tmp_path: Path, changes: dict, message: str) -> None:
    columns = {"image": VECTORS.images, "label": VECTORS.labels, "prompts": VECTORS.prompts} | changes
    np.savez(tmp_path / "bad.npz", **{name: value for name, value in columns.items() if value is not None})
    with pytest.raises(DataError, match=message) as error:
        read_labelled(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)


def test_labelled_sources_that_are_none(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in [(tmp_path / "gone", "does not exist"), (tmp_path / "empty", "no folder with images")]:
        with pytest.raises(DataError, match=message):
            read_labelled(source)
    with pytest.raises(ConfigError, match=r"template 'a photo' has no \{\}"):
        read_labelled(folder, templates=["a photo"])
    with pytest.raises(DataError, match="takes vectors"):
        write_labelled(tmp_path / "x.npz", read_labelled(folder))


def test_retrieval_tables_group_by_image(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    rows = [
        {"id": "1", "image": "a.png", "text": ["a fox", "one fox"]},
        {"image": "b.png", "text": "a bear"},
        {"id": "3", "image": "a.png", "text": "the fox"},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_retrieval(tmp_path / "t.jsonl")
    assert found.images == [tmp_path / "a.png", tmp_path / "b.png"]
    assert found.texts == ["a fox", "one fox", "the fox", "a bear"]
    assert found.text_of_image.tolist() == [0, 0, 0, 1]
    assert found.ids == (("1", "3"), ("b.png",))
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "text": [1]}')
    with pytest.raises(DataError, match=r"line 1, column 'text': expected a caption or a list of captions, got \[1\]"):
        read_retrieval(tmp_path / "t.jsonl")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_one_table_fills_a_memory_and_asks_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "pics").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pics" / name).write_bytes(png())
    # the usual names are there, too, and mean something else
    rows = [
        {
            "sku": "007",
            "photo": "a.png",
            "title": "a fox",
            "kind": "1",
            "image": "x",
            "text": "y",
            "id": "z",
            "label": "w",
        },
        {
            "sku": "8",
            "photo": "b.png",
            "title": "a bear",
            "kind": "2",
            "image": "x",
            "text": "y",
            "id": "z",
            "label": "w",
        },
    ]
    path = tmp_path / f"shop{suffix}"
    lines = [json.dumps(row) for row in rows]
    if suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines))
    options = f"id=sku&image=photo&images={tmp_path / 'pics'}"
    pairs = list(open_rows(f"{path}?{options}&text=title"))
    asked = read_retrieval(f"{path}?{options}&text=title")
    assert (asked.images, asked.texts) == ([pair.image for pair in pairs], [pair.text for pair in pairs])
    assert asked.ids == tuple((pair.id,) for pair in pairs) == (("007",), ("8",))
    assert read_retrieval(f"{path}?{options}&text=title&limit=1").texts == ["a fox"]
    named = read_labelled(f"{path}?{options}&label=kind")
    assert (named.images, named.query_ids, named.classes) == (asked.images, ("007", "8"), ("1", "2"))
    for read, source in (
        (read_retrieval, f"{path}?{options}&text=nope"),
        (read_labelled, f"{path}?{options}&label=nope"),
    ):
        with pytest.raises(DataError, match=r"nope"):
            read(source)
    for read, source in ((read_retrieval, f"{path}?label=kind"), (read_labelled, f"{path}?text=title")):
        with pytest.raises(ConfigError, match="has no option"):
            read(source)


def test_retrieval_folders_and_shards_have_a_caption_a_line(tmp_path: Path) -> None:
    members = {"a.png": png(1), "a.txt": b"a fox\none fox\n", "b.png": png(2)}
    for name, data in members.items():
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / name).write_bytes(data)
    write_tar(tmp_path / "tars" / "0.tar", members)
    for source, ids in [("files", (("a.png",), ("b.png",))), ("tars", (("a",), ("b",)))]:
        found = read_retrieval(tmp_path / source)
        assert found.texts == ["a fox", "one fox"]
        assert found.text_of_image.tolist() == [0, 0]  # b is a distractor
        assert (len(found.images), found.ids) == (2, ids)
    assert found.images[0] == png(1)
    write_tar(tmp_path / "none" / "0.tar", {"a.png": png()})
    with pytest.raises(DataError, match=r"no key with an image and a \.txt"):
        read_retrieval(tmp_path / "none")


def test_retrieval_vectors(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    made = Captioned("r", unit(2, 3), unit(3, 3, 1), np.array([0, 1, 1]), (("a",), ("b",)))
    write_retrieval(path, made)
    found = read_retrieval(path)
    np.testing.assert_array_equal(found.images, made.images)
    np.testing.assert_array_equal(found.texts, made.texts)
    assert (found.text_of_image.tolist(), found.ids) == ([0, 1, 1], made.ids)
    np.savez(path, image=unit(2, 3), text=unit(2, 3))
    assert read_retrieval(path).text_of_image.tolist() == [0, 1]
    with pytest.raises(DataError, match="exactly one id per image"):
        write_retrieval(path, replace(made, ids=(("a", "b"), ("c",))))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": unit(3, 3)}, "has 3 texts for 2 images and no text_of_image"),
        ({"text": unit(2, 4)}, r"text must have shape \(B, 3\)"),
        (
            {"text": unit(2, 3), "text_of_image": np.array([0, 2])},
            r"text_of_image\[1\] is 2, expected a whole number from 0 to 1",
        ),
        ({"text": unit(2, 3), "text_of_image": np.array([0])}, r"text_of_image has shape \(1,\), expected 2 rows"),
    ],
)
def test_bad_retrieval_vectors(tmp_path: Path, columns: dict, message: str) -> None:
    np.savez(tmp_path / "bad.npz", image=unit(2, 3), **columns)
    with pytest.raises(DataError, match=message):
        read_retrieval(tmp_path / "bad.npz")


def test_retrieval_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in [("gone", "does not exist"), ("empty", "holds no image"), ("x.parquet", "is an .npz")]:
        with pytest.raises(DataError, match=message):
            read_retrieval(tmp_path / source)
