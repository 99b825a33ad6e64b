"""Labelled images from every kind of source, and how each names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_sources import png

from reco_plugin.errors import DataError
from reco_plugin.sources import read_labelled

CLASSES = ("Black footed Albatross", "red fox")


def folders(path: Path) -> str:
    for name in ("001.Black_footed_Albatross/a.png", "001.Black_footed_Albatross/deep/b.png", "red_fox/c.png"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png())
    return str(path)


def table(path: Path, suffix: str = "csv", **options: str) -> str:
    names = [f"{letter}.png" for letter in "abc"]
    for name in names:
        (path / name).write_bytes(png())
    rows = [(name, name, CLASSES[place == 2]) for place, name in enumerate(names)]
    if suffix == "csv":
        (path / "t.csv").write_text("\n".join(["id,image,label", *map(",".join, rows)]))
    else:
        (path / "t.jsonl").write_text(
            "\n".join(json.dumps({"sku": i, "image": image, "kind": label}) for i, image, label in rows)
        )
    return f"{path}/t.{suffix}{'' if suffix == 'csv' else '?id=sku&label=kind'}"


KINDS: list[Callable[[Path], str]] = [folders, table, lambda path: table(path, "jsonl")]


@pytest.mark.parametrize("make", KINDS)
def test_every_source_gives_images_labels_and_classes(tmp_path: Path, make: Callable[[Path], str]) -> None:
    found = read_labelled(make(tmp_path))
    assert (found.labels.tolist(), found.classes, len(found)) == ([0, 0, 1], CLASSES, 3)
    assert [name.rpartition("/")[2][0] for name in found.query_ids] == ["a", "b", "c"]
    assert {image.read_bytes() for image in found.images} == {png()}


def test_names_and_templates_are_read_from_files_beside(tmp_path: Path) -> None:
    source = folders(tmp_path)
    (tmp_path / "classes.txt").write_text("an albatross\na fox\n")
    (tmp_path / "templates.txt").write_text("a photo of {}.\nthe {c}\n")
    found = read_labelled(source)
    assert (found.classes, found.templates) == (("an albatross", "a fox"), ("a photo of {}.", "the {c}"))
    assert read_labelled(source, templates=["{}"]).templates == ("{}",)
    (tmp_path / "classes.txt").write_text("one\n")
    with pytest.raises(DataError, match="has 1 class names, expected 2"):
        read_labelled(source)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,", r"column 'label': missing or empty"),
        ("gone.png,x", r"column 'image': 'gone\.png' is not a file"),
        ("https://x.de/a.png,x", "download images behind URLs first"),
    ],
)
def test_a_bad_row_of_a_table(tmp_path: Path, row: str, message: str) -> None:
    table(tmp_path)
    (tmp_path / "t.csv").write_text(f"image,label\n{row}\n")
    with pytest.raises(DataError, match=rf"line 2, {message}|{message}"):
        read_labelled(tmp_path / "t.csv")


def test_sources_that_are_no_labelled_sets(tmp_path: Path) -> None:
    (tmp_path / "empty" / "fox").mkdir(parents=True)
    (tmp_path / "t.txt").touch()
    for source, message in (("gone", "does not exist"), ("t.txt", "is not a labelled set"), ("empty", "fox holds no")):
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path / source)
    source = folders(tmp_path / "sets")
    (tmp_path / "sets" / "templates.txt").write_text("no place\n")
    with pytest.raises(DataError, match=r"'no place' has no \{\}"):
        read_labelled(source)
