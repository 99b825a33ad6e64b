"""read_pairs: every kind of source, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from braceexpand import braceexpand
from made_sources import png, write_tar

from reco_plugin.data import read_pairs
from reco_plugin.data.shards import read_samples
from reco_plugin.data.source import expand_braces, find_shards
from reco_plugin.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pics").mkdir()
    for name in ("a.png", "pics/b.jpg"):
        (tmp_path / name).write_bytes(png())
    return tmp_path


def test_jsonl(folder: Path) -> None:
    rows = [{"image": "a.png", "text": "a fox", "year": 2020}, {"id": 7, "image": "pics/b.jpg", "text": "zwei Füchse"}]
    table = folder / "pairs.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    pairs = read_pairs(table)
    first, second = pairs
    assert (first.id, first.image, first.text) == ("a.png", folder / "a.png", "a fox")
    assert first.payload == {"caption": "a fox", "year": 2020}
    assert (second.id, second.text) == ("7", "zwei Füchse")


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_values_of_csv_are_texts_but_in_columns_of_numbers(folder: Path, suffix: str, comma: str) -> None:
    lines = ["image,text,year,price,code,shop", 'a.png,"a fox; quick",2020,1.5,007,de', "pics/b.jpg,b,2021,,12,"]
    table = folder / f"captions{suffix}"
    table.write_text("\ufeff" + "\n".join(lines).replace(",", comma), encoding="utf-8")  # as Excel writes it
    for source in (table, folder):  # a folder that holds captions.* is that table
        first, second = read_pairs(f"{source}?numbers=year,price")
        assert first.payload == {"caption": "a fox; quick", "year": 2020, "price": 1.5, "code": "007", "shop": "de"}
        assert second.payload == {"caption": "b", "year": 2021, "code": "12"}


def test_folder_of_images_skips_those_without_a_caption_and_says_so(folder: Path) -> None:
    (folder / "pics" / "b.txt").write_text("a bear\n")
    pairs = read_pairs(folder)
    with pytest.warns(UserWarning, match=r"skipped 1 images without a caption .* 'a.png'"):
        assert [(p.id, p.text, p.payload) for p in pairs] == [("pics/b.jpg", "a bear", {"caption": "a bear"})]
    (folder / "pics" / "b.txt").write_text(" ")
    with pytest.raises(DataError, match="holds no pairs: none of 2 images without a caption"):
        list(read_pairs(folder))


def test_shards_join_by_key(tmp_path: Path) -> None:
    meta = {"caption": "from json", "url": "https://x.de/2", "width": 4, "exif": "{}", "sha256": None, "key": "002"}
    write_tar(tmp_path / "0.tar", {"001.png": png(1), "001.txt": b"one", "002.PNG": png(2), "003.txt": b"alone"})
    write_tar(tmp_path / "1.tar", {"x/002.json": json.dumps(meta).encode(), "x/001.jpg": png(3), "x/002.webp": png(2)})
    with pytest.warns(UserWarning, match=r"skipped 3 keys .* the first is '002'"):
        one, two = read_pairs(tmp_path)
    assert (one.id, one.image, one.text, one.payload) == ("001", png(1), "one", {"caption": "one"})
    assert (two.id, two.image, two.text) == ("x/002", png(2), "from json")
    assert two.payload == {"caption": "from json", "url": "https://x.de/2", "width": 4}


@pytest.mark.slow
def test_shards_agree_with_webdataset(tmp_path: Path) -> None:
    """Twin: webdataset writes the shard and reads the same samples from it."""
    import webdataset

    path = tmp_path / "0.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(3):
            writer.write({"__key__": f"a.b/{number:03d}", "png": png(number), "txt": f"no. {number}", "seg.txt": "x"})
    with path.open("rb") as stream:
        files = webdataset.tariterators.tar_file_expander([{"url": str(path), "stream": stream}])
        theirs = {
            s["__key__"]: {k: v for k, v in s.items() if k[0] != "_"}
            for s in webdataset.tariterators.group_by_keys(files)
        }
    ours = {
        sample.key: {suffix: blob.read() for suffix, blob in sample.parts.items()} for sample in read_samples([path])
    }
    assert ours == theirs
    assert len(ours) == 3


@pytest.mark.parametrize("pattern", ["{000..012}.tar", "{8..11}", "a{x,y,z}b{3..1}", "{01..3}", "plain", "{one}"])
def test_braces_as_braceexpand_does(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand(pattern))


def test_patterns_name_shards_in_order(tmp_path: Path) -> None:
    for number in range(12):
        write_tar(tmp_path / f"{number:03d}.tar", {"k.png": png(), "k.txt": b"x"})
    assert [path.name for path in find_shards(f"{tmp_path}/{{009..011}}.tar")] == ["009.tar", "010.tar", "011.tar"]
    assert len(find_shards(f"{tmp_path}/00*.tar")) == 10
    with pytest.raises(DataError, match=r"012.tar does not exist \(1 of 3 shards"):
        read_pairs(f"{tmp_path}/{{010..012}}.tar")
    with pytest.raises(DataError, match="no shard matches"):
        read_pairs(f"{tmp_path}/x*.tar")


def test_bad_shards(tmp_path: Path) -> None:
    good = write_tar(tmp_path / "good.tar", {"k.png": png(), "k.txt": b"x" * 5000})
    cases = {
        "short.tar": (good.read_bytes()[:2000], "short.tar"),
        "noise.tar": (b"noise" * 1000, "cannot be read as a plain, uncompressed tar"),
        "empty.tar": (write_tar(tmp_path / "t", {}).read_bytes(), "holds no pairs"),
        "alone.tar": (write_tar(tmp_path / "t", {"k.png": png()}).read_bytes(), "none of 1 keys without both"),
        "twice.tar": (write_tar(tmp_path / "t", {"k.txt": b"x", "./k.txt": b"y"}).read_bytes(), r"'k.txt' twice"),
        "json.tar": (write_tar(tmp_path / "t", {"k.png": png(), "k.json": b"{"}).read_bytes(), "'k.json' is not JSON"),
        "latin.tar": (
            write_tar(tmp_path / "t", {"k.png": png(), "k.txt": b"\xfc"}).read_bytes(),
            "'k.txt' is not UTF-8",
        ),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            list(read_pairs(tmp_path / name))


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.xlsx").write_bytes(b"x")
    for source, message in [
        (tmp_path / "gone", "gone does not exist"),
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "pairs.xlsx", "of no kind that pairs are read from"),
    ]:
        with pytest.raises(DataError, match=message):
            read_pairs(source)


def test_an_existing_path_is_no_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "run{1,2}[x]"
    odd.mkdir()
    shard = write_tar(odd / "a[0].tar", {"k.png": png(), "k.txt": b"x"})
    assert [pair.id for pair in read_pairs(shard)] == ["k"]
    assert [pair.id for pair in read_pairs(odd)] == ["k"]
    (odd / "p.csv").write_text("id,image,text\n1,b.png,x\n")
    (odd / "b.png").write_bytes(png())
    assert [pair.id for pair in read_pairs(odd / "p.csv")] == ["1"]
