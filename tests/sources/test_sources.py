"""What every source of pairs has in common, and how each names what is wrong with a row."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, png, rejected_of, unit, write_parquet, write_tar

from reco_plugin import Pair
from reco_plugin.errors import ConfigError, DataError, MissingExtra
from reco_plugin.sources import open_rows, read_pairs
from reco_plugin.sources import tables as tables_module
from reco_plugin.sources.images import RemoteImage
from reco_plugin.sources.location import expand_braces, find_shards, parse_source
from reco_plugin.sources.rows import Rejected, digest


def folder(path: Path) -> str:
    for name, shade in (("a", 0), ("b", 1)):
        (path / f"{name}.png").write_bytes(png(shade))
        (path / f"{name}.txt").write_text(f"{name} fox\n")
    return str(path)


TABLES = {  # name -> its source below a folder, and its text
    "csv": ("t.csv", "id,image,text\na.png,a.png,a fox\nb.png,b.png,b fox\n"),
    "tsv": ("", "\ufeffimage\ttext\na.png\ta fox\nb.png\tb fox\n"),  # a folder that holds captions.* is that table
    "semicolons": ("t.csv", "image;text\na.png;a fox\nb.png;b fox\n"),
    "jsonl": ("t.jsonl", '{"image": "a.png", "text": "a fox"}\n\n{"image": "b.png", "text": "b fox"}\n'),
}


def table(kind: str, path: Path) -> str:
    name, text = TABLES[kind]
    (Path(folder(path)) / (name or "captions.tsv")).write_text(text)
    return str(path / name)


def parquet_of_paths(path: Path) -> str:
    folder(path)
    return str(write_parquet(path / "t.parquet", {"image": ["a.png", "b.png"], "text": ["a fox", "b fox"]}))


def parquet_of_hugging_face(path: Path) -> str:
    images = [{"bytes": png(0), "path": "a.png"}, {"bytes": png(1), "path": "b.png"}]
    return str(
        write_parquet(path / "t.parquet", {"image": images, "text": ["a fox", "b fox"]}, row_group_size=1).parent
    )


def shards(path: Path) -> str:
    own = {"a.png.png": png(0), "a.png.txt": b"a fox"}
    write_tar(path / "0.tar", {name.replace("a.png.", "a."): data for name, data in own.items()})
    write_tar(path / "1.tar", {"b.json": b'{"caption": "b fox", "width": 4, "exif": "x"}', "b.PNG": png(1)})
    return str(path)


KINDS = [folder, *(partial(table, kind) for kind in TABLES), parquet_of_paths, parquet_of_hugging_face, shards]


@pytest.mark.parametrize("make", KINDS)
def test_every_source_gives_its_rows_again_and_from_pickled_parts(tmp_path: Path, make: Callable[[Path], str]) -> None:
    rows = open_rows(make(tmp_path))
    pairs = pairs_of(rows)
    ids = ["a", "b"] if make is shards else ["a.png", "b.png"]
    assert [(pair.id, pair.text) for pair in pairs] == list(zip(ids, ("a fox", "b fox"), strict=True))
    images = [pair.image.read_bytes() if isinstance(pair.image, Path) else pair.image for pair in pairs]
    assert images == [png(0), png(1)]
    assert pairs[1].payload == {"caption": "b fox"} | ({"width": 4} if make is shards else {})
    assert rows.total in (2, None)
    parts = pickle.loads(pickle.dumps(rows.parts))
    again = [row for part in parts for row in part.read()]
    assert [(row.id, row.payload) for row in pairs_of(again)] == [(pair.id, pair.payload) for pair in pairs]
    assert [pair.id for pair in read_pairs(rows.name)] == ids


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    return tmp_path


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_columns_and_the_folder_of_images_are_named_behind_the_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "pics").mkdir()
    folder(tmp_path / "pics")
    path, row = tmp_path / name, {"sku": "7", "photo": "a.png", "title": "red fox", "text": "long", "empty": ""}
    if name == "t.csv":
        path.write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    elif name == "t.jsonl":
        path.write_text(json.dumps(row))
    else:
        write_parquet(path, {key: [value] for key, value in row.items()})
    rows = open_rows(f"{path}?id=sku&image=photo&text=title&images={tmp_path}/pics")
    payload = {"caption": "red fox", "image": "a.png", "text": "long"}
    assert list(rows) == [Pair("7", tmp_path / "pics" / "a.png", "red fox", payload)]
    assert (rows.folders, rows.note) == ((tmp_path / "pics",), "")
    assert "?id=COLUMN" in open_rows(f"{path}?image=photo&text=title").note
    with pytest.raises(ConfigError, match="no option 'title': its options are id, image, text, images"):
        open_rows(f"{path}?title=title")
    if name != "t.jsonl":
        with pytest.raises(DataError, match=r"no column 'image'; its columns are \['sku', 'photo'"):
            open_rows(path)


@pytest.mark.parametrize(
    ("line", "where", "reason", "id_"),
    [
        (b"x,a.png,  ,1", "line 3, column 'text'", "missing or empty", "x"),
        (b",a.png,fox,1", "line 3, column 'id'", "missing or empty", None),  # its path is no id beside others
        (b"x," + b"/9j/" * 2000 + b",fox,1", "line 3, column 'image'", "expected the path of an image", "x"),
        (b"x,a.png,F\xfcchse,1", "line 3", "is not UTF-8", None),
        (b"x,a.png,fox,1,2", "line 3", "5 values for 4 columns", None),
        (b'x,a.png,"fox" y,1', "after line 2", "is a quote left open?", None),
    ],
)
def test_a_bad_line_of_csv_costs_one_row(here: Path, line: bytes, where: str, reason: str, id_: str | None) -> None:
    path = here / "t.csv"
    path.write_bytes(b"id,image,text,year\nfirst,a.png,a fox,2020\n" + line + b"\nlast,b.png,a bear,2021\n")
    rows = open_rows(path)
    assert [(pair.id, pair.payload["year"]) for pair in pairs_of(rows)] == [("first", "2020"), ("last", "2021")]
    (bad,) = rejected_of(rows)
    assert (bad.where, bad.id, bad.is_incomplete) == (f"{path}, {where}", id_, False)
    assert reason in bad.reason
    assert rows.total == 3
    with pytest.raises(DataError, match=r"t\.csv, (after )?line"):
        list(read_pairs(path))


@pytest.mark.parametrize(
    ("line", "where", "reason", "id_"),
    [
        (b'{"id": "x", "image": "a.png", "text": "\\ud800"}', ", column 'text'", "is not Unicode", "x"),
        (b'{"id": "x", "image": 3, "text": "fox"}', ", column 'image'", "expected the path of an image, got 3", "x"),
        (b'{"id": 1.5, "image": "a.png", "text": "fox"}', ", column 'id'", "expected a text or whole number", None),
        (b'{"id": "x", "image"', "", "is not JSON", None),
    ],
)
def test_a_bad_line_of_jsonl_costs_one_row(here: Path, line: bytes, where: str, reason: str, id_: str | None) -> None:
    path = here / "t.jsonl"
    good = [json.dumps({"id": name, "image": "a.png", "text": "fox"}).encode() for name in ("first", "last")]
    path.write_bytes(b"\n".join([good[0], line, b"", good[1]]))
    rows = open_rows(path)
    assert [pair.id for pair in pairs_of(rows)] == ["first", "last"]
    (bad,) = rejected_of(rows)
    assert (bad.where, bad.id) == (f"{path}, line 2{where}", id_)
    assert reason in bad.reason


def test_values_of_rows(here: Path) -> None:
    path = here / "t.csv"
    path.write_text('image,text,code\na.png,"two\nlines, one",007\nHTTPS://x.de/c.png?k=1,url,\n')
    first, second = open_rows(path)
    assert isinstance(first, Pair)
    assert (first.text, first.payload["code"]) == ("two\nlines, one", "007")
    assert (second.id, second.image) == ("HTTPS://x.de/c.png?k=1", RemoteImage("HTTPS://x.de/c.png?k=1"))
    path = here / "t.jsonl"
    path.write_text('{"image": "a.png", "text": "fox", "n": NaN, "e": "", "d": {"a": [1, null]}, "f": false}')
    (pair,) = pairs_of(open_rows(path))
    assert pair.payload == {"caption": "fox", "d": {"a": [1, None]}, "f": False}


def test_vectors_may_stand_in_columns_of_tables(here: Path) -> None:
    vector = unit(1, 8)[0]
    (here / "t.csv").write_text(f'id,image,text\n1,"{vector.tolist()}",a fox\n')
    (here / "t.jsonl").write_text(json.dumps({"id": 1, "image": vector.tolist(), "text": "a fox"}))
    write_parquet(here / "t.parquet", {"id": ["1"], "image": [vector.tolist()], "text": ["a fox"]})
    for suffix in ("csv", "jsonl", "parquet"):
        (pair,) = pairs_of(open_rows(here / f"t.{suffix}"))
        np.testing.assert_allclose(pair.image, vector, atol=1e-6)  # type: ignore[arg-type]
        assert (pair.id, pair.text) == ("1", "a fox")


@pytest.mark.parametrize("suffix", [".csv", ".ndjson"])
def test_parts_are_the_table(here: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "_ROWS_PER_PART", 3)
    path = here / f"t{suffix}"
    if suffix == ".csv":
        lines = [f'{n},a.png,"fox\r\n{n}",{n}' if n % 2 else f"{n},gone.png,fox,{n}\n" for n in range(10)]
        path.write_text("\r\n".join(["id,image,text,year", *lines]), newline="")
    else:
        lines = [json.dumps({"id": n, "image": "a.png" if n % 2 else "gone", "text": "fox"}) for n in range(10)]
        path.write_text("\n\n".join(lines))
    rows = open_rows(path)
    assert (len(rows.parts), rows.total) == (4, 10)
    assert [pair.id for part in rows.parts for pair in pairs_of(part.read())] == ["1", "3", "5", "7", "9"]
    assert [row.id for row in rejected_of(rows)] == ["0", "2", "4", "6", "8"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_that_changes_while_it_is_read_is_an_error_at_the_end(here: Path, name: str) -> None:
    path = here / name
    if name == "t.parquet":
        write_parquet(path, {"id": ["x", "y"], "image": ["a.png", "b.png"], "text": ["fox", "bear"]})
    else:
        path.write_text("id,image,text\nx,a.png,fox\n" if name == "t.csv" else '{"image": "a.png", "text": "fox"}\n')
    reading = iter(open_rows(path))
    assert isinstance(next(reading), Pair)
    shutil.copy(path, here / "new")
    (here / "new").rename(path)
    with pytest.raises(DataError, match="changed while it was read"):
        list(reading)
    rows = open_rows(path)
    path.unlink()
    (row,) = rows.parts[0].read()
    assert isinstance(row, Rejected)
    assert "after 0 rows" in row.reason


def test_a_damaged_parquet_ends_with_a_rejected_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [png(n % 9) for n in range(3000)], "text": ["x"] * 3000})
    rows = open_rows(path)
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    found = [row for part in rows.parts for row in part.read()]
    assert isinstance(found[-1], Rejected) or rejected_of(found)


def test_images_or_captions_without_the_other_half(tmp_path: Path) -> None:
    for name in ("a.jpg", "c.jpg", "d.HEIC"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "a.txt").write_text("a fox")
    (tmp_path / "c.txt").write_text("  ")
    rows = open_rows(tmp_path)
    assert [pair.id for pair in pairs_of(rows)] == ["a.jpg"]
    assert [(row.id, row.is_incomplete) for row in rejected_of(rows)] == [("c.jpg", True), ("d.HEIC", True)]
    with pytest.warns(UserWarning, match="skipped 2 images or captions"):
        assert len(list(read_pairs(tmp_path))) == 1
    write_tar(tmp_path / "s" / "0.tar", {"k.png": png(), "l.txt": b"alone"})
    assert [(row.id, row.is_incomplete) for row in rejected_of(open_rows(tmp_path / "s"))] == [("k", True), ("l", True)]
    with pytest.raises(DataError, match="holds no pairs, but 2 images"):
        list(read_pairs(tmp_path / "s"))


def test_bad_shards(tmp_path: Path) -> None:
    good = write_tar(tmp_path / "good.tar", {"k.png": png(), "k.txt": b"x" * 5000})
    cases: dict[str, tuple[bytes, str]] = {
        "short.tar": (good.read_bytes()[:2000], r"short\.tar"),
        "noise.tar": (b"noise" * 1000, "cannot be read as a plain, uncompressed tar"),
    }
    for name, members, message in (
        ("twice.tar", {"k.txt": b"x", "./k.txt": b"y"}, "two members have the same name"),
        ("json.tar", {"k.png": png(), "k.json": b"{"}, r"its \.json is .*expected a JSON object"),
        ("latin.tar", {"k.png": png(), "k.txt": b"\xfc"}, r"'k\.txt' is not UTF-8"),
    ):
        cases[name] = (write_tar(tmp_path / "t", members).read_bytes(), message)
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            list(read_pairs(tmp_path / name))


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
        samples = list(webdataset.tariterators.group_by_keys(files))
    theirs = {one["__key__"]: (one["png"], one["txt"].decode()) for one in samples}
    assert {pair.id: (pair.image, pair.text) for pair in read_pairs(path)} == theirs


def test_patterns_name_shards_in_order(tmp_path: Path) -> None:
    assert expand_braces("a{x,y}b{3..1}") == ["axb3", "axb2", "axb1", "ayb3", "ayb2", "ayb1"]
    assert expand_braces("{08..10}") == ["08", "09", "10"]
    for number in range(12):
        write_tar(tmp_path / f"{number:03d}.tar", {"k.png": png(), "k.txt": b"x"})
    assert [path.name for path in find_shards(f"{tmp_path}/{{009..011}}.tar")] == ["009.tar", "010.tar", "011.tar"]
    assert len(find_shards(f"{tmp_path}/00*.tar")) == 10
    with pytest.raises(DataError, match=r"012.tar does not exist \(1 of 3 shards"):
        open_rows(f"{tmp_path}/{{010..012}}.tar")
    with pytest.raises(DataError, match="the id 'k' came before"):
        list(read_pairs(f"{tmp_path}/00*.tar"))


def test_an_existing_path_is_no_pattern_and_has_no_options(tmp_path: Path) -> None:
    (odd := tmp_path / "run{1,2}[x]").mkdir()
    shard = write_tar(odd / "a[0].tar", {"k.png": png(), "k.txt": b"x"})
    assert [pair.id for pair in read_pairs(shard)] == ["k"]
    with pytest.raises(ConfigError, match="option 'x' is given twice"):
        parse_source("a?x=1&x=2")
    with pytest.raises(ConfigError, match="it takes none"):
        open_rows(f"{odd}?limit=3")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.csv", r"gone\.csv does not exist \(did you mean .*one\.csv"),
        ("empty", r"holds no images.*no \.parquet"),
        ("pairs.xlsx", "is not a source of pairs"),
        ("wide.csv", "UTF-16"),
        ("twice.csv", "the column 'text' twice"),
        ("noise.parquet", r"noise\.parquet cannot be read as parquet"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.csv").write_text("image,text\n")
    (tmp_path / "wide.csv").write_text("image,text\n", encoding="utf-16")
    (tmp_path / "twice.csv").write_text("image,text,text\n")
    for name in ("pairs.xlsx", "noise.parquet"):
        (tmp_path / name).write_bytes(b"noise")
    with pytest.raises(DataError, match=message):
        open_rows(tmp_path / source)


def test_what_makes_two_pairs_the_same() -> None:
    vector = unit(1)[0]
    pair = Pair("a", vector, "x", {"k": 1, "l": [2]})
    others = [
        Pair("a", vector[::-1].copy(), "x", pair.payload),
        Pair("a", vector, "y", pair.payload),
        Pair("a", vector, "x", {"k": 1, "l": [3]}),
        Pair("a", b"x", "x", pair.payload),
    ]
    assert digest(pair) == digest(Pair("b", vector.copy(), "x", {"l": [2], "k": 1}))
    assert digest(pair) not in map(digest, others)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "t.parquet", {"image": [png()], "text": ["x"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"reco-plugin\[data\]"):
        open_rows(path)
