"""Rows of csv, tsv and jsonl: each fault costs one row, and the table comes in parts."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_sources import pairs_of, png, rejected_of, write_parquet

from reco_plugin import Pair
from reco_plugin.data import open_rows
from reco_plugin.data import tables as tables_module
from reco_plugin.data.images import RemoteImage
from reco_plugin.data.rows import Rejected, digest
from reco_plugin.data.source import Location, parse_source
from reco_plugin.data.tables import TableFile
from reco_plugin.errors import DataError


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    return tmp_path


GOOD = ("first", "last")


@pytest.mark.parametrize(("start", "line"), [(b"sep=;\r\n", 4), (b"\xef\xbb\xbfSEP=;\r\n", 4), (b"\nsep=;\n\n", 6)])
def test_a_first_line_for_excel_names_the_separator_and_no_column(here: Path, start: bytes, line: int) -> None:
    path = here / "t.csv"
    path.write_bytes(start + b"id;image;text,or,more\nfirst;a.png;a fox, red\nlast;gone.png;a bear\n")
    rows = list(open_rows(f"{path}?text=text,or,more"))
    assert isinstance(rows[0], Pair)
    assert (rows[0].id, rows[0].text) == ("first", "a fox, red")
    assert isinstance(rows[1], Rejected)
    assert rows[1].where == f"{path}, line {line}, column 'image'"


def test_the_told_separator_need_not_be_one_of_the_usual(here: Path) -> None:
    (here / "t.csv").write_text("sep=^\nid^image^text\nfirst^a.png^a fox; a bear\n")
    assert [row.text for row in open_rows(here / "t.csv") if isinstance(row, Pair)] == ["a fox; a bear"]


@pytest.mark.parametrize(
    ("line", "where", "reason", "id_"),
    [
        (b"x,a.png,,1", "line 3, column 'text'", "missing or empty", "x"),
        (b"x,a.png,  ,1", "line 3, column 'text'", "missing or empty", "x"),
        (b"x,,fox,1", "line 3, column 'image'", "missing or empty", "x"),
        (b"x,gone.png,fox,1", "line 3, column 'image'", "'gone.png' is not a file at", "x"),
        (b"x," + b"/9j/" * 2000 + b",fox,1", "line 3, column 'image'", "expected the path of an image, got '/9j", "x"),
        (b"x,a\0.png,fox,1", "line 3, column 'image'", "is not a file at", "x"),
        (b"x,.,fox,1", "line 3, column 'image'", "is not a file at", "x"),
        (b"x,s3://b/a.png,fox,1", "line 3, column 'image'", "s3:// is not supported", "x"),
        (b"x,a.png,F\xfcchse,1", "line 3, column 'text'", r"is not UTF-8: b'F\xfcchse'", None),
        (
            b"x,a.png,fox,1,2",
            "line 3, column 'text'",
            "more values than columns: ['2']; quote values that hold ','",
            None,
        ),
        (b"x,a.png,fox", "line 3, column 'year'", "no value: 3 of 4 columns", None),
        (b'x,a.png,"fox" y,1', "after line 2", "',' expected after '\"' (up to line 3)", None),
    ],
)
def test_a_bad_line_of_csv_costs_one_row(here: Path, line: bytes, where: str, reason: str, id_: str | None) -> None:
    path = here / "t.csv"
    path.write_bytes(b"id,image,text,year\nfirst,a.png,a fox,2020\n" + line + b"\nlast,b.png,a bear,2021\n")
    rows = open_rows(path)
    assert [pair.id for pair in pairs_of(rows)] == list(GOOD)
    assert [pair.payload["year"] for pair in pairs_of(rows)] == ["2020", "2021"]
    (bad,) = rejected_of(rows)
    assert (bad.where, bad.id, bad.half) == (f"{path}, {where}", id_, False)
    assert bad.reason.startswith(reason) or reason in bad.reason
    assert rows.total == 3


@pytest.mark.parametrize(
    ("line", "where", "reason", "id_"),
    [
        (b'{"id": "x", "image": "a.png"}', ", column 'text'", "missing or empty; this row has", "x"),
        (b'{"id": "x", "image": "a.png", "text": null}', ", column 'text'", "missing or empty", "x"),
        (b'{"id": "x", "image": "a.png", "text": ["a", "b"]}', ", column 'text'", "expected one caption", "x"),
        (b'{"id": "x", "image": "a.png", "text": "\\ud800"}', ", column 'text'", "is not Unicode", "x"),
        (b'{"id": "x", "image": 3, "text": "fox"}', ", column 'image'", "expected the path of an image, got 3", "x"),
        (b'{"id": [1], "image": "a.png", "text": "fox"}', ", column 'id'", "expected a text or whole number", None),
        (b'{"id": true, "image": "a.png", "text": "fox"}', ", column 'id'", "expected a text or whole number", None),
        (b'{"id": 1.5, "image": "a.png", "text": "fox"}', ", column 'id'", "expected a text or whole number", None),
        (b'{"id": "x", "image"', "", "is not JSON", None),
        (b'["a.png"]', "", "is not a JSON object", None),
        (b'{"id": "x", "image": "a.png", "text": "F\xfcchse"}', "", "is not UTF-8", None),
    ],
)
def test_a_bad_line_of_jsonl_costs_one_row(here: Path, line: bytes, where: str, reason: str, id_: str | None) -> None:
    path = here / "t.jsonl"
    good = [json.dumps({"id": id_, "image": "a.png", "text": "fox"}).encode() for id_ in GOOD]
    path.write_bytes(b"\n".join([good[0], line, b"", good[1]]))
    rows = open_rows(path)
    assert [pair.id for pair in pairs_of(rows)] == list(GOOD)
    (bad,) = rejected_of(rows)
    assert (bad.where, bad.id) == (f"{path}, line 2{where}", id_)
    assert reason in bad.reason
    assert rows.total == 3


def test_a_value_of_csv_does_not_hang_on_those_of_other_rows(here: Path) -> None:
    path, code = here / "t.csv", "123456789012345678901234"
    path.write_text(f"image,text,code,price\na.png,fox,{code},1e5\n")
    (before,) = open_rows(f"{path}?numbers=price")
    path.write_text(f"image,text,code,price\na.png,fox,{code},1e5\nb.png,bear,A1,cheap\n")
    first, bad = open_rows(f"{path}?numbers=price")
    assert first == before
    assert first.payload == {"caption": "fox", "code": code, "price": 1e5}
    assert (bad.where, bad.reason) == (f"{path}, line 3, column 'price'", "expected a number, got 'cheap'")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_signature_of_an_address_is_no_part_of_a_row(here: Path, name: str) -> None:
    def row(signature: str) -> Pair:
        url = f"https://cdn.de/a.png?X-Amz-Signature={signature}"
        if name == "t.csv":
            (here / name).write_text(f"image,text\n{url},fox\n")
        else:
            write_parquet(here / name, {"image": [url], "text": ["fox"]})
        (pair,) = open_rows(f"{here / name}?images=signed")
        assert pair.image.url == url
        return pair

    monday, tuesday = row("1"), row("2")
    assert (monday.id, digest(monday)) == (tuesday.id, digest(tuesday))


def test_an_open_quote_costs_what_it_swallows_and_says_so(here: Path) -> None:
    path = here / "t.csv"
    path.write_text('image,text\na.png,fox\nb.png,"open\n1,2\n3,4\n')
    rows = open_rows(path)
    assert len(pairs_of(rows)) == 1
    (bad,) = rejected_of(rows)
    assert str(bad) == f"{path}, after line 2: unexpected end of data (up to line 5); is a quote left open?"


def test_long_captions_line_breaks_and_urls_are_fine(here: Path) -> None:
    path = here / "t.tsv"
    long = "fox " * 1250
    path.write_text(f'\ufeffimage\ttext\na.png\t{long}\nb.png\t"two\nlines"\nHTTPS://x.de/c.png?k=1\turl\n')
    first, second, third = open_rows(path)
    assert first.text == long.strip()
    assert second.text == "two\nlines"
    assert (third.id, third.image) == ("HTTPS://x.de/c.png?k=1", RemoteImage("HTTPS://x.de/c.png?k=1"))


def test_payload_of_jsonl_is_what_json_can_hold(here: Path) -> None:
    path = here / "t.jsonl"
    path.write_text('{"image": "a.png", "text": "fox", "n": NaN, "e": "", "d": {"a": [1, null]}, "f": false}')
    (pair,) = open_rows(path)
    assert pair.payload == {"caption": "fox", "d": {"a": [1, None]}, "f": False}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".ndjson"])
def test_parts_are_the_table(here: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "_ROWS_PER_STRETCH", 3)
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
    assert [row.id for row in rejected_of(reversed(list(rows)))] == ["8", "6", "4", "2", "0"]
    if suffix == ".csv":
        assert [pair.payload["year"] for pair in pairs_of(rows)] == ["1", "3", "5", "7", "9"]
        assert [row.where.split(", ")[1] for row in rejected_of(rows)][:2] == ["line 2", "line 6"]


def test_a_table_that_vanishes_ends_its_part_with_a_rejected_row(here: Path) -> None:
    path = here / "t.csv"
    path.write_text("image,text\na.png,fox\n")
    rows = open_rows(path)
    path.unlink()
    (row,) = rows.parts[0].read()
    assert "cannot be read" in row.reason
    assert "after 0 rows" in row.reason


@pytest.mark.parametrize("how", ["replaced", "longer", "gone"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_table_that_changes_while_it_is_read_is_an_error_at_the_end(here: Path, name: str, how: str) -> None:
    path = here / name
    columns = {"id": ["x", "y"], "image": ["a.png", "b.png"], "text": ["fox", "bear"]}
    lines = {".csv": "id,image,text\nx,a.png,fox\n", ".jsonl": '{"id": "x", "image": "a.png", "text": "fox"}\n'}
    if path.suffix == ".parquet":
        write_parquet(path, columns)
    else:
        path.write_text(lines[path.suffix])
    reading = iter(rows := open_rows(path))
    assert isinstance(next(reading), Pair)
    if how == "replaced":
        shutil.copy(path, here / "new")
        (here / "new").rename(path)
    elif how == "longer":
        with path.open("ab") as file:
            file.write(b"\n")
    else:
        path.unlink()
    for again in (lambda: list(reading), rows.check_unchanged):
        with pytest.raises(DataError, match=f"{path} changed while it was read, so rows may be missing: read it again"):
            again()


@pytest.mark.parametrize(
    ("name", "separator"), [("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", ","), ("t.tsv", ";")]
)
def test_another_separator_is_seen_in_the_header(here: Path, name: str, separator: str) -> None:
    path = here / name
    lines = [["id", "image", "title", "price"], ["x", "a.png", '"red, |;\tfox"', "3"], ["y", "b.png", "wolf", "4", "5"]]
    path.write_text("\ufeff" + "\n".join(map(separator.join, lines)))
    rows = open_rows(f"{path}?text=title")
    assert pairs_of(rows) == [
        Pair("x", here / "a.png", "red, |;\tfox", {"caption": "red, |;\tfox", "image": "a.png", "price": "3"})
    ]
    (bad,) = rejected_of(rows)
    assert bad.reason == f"more values than columns: ['5']; quote values that hold {separator!r}"
    assert pairs_of(pickle.loads(pickle.dumps(rows.parts[0])).read()) == pairs_of(rows)
    with pytest.raises(DataError, match=r"no column 'text'; its columns are \['id', 'image', 'title', 'price'\]"):
        open_rows(path)


def test_the_usual_separator_stays_where_it_splits_the_header(here: Path) -> None:
    path = here / "t.csv"
    path.write_text("image,text,a;b;c;d\na.png,fox,1\n")
    (pair,) = open_rows(path)
    assert pair.payload == {"caption": "fox", "a;b;c;d": "1"}


@pytest.mark.parametrize(("name", "content"), [("t.csv", ""), ("t.tsv", "\n\n"), ("t.csv", "\ufeff")])
def test_a_file_without_a_header_is_empty(here: Path, name: str, content: str) -> None:
    (here / name).write_text(content)
    with pytest.raises(DataError, match=r"is empty: its first line must name the columns, as in image,text$"):
        open_rows(here / name)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("t.csv", "image,text\r\na.png,fox\r\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("t.jsonl", '{"image": "a.png", "text": "fox"}\n'.encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("t.csv", "image,Größe\na.png,fox\n".encode("cp1252"), "is not UTF-8: its columns"),
        ("t.csv", b"image,text\ra.png,fox\r", "its first line is no header: a carriage return without a line feed"),
        ("t.csv", b"image;text;note;note\na.png;fox;1;2\n", "has the column 'note' twice: rename one of them"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_whole(here: Path, name: str, content: bytes, problem: str) -> None:
    path = here / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        open_rows(path)


def test_rows_and_columns_that_a_spreadsheet_leaves_empty_are_none(here: Path) -> None:
    path = here / "t.csv"
    path.write_text("image;text;;\r\n;;;\r\na.png;fox;;\r\n;;;\r\n", newline="")
    rows = open_rows(path)
    assert (rows.total, [pair.payload for pair in pairs_of(rows)], rejected_of(rows)) == (1, [{"caption": "fox"}], [])


def test_the_strict_table_raises_where_the_rows_go_on(here: Path) -> None:
    path = here / "t.csv"
    path.write_text("image,text\na.png,fox\nb.png\n")
    table = TableFile(path)
    assert open_rows(path).total == 2
    with pytest.raises(DataError, match=r"line 3, column 'text': no value: 1 of 2 columns"):
        list(table.good_rows())


def test_all_columns_of_usual_names_are_proposed_in_one_message(tmp_path: Path) -> None:
    table = tmp_path / "shop.csv"
    table.write_text("sku,image_url,title,price\n1,a.png,a fox,3\n")
    with pytest.raises(
        DataError, match=r"no column 'image' and no 'text'; .*as in '.*shop.csv\?id=sku&image=image_url&text=title'"
    ):
        open_rows(table)
    table.write_text("photo,description\na.png,a fox\n")
    with pytest.raises(DataError, match=r"as in '.*shop.csv\?image=photo&text=description'"):
        open_rows(table)
    table.write_text("foo,bar\na.png,a fox\n")
    with pytest.raises(DataError, match=r"as in '.*shop.csv\?image=NAME&text=NAME'"):
        open_rows(table)


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl"])
def test_vectors_in_text_files(tmp_path: Path, name: str) -> None:
    """As JSON, and as Postgres writes an array."""
    if name == "v.csv":
        lines = [
            "id,image,text",
            'a,"[0.6,0.8,0,0]","{0,0,0.6,-8e-1}"',
            'b,"[1,2,3,4]",x',
            'c,"[0.6, 0.8, 0, 0]",a fox',
        ]
    else:
        rows = [("a", [0.6, 0.8, 0, 0], [0, 0, 0.6, -0.8]), ("b", [1, 2, 3, 4], "x"), ("c", [0.6, 0.8, 0, 0], "a fox")]
        lines = [json.dumps({"id": id_, "image": image, "text": text}) for id_, image, text in rows]
    (tmp_path / name).write_text("\n".join(lines))
    first, second, third = open_rows(tmp_path / name)
    assert isinstance(first, Pair) and isinstance(third, Pair) and isinstance(second, Rejected)
    np.testing.assert_allclose(first.image, [0.6, 0.8, 0, 0], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(first.text, [0, 0, 0.6, -0.8], atol=1e-6)  # type: ignore[arg-type]
    assert "norm" in second.reason and second.id == "b"
    assert third.text == "a fox"


def test_what_becomes_of_missing_ids_is_told_with_the_source_to_give(here: Path) -> None:
    table = here / "shop.csv"
    table.write_text("sku,image,text\n1,a.png,a fox\n")
    rows = open_rows(table)
    assert "has no 'id': the path or URL of the image is the id of a pair" in rows.note
    assert rows.note.endswith(f"'{table}?id=sku'")
    assert open_rows(f"{table}?id=sku").note == ""
    parquet = here / "shop.parquet"
    write_parquet(parquet, {"sku": ["1"], "image": ["a.png"], "text": ["a fox"]})
    assert "has no 'id'" in open_rows(parquet).note
    assert open_rows(parquet).note.endswith(f"'{parquet}?id=sku'")
    assert open_rows(f"{parquet}?id=sku").note == ""
    table.write_text("id,image,text\n,a.png,a fox\n2,b.png,a wolf\n")
    assert open_rows(table).note == f"1 row of {table} has no 'id': the path or URL of the image is the id"
    lines = here / "shop.jsonl"
    lines.write_text(json.dumps({"image": "a.png", "text": "a fox"}))
    assert open_rows(lines).note.endswith(f"'{lines}?id=COLUMN'")


def test_a_tilde_in_quotes_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("~/my.csv?image=photo") == Location(str(tmp_path / "my.csv"), {"image": "photo"})
    assert parse_source("~nobody-of-this-name/my.csv").name == "~nobody-of-this-name/my.csv"
    assert parse_source("./~/my.csv").name == "./~/my.csv"
