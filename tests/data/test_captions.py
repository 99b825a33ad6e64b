"""COCO, Karpathy's splits and Flickr30k, as retrieval sets and as pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reco_plugin.data import Captioned, open_rows, read_pairs, read_retrieval, write_retrieval
from reco_plugin.errors import ConfigError, DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def write(path: Path, stored: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stored if isinstance(stored, str) else json.dumps(stored))
    return path


COCO = {
    "images": [{"id": 9, "file_name": "009.jpg"}, {"id": 4, "file_name": "004.jpg"}, {"id": 5, "file_name": "005.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 4, "caption": "a fox "},
        {"id": 2, "image_id": 9, "caption": "a bear"},
        {"id": 3, "image_id": 4, "caption": "one fox"},
    ],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for image in COCO["images"]:
        picture(tmp_path / "val2017" / image["file_name"])
    return write(tmp_path / "annotations" / "captions_val2017.json", COCO)


def test_coco_as_it_is_unpacked(coco: Path) -> None:
    found = read_retrieval(coco)
    assert found.images == [coco.parents[1] / "val2017" / name for name in ("009.jpg", "004.jpg", "005.jpg")]
    assert found.texts == ["a bear", "a fox", "one fox"]
    assert found.text_of_image.tolist() == [0, 1, 1]  # the third image is a distractor
    assert found.ids == (("009.jpg", "009.jpg#0"), ("004.jpg", "004.jpg#0", "004.jpg#1"), ("005.jpg",))


def test_options_of_coco(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"'009.jpg' is not in .*val2017.*; give their folder with \?images=DIR"):
        read_retrieval(coco)
    found = read_retrieval(f"{coco}?images={tmp_path / 'elsewhere'}&captions=1&limit=2")
    assert (found.texts, found.text_of_image.tolist()) == (["a bear", "a fox"], [0, 1])
    assert list(found.images) == [tmp_path / "elsewhere" / "009.jpg", tmp_path / "elsewhere" / "004.jpg"]
    with pytest.raises(
        ConfigError, match=r"no option 'split' \(did you mean 'limit'\?\): its options are images, captions, limit"
    ):
        read_retrieval(f"{coco}?split=test")
    (tmp_path / "elsewhere" / "004.jpg").unlink()
    with pytest.raises(DataError, match=r"004.jpg does not exist \(1 of 3 images are missing\)"):
        read_retrieval(f"{coco}?images={tmp_path / 'elsewhere'}")


def test_captions_make_a_memory_whose_own_pairs_are_hidden(coco: Path) -> None:
    pairs = read_pairs(coco)
    assert pairs.total == 3
    made = list(pairs)
    assert [(pair.id, pair.text) for pair in made] == [
        ("009.jpg#0", "a bear"),
        ("004.jpg#0", "a fox"),
        ("004.jpg#1", "one fox"),
    ]
    assert made[0].payload == {"caption": "a bear", "image": "009.jpg"}
    (folder,) = open_rows(coco).folders
    assert {folder / str(pair.payload["image"]) for pair in made} == {pair.image for pair in made}
    assert {pair.id for pair in made} <= {id_ for own in read_retrieval(coco).ids for id_ in own}
    assert [pair.id for pair in read_pairs(f"{coco}?limit=1")] == ["009.jpg#0"]


KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": "a.jpg", "split": "test", "sentences": [{"raw": "a fox"}, {"raw": "fox"}]},
        {"filepath": "val2014", "filename": "b.jpg", "split": "val", "sentences": [{"raw": "a bear"}]},
        {"filepath": "train2014", "filename": "c.jpg", "split": "restval", "sentences": [{"raw": "a cat"}]},
    ],
}


def test_karpathys_splits(tmp_path: Path) -> None:
    for name in ("val2014/a.jpg", "val2014/b.jpg", "train2014/c.jpg"):
        picture(tmp_path / "images" / name)
    path = write(tmp_path / "dataset_coco.json", KARPATHY)
    found = read_retrieval(path)
    assert (found.images, found.texts) == ([tmp_path / "images" / "val2014" / "a.jpg"], ["a fox", "fox"])
    assert read_retrieval(f"{path}?split=val,restval").texts == ["a bear", "a cat"]
    assert read_retrieval(f"{path}?split=all").text_of_image.tolist() == [0, 0, 1, 2]
    with pytest.raises(DataError, match="no split 'dev': choose from test, val, restval or all"):
        read_retrieval(f"{path}?split=dev")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{", "is not JSON"),
        ([1], "is a JSON array: write its rows into a .jsonl, an object a line"),
        ({"images": 1}, "is neither COCO's captions .* nor Karpathy's"),
        ({"images": [{"id": 1}], "annotations": []}, "KeyError 'file_name'"),
        ({"images": [{"filename": "a.jpg", "sentences": []}]}, "KeyError 'split'"),
        (
            COCO | {"annotations": [{"id": 7, "image_id": 1, "caption": "x"}]},
            "annotation 7 is of the image 1, which is",
        ),
        (COCO | {"annotations": [{"id": 7, "image_id": 4, "caption": 3}]}, "the caption 3 is no text"),
        (COCO | {"annotations": []}, "holds no image with a caption"),
    ],
)
def test_a_bad_json(tmp_path: Path, stored: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_retrieval(write(tmp_path / "captions_x.json", stored))


TOKEN = "1.jpg#1\tTwo foxes .\n1.jpg#0\tA fox .\n22.jpg#0\tA bear # 3 .\n"
CSV = "image_name| comment_number| comment\n1.jpg| 0| A fox .\n1.jpg| 1   Two foxes .\n22.jpg| 0| A bear # 3 .\n"


@pytest.mark.parametrize(("name", "text"), [("results_20130124.token", TOKEN), ("results.csv", CSV)])
def test_flickr(tmp_path: Path, name: str, text: str) -> None:
    """In both: captions are ordered by number; the csv has a row without its second bar, as the original does."""
    for image in ("1.jpg", "22.jpg"):
        picture(tmp_path / "flickr30k-images" / image)
    path = write(tmp_path / name, text)
    found = read_retrieval(path)
    assert found.texts == ["A fox .", "Two foxes .", "A bear # 3 ."]
    assert found.text_of_image.tolist() == [0, 0, 1]
    assert found.ids[0] == ("1.jpg", "1.jpg#0", "1.jpg#1")
    assert [pair.id for pair in read_pairs(path)] == ["1.jpg#0", "1.jpg#1", "22.jpg#0"]
    with pytest.raises(DataError, match=r"says nothing about splits, and .*test.txt does not exist"):
        read_retrieval(f"{path}?split=test")
    write(tmp_path / "test.txt", "22\n")
    assert read_retrieval(f"{path}?split=test").texts == ["A bear # 3 ."]
    write(tmp_path / "test.txt", "23\n")
    with pytest.raises(DataError, match="lists '23', of which"):
        read_retrieval(f"{path}?split=test")


def test_a_bad_token_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.token", "1.jpg#0\tA fox .\n1.jpg A fox .\n")
    with pytest.raises(DataError, match=r"caption 2: '1.jpg A fox .' is not"):
        read_retrieval(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_retrieval(tmp_path / "gone.token")


def test_a_limit_of_vectors_keeps_texts_with_their_images(tmp_path: Path) -> None:
    images, texts = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[2, 0, 2, 3, 1]]
    write_retrieval(tmp_path / "r.npz", Captioned("r", images, texts, np.array([2, 0, 2, 3, 1])))
    found = read_retrieval(f"{tmp_path / 'r.npz'}?limit=2")  # images 0 and 2
    np.testing.assert_array_equal(found.images, images[[0, 2]])
    assert found.text_of_image.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(found.texts, found.images[found.text_of_image])


def test_a_few_bad_rows_of_a_table_are_left_out_and_many_are_refused_together(tmp_path: Path) -> None:
    rows = ["image,text"]
    for number in range(20):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,text {number}")
    table = tmp_path / "shop.csv"
    (tmp_path / "heic.png").write_bytes(b"ftypheic")
    table.write_text("\n".join([*rows, "heic.png,a fox", "heic.png,again"]) + "\n")
    with pytest.warns(UserWarning, match=r"left out 2 of 22 rows .*line 22.*heic.png' cannot be read as an image"):
        assert len(read_retrieval(table).images) == 20
    table.write_text("\n".join([*rows, "gone.png,a fox"]) + "\n")
    with pytest.warns(UserWarning, match=r"left out 1 of 21 rows that cannot be used: .*line 22.*'gone.png' is not a"):
        assert len(read_retrieval(table).images) == 20
    table.write_text("\n".join([*rows, "gone.png,a fox", "3.png,", "lost.png,x"]) + "\n")
    with pytest.raises(DataError, match=r"3 of 23 rows cannot be used: .*'gone.png'.*line 23.*; .*'lost.png'"):
        read_retrieval(table)
