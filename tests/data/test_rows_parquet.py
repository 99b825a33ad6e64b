"""Rows of Parquet: paths, URLs, bytes, Hugging Face's images, vectors, and what is wrong with single rows."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, png, rejected_of, unit, write_parquet

from reco_plugin.data import open_rows, read_pairs, read_records
from reco_plugin.data.images import RemoteImage
from reco_plugin.errors import DataError


def test_paths_urls_and_payload(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    path = write_parquet(
        tmp_path / "t.parquet",
        {
            "id": [1, 2],
            "image": ["a.png", "https://x.de/b.png"],
            "text": [" fox ", "bear"],
            "day": [datetime.date(2020, 1, 2), None],
            "price": [Decimal("1.5"), None],
            "raw": [b"x", None],
            "tags": [["a", "b"], None],
            "nan": [float("nan"), 0.5],
        },
    )
    first, second = open_rows(path)
    assert (first.id, first.image, first.text) == ("1", tmp_path / "a.png", "fox")
    assert first.payload == {"caption": "fox", "image": "a.png", "day": "2020-01-02", "price": 1.5, "tags": ["a", "b"]}
    assert (second.image, second.payload) == (RemoteImage("https://x.de/b.png"), {"caption": "bear", "nan": 0.5})


def test_hugging_face_datasets_as_datasets_writes_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    images = [Image.new("RGB", (3, 3), (shade, 0, 0)) for shade in (0, 99)]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"image": images, "caption": ["black", "red"]}, features=features)
    made.to_parquet(tmp_path / "train-0.parquet")
    first, second = open_rows(f"{tmp_path}/train-*.parquet?text=caption")
    assert (first.id, second.id) == ("train-0.parquet#1", "train-0.parquet#2")
    assert first.image[:4] == b"\x89PNG"
    assert (second.text, second.payload) == ("red", {"caption": "red"})


@pytest.mark.parametrize("split", [False, True])
def test_a_dataset_that_was_saved_to_disk_tells_how_to_read_it(tmp_path: Path, split: bool) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"image": ["a.png"], "text": ["fox"]})
    (datasets.DatasetDict(train=made) if split else made).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved to disk: write it, .* as Parquet, as in datasets.load_from_disk"):
        open_rows(tmp_path / "saved")
    read = datasets.load_from_disk(tmp_path / "saved")
    (read["train"] if split else read).to_parquet(tmp_path / "pairs.parquet")
    (row,) = open_rows(tmp_path / "pairs.parquet")
    assert row.id == "a.png"


def test_images_as_bytes_with_faults(tmp_path: Path) -> None:
    images = [{"bytes": png(), "path": "x/a.png"}, {"bytes": None, "path": None}, {"bytes": b"", "path": "gone.png"}]
    path = write_parquet(tmp_path / "t.parquet", {"image": images, "text": ["a", "b", "c"]})
    rows = open_rows(path)
    (pair,) = pairs_of(rows)
    assert (pair.id, pair.image) == ("x/a.png", png())
    assert [(row.where, row.id) for row in rejected_of(rows)] == [
        (f"{path}, row 2, column 'image'", "t.parquet#2"),
        (f"{path}, row 3, column 'image'", "gone.png"),
    ]
    flat = write_parquet(tmp_path / "u.parquet", {"jpg": [png(), None], "caption": ["a", "b"], "key": ["1", "2"]})
    rows = open_rows(f"{flat}?image=jpg&text=caption&id=key")  # as img2dataset's --output_format parquet
    assert ([pair.id for pair in pairs_of(rows)], [row.id for row in rejected_of(rows)]) == (["1"], ["2"])


def test_vectors_that_are_wrong_cost_one_row_each(tmp_path: Path) -> None:
    good = unit(6).tolist()
    image = [good[0], [0.5, float("nan"), 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], None, good[4], [1.0]]
    text = [good[0], good[1], good[2], good[3], [0.0] * 4, good[5]]
    path = write_parquet(tmp_path / "v.parquet", {"id": list("abcdef"), "image": image, "text": text})
    rows = open_rows(path)
    assert [pair.id for pair in pairs_of(rows)] == ["a"]
    reasons = {row.id: (row.where.rpartition(" ")[2], row.reason) for row in rejected_of(rows)}
    assert reasons == {
        "b": ("'image'", "holds NaN or infinity"),
        "c": ("'image'", "has norm 2, not 1: divide each vector by its L2 norm first"),
        "d": ("'image'", "missing or empty"),
        "e": ("'text'", "has norm 0, not 1: divide each vector by its L2 norm first"),
        "f": ("'image'", "has 1 numbers, others have 4"),
    }


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        (
            "text",
            [["a fox", "fox"], ["a bear"]],
            "expected one caption, got ['a fox', 'fox']; write one row per caption",
        ),
        ("image", [[png()], [png(1)]], "expected the path of an image, got [b'\\x89PNG"),
        ("image", [["a.png", "b.png"]] * 2, "expected the path of an image, got ['a.png', 'b.png']; write one row per"),
        ("image", [{"data": png(), "kind": "png"}] * 2, "expected the fields bytes or path, has ['data', 'kind']"),
    ],
)
def test_columns_of_another_shape_say_so(tmp_path: Path, column: str, values: list[object], reason: str) -> None:
    columns = {"id": ["a", "b"], "image": [png(), png(1)], "text": ["fox", "bear"]} | {column: values}
    first, second = rejected_of(open_rows(write_parquet(tmp_path / "t.parquet", columns)))
    assert (first.id, first.where.rpartition(" ")[2]) == ("a", repr(column))
    assert first.reason.startswith(reason)
    assert len(first.reason) < 120
    assert second.id == "b"


def test_ids_are_texts_whole_numbers_or_uuids(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    own = uuid.UUID(int=7)
    columns = {"image": [png()], "text": ["fox"], "kind": arrow.array(["a"]).dictionary_encode()}
    for id_, expected in (
        (arrow.array([own.bytes], arrow.uuid()), str(own)),
        (arrow.array([2**63], arrow.uint64()), str(2**63)),
        (arrow.array(["x"]).dictionary_encode(), "x"),
    ):
        (pair,) = open_rows(write_parquet(tmp_path / "t.parquet", {"id": id_} | columns))
        assert (pair.id, pair.payload) == (expected, {"caption": "fox", "kind": "a"})


def test_lists_of_texts_in_a_pair_file_are_payload(tmp_path: Path) -> None:
    columns = {"id": ["a", "b"], "image": unit(2).tolist(), "text": unit(2).tolist(), "tags": [["x", "y"], ["z", "z"]]}
    path = write_parquet(tmp_path / "v.parquet", columns)
    (records,) = read_records(path)
    assert (
        records.payloads == [pair.payload for pair in read_pairs(path)] == [{"tags": ["x", "y"]}, {"tags": ["z", "z"]}]
    )


def test_vectors_of_images_with_raw_captions(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "v.parquet",
        {"image": unit(2).astype(np.float16).tolist(), "text": ["fox", ""], "payload": ["x"] * 2},
    )
    rows = open_rows(path)
    (pair,) = pairs_of(rows)
    assert (pair.id, pair.text, pair.payload) == ("v.parquet#1", "fox", {"caption": "fox", "payload": "x"})
    np.testing.assert_allclose(np.linalg.norm(pair.image), 1, atol=1e-6)
    assert [row.reason for row in rejected_of(rows)] == ["missing or empty"]


def test_row_groups_are_parts_and_small_ones_go_together(tmp_path: Path) -> None:
    for name, rows in (("0", 2500), ("1", 10)):
        columns = {"id": [f"{name}-{n}" for n in range(rows)], "image": ["http://x/y"] * rows, "text": ["t"] * rows}
        write_parquet(tmp_path / f"{name}.parquet", columns, row_group_size=400)
    rows = open_rows(tmp_path)
    assert (rows.total, [part.name.rpartition("/")[2] for part in rows.parts]) == (
        2510,
        ["0.parquet", "0.parquet, after row 1200", "0.parquet, after row 2400", "1.parquet"],
    )
    ids = [pair.id for pair in pairs_of(rows)]
    assert ids == [f"0-{n}" for n in range(2500)] + [f"1-{n}" for n in range(10)]


def test_a_damaged_row_group_costs_its_part(tmp_path: Path) -> None:
    columns = {"id": list(range(2000)), "image": ["http://x/y"] * 2000, "text": [f"text {n}" for n in range(2000)]}
    path = write_parquet(tmp_path / "t.parquet", columns, row_group_size=1000, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    at = data.index(b"text 1500") - 9000
    data[at : at + 6000] = b"\xff" * 6000
    path.write_bytes(data)
    rows = open_rows(path)
    assert len(pairs_of(rows.parts[0].read())) == 1000
    *_, last = rows.parts[1].read()
    assert last.where.endswith("after row 1000")
    assert "damaged" in last.reason
    with pytest.raises(DataError, match="damaged"):
        list(read_pairs(f"{path}"))
