"""open_rows: what every source has in common. Parts, repeated ids, sources that are none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, png, unit, write_parquet, write_tar

from reco_plugin import Pair
from reco_plugin.data import ColumnNames, open_rows, read_pairs
from reco_plugin.data.rows import digest
from reco_plugin.errors import ConfigError, DataError


def folder(path: Path) -> str:
    for name in ("a", "b"):
        (path / f"{name}.png").write_bytes(png())
        (path / f"{name}.txt").write_text(name)
    return str(path)


def table(path: Path) -> str:
    folder(path)
    (path / "t.csv").write_text("id,image,text,price\n1,a.png,a,2\n2,b.png,b,3\n")
    return f"{path}/t.csv"


def jsonl(path: Path) -> str:
    folder(path)
    (path / "t.jsonl").write_text('{"image": "a.png", "text": "a"}\n{"image": "b.png", "text": "b"}\n')
    return f"{path}/t.jsonl"


def parquet(path: Path) -> str:
    return str(write_parquet(path / "t.parquet", {"image": [png(), png(1)], "text": ["a", "b"]}))


def shards(path: Path) -> str:
    write_tar(path / "0.tar", {"a.png": png(), "a.txt": b"a", "b.png": png(), "b.txt": b"b"})
    return str(path)


def npz(path: Path) -> str:
    np.savez(path / "v.npz", id=["a", "b"], image=unit(2), text=unit(2, seed=1))
    return f"{path}/v.npz"


KINDS = [folder, table, jsonl, parquet, shards, npz]


@pytest.mark.parametrize("make", KINDS)
def test_every_source_gives_its_rows_again_and_from_pickled_parts(tmp_path: Path, make) -> None:
    rows = open_rows(make(tmp_path))
    pairs = pairs_of(rows)
    assert len(pairs) == len(list(rows)) == 2
    assert rows.total in (2, None)
    parts = pickle.loads(pickle.dumps(rows.parts))
    again = [row for part in parts for row in part.read()]
    assert [(row.id, row.payload) for row in again] == [(pair.id, pair.payload) for pair in pairs]
    assert all(part.name for part in rows.parts)
    strict = list(read_pairs(rows.name))
    assert [pair.id for pair in strict] == [pair.id for pair in pairs]


def test_an_id_that_comes_twice_ends_a_strict_reading(tmp_path: Path) -> None:
    for name in ("0", "1"):
        write_tar(tmp_path / f"{name}.tar", {"k.png": png(), "k.txt": b"x"})
    assert len(pairs_of(open_rows(tmp_path))) == 2  # the writer looks
    with pytest.raises(DataError, match="the id 'k' came before"):
        list(read_pairs(tmp_path))


def test_what_makes_two_pairs_the_same() -> None:
    vector = unit(1)[0]
    pair = Pair("a", vector, "x", {"k": 1, "l": [2]})
    same = Pair("a", vector.copy(), "x", {"l": [2], "k": 1})
    others = [
        Pair("a", vector[::-1].copy(), "x", pair.payload),
        Pair("a", vector, "y", pair.payload),
        Pair("a", vector, "x", {"k": 1, "l": [3]}),
        Pair("a", b"x", "x", pair.payload),
        Pair("a", Path("x"), "x", pair.payload),
    ]
    assert digest(pair) == digest(same)
    assert digest(pair) not in map(digest, others)


def test_column_names_by_option_and_by_argument(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    folder(tmp_path / "pics")
    path = tmp_path / "t.csv"
    path.write_text("sku,photo,title,text\n7,a.png,red fox,long\n")
    names = ColumnNames(id="sku", image="photo", text="title")
    for source, columns in (
        (f"{path}?id=sku&image=photo&text=title&images={tmp_path}/pics", None),
        (f"{path}?images={tmp_path}/pics", names),
        (f"{path}?text=title&images={tmp_path}/pics", ColumnNames("sku", "photo", "text")),
    ):
        rows = open_rows(source, columns=columns)
        (pair,) = rows
        payload = {"caption": "red fox", "image": "a.png", "text": "long"}
        assert pair == Pair("7", tmp_path / "pics" / "a.png", "red fox", payload)
        assert rows.folders == (tmp_path / "pics",)
    with pytest.raises(DataError, match=r"no column 'image'; its columns are .*'photo'.*t.csv\?id=sku&image=photo'"):
        open_rows(path)
    with pytest.raises(DataError, match=r"no column 'ean'.*\?id=sku"):
        open_rows(f"{path}?id=ean&image=photo")
    with pytest.raises(ConfigError, match="no option 'title': its options are id, image, text, images"):
        open_rows(f"{path}?title=title")
    write_tar(tmp_path / "0.tar", {"k.png": png()})
    with pytest.raises(ConfigError, match="no columns that could be named"):
        open_rows(tmp_path / "0.tar", columns=names)


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.xlsx").write_bytes(b"x")
    (tmp_path / "none.csv").write_text("image,text\n")
    (tmp_path / "noise.npz").write_bytes(b"noise")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    np.savez(tmp_path / "less.npz", image=unit(1))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "less.npz").read_bytes()[:100])
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, unit(1))
    for source, message in [
        ("gone.csv", "gone.csv does not exist"),
        ("gone.parquet", "gone.parquet does not exist"),
        ("empty", "holds no images .*no .parquet"),
        ("pairs.xlsx", "of no kind that pairs are read from"),
        ("none.csv", "holds no pairs"),
        ("noise.npz", "noise.npz is no npz"),
        ("cut.npz", "cut.npz is no npz"),
        ("array.npz", "array.npz is no npz"),
        ("noise.parquet", "noise.parquet cannot be read as parquet"),
        ("less.npz", "less.npz has no array 'id'"),
        ("*.parquet.gz", "no shard matches"),
    ]:
        with pytest.raises(DataError, match=message):
            open_rows(tmp_path / source)
