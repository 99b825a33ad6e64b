"""Rows of webdataset shards and of folders of images: halves, damage, and downloads that failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_sources import pairs_of, png, rejected_of, write_parquet, write_tar
from PIL import Image

from reco_plugin.data import open_rows, read_pairs
from reco_plugin.data.source import IMAGE_SUFFIXES
from reco_plugin.errors import DataError
from reco_plugin.preprocess.image import ImageConfig, image_to_array


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards as img2dataset writes them, with its notes."""
    meta = {"caption": "a fox", "url": "https://x.de/0", "key": "000000000", "status": "success", "error_message": None}
    for shard in (0, 1):
        keys = [f"{shard:05d}{n:04d}" for n in range(3)]
        members = {
            f"{key}.{suffix}": data
            for key in keys[:1]
            for suffix, data in (("jpg", png()), ("txt", b"a fox"), ("json", json.dumps(meta | {"key": key}).encode()))
        }
        write_tar(tmp_path / f"{shard:05d}.tar", members)
        write_parquet(
            tmp_path / f"{shard:05d}.parquet",
            {
                "url": ["https://x.de/0"] * 3,
                "key": keys,
                "status": ["success", "failed_to_download", "failed_to_resize"],
                "error_message": [None, "HTTP Error 404: Not Found", None],
                "caption": ["a fox"] * 3,
            },
        )
        (tmp_path / f"{shard:05d}_stats.json").write_text("{}")
    return tmp_path


def test_failed_downloads_are_rejected_rows(shards: Path) -> None:
    rows = open_rows(shards)
    assert [part.name for part in rows.parts] == [f"{shards}/00000.tar", f"{shards}/00001.tar"]
    assert [pair.id for pair in pairs_of(rows)] == ["000000000", "000010000"]
    assert pairs_of(rows)[0].payload == {"caption": "a fox", "url": "https://x.de/0"}
    assert [(row.id, row.reason, row.half) for row in rejected_of(rows)][:2] == [
        ("000000001", "img2dataset: failed_to_download: HTTP Error 404: Not Found", True),
        ("000000002", "img2dataset: failed_to_resize", True),
    ]
    assert rejected_of(rows)[0].where == f"{shards}/00000.parquet, key 000000001"
    assert [pair.id for pair in pairs_of(open_rows(shards / "00001.tar"))] == ["000010000"]
    with pytest.warns(UserWarning, match="skipped 4 keys without both .* the first is '000000001'"):
        assert len(list(read_pairs(shards))) == 2


def test_faults_of_single_keys(tmp_path: Path) -> None:
    good = {"a.png": png(), "a.txt": b"fox", "z.png": png(1), "z.txt": b"bear"}
    bad = {
        "b.png": png(), "c.txt": b"alone", "d.png": png(), "d.txt": b"  ", "e.png": png(), "e.txt": b"\xfc",
        "f.png": png(), "f.json": b"{", "g.png": png(), "g.json": b"[1]", "h.txt": b"x", "./h.txt": b"y",
        "i.json": b'{"status": "failed_to_download", "error_message": "timed out"}',
    }  # fmt: skip
    path = write_tar(tmp_path / "0.tar", good | bad)
    rows = open_rows(path)
    assert [pair.id for pair in pairs_of(rows)] == ["a", "z"]
    assert {row.id: (row.where, row.reason.partition(": ")[0], row.half) for row in rejected_of(rows)} == {
        "b": (f"{path}, key b", "there is no caption", True),
        "c": (f"{path}, key c", "there is no image", True),
        "d": (f"{path}, key d", "there is no caption", True),
        "e": (f"{path}, member 'e.txt'", "is not UTF-8 text", False),
        "f": (f"{path}, member 'f.json'", "is not JSON", False),
        "g": (f"{path}, member 'g.json'", "is not a JSON object", False),
        "h": (f"{path}, key h", "'h.txt' twice", False),
        "i": (f"{path}, key i", "there is no image", True),
    }


def test_a_shard_that_ends_early_keeps_what_lies_before(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "w", {"a.png": png(), "a.txt": b"fox", "b.png": png(1), "b.txt": b"x" * 9000})
    (tmp_path / "0.tar").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "1.tar").write_bytes(b"noise" * 1000)
    write_tar(tmp_path / "2.tar", {"c.png": png(), "c.txt": b"bear"})
    rows = open_rows(tmp_path)
    assert [pair.id for pair in pairs_of(rows)] == ["a", "c"]
    reasons = [str(row) for row in rejected_of(rows)]
    assert any("0.tar" in reason and ("ends inside" in reason or "end" in reason) for reason in reasons)
    assert any("1.tar" in reason and "plain, uncompressed tar" in reason for reason in reasons)


def test_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a", "x/b", "c", "d", ".hidden"):
        (tmp_path / f"{name}.jpg").write_bytes(png())
    (tmp_path / "a.txt").write_text(" a fox\n")
    (tmp_path / "x" / "b.txt").write_bytes(b"F\xfcchse")
    (tmp_path / "c.txt").write_text("\n")
    rows = open_rows(tmp_path)
    assert (rows.total, [(pair.id, pair.image, pair.text) for pair in pairs_of(rows)]) == (
        4,
        [("a.jpg", tmp_path / "a.jpg", "a fox")],
    )
    assert [(row.id, row.half) for row in rejected_of(rows)] == [("c.jpg", True), ("d.jpg", True), ("x/b.jpg", False)]
    empty, missing, _ = rejected_of(rows)
    assert (empty.reason, missing.reason) == ("its caption 'c.txt' is empty", "there is no 'd.txt' with its caption")
    with pytest.raises(DataError, match=r"b\.txt' cannot be read as UTF-8"):
        list(read_pairs(tmp_path))


@pytest.mark.parametrize("suffix", sorted(set(IMAGE_SUFFIXES) - {"heic", "heif"}))
def test_every_image_that_the_encoder_reads_is_found(tmp_path: Path, suffix: str) -> None:
    kind = Image.registered_extensions()[f".{suffix}"]
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix.upper()}", kind)
    (tmp_path / "a.txt").write_text("a fox")
    write_tar(tmp_path / "0", {f"b.{suffix}": (tmp_path / f"a.{suffix.upper()}").read_bytes(), "b.txt": b"a fox"})
    (shard,) = pairs_of(open_rows((tmp_path / "0").rename(tmp_path / "shard.tar")))
    (tmp_path / "shard.tar").unlink()
    (pair,) = pairs_of(open_rows(tmp_path))
    assert (pair.id, shard.id) == (f"a.{suffix.upper()}", "b")
    for image in (pair.image, shard.image):
        assert image_to_array(image, ImageConfig((8, 8))).shape == (8, 8, 3)


def test_an_image_that_cannot_be_read_here_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (row,) = rejected_of(open_rows(tmp_path))
    assert (row.id, row.half) == ("a.HEIC", True)


def test_a_large_folder_comes_in_parts(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number:04d}.png").touch()
    rows = open_rows(tmp_path)
    assert [part.name for part in rows.parts] == [
        f"{tmp_path}, 1,000 images from '0000.png'",
        f"{tmp_path}, 1 images from '1000.png'",
    ]
