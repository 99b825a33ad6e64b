"""``reco compare`` against a real PostgreSQL: figures, files, checks of the index, bad input."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.evaluation.hybrid import engine_query
from reco_plugin.evaluation.search import ARMS, fuse
from reco_plugin.sources.indexes import IndexQuery, open_index, parse_address

from ..conftest import Served

pytestmark = pytest.mark.slow


def reco_(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def shop(postgresql, tmp_path_factory, drawings, drawn_records, model) -> dict[str, str]:
    """24 drawings in a table beside their pictures, a memory of them, queries and judgments."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    for pair in drawings:
        pair.image.save(folder / "photos" / f"{pair.id}.png")
    image = drawn_records.image
    _table(postgresql, "drawn", image, drawings)
    _table(postgresql, "narrow", image[:, :16], drawings)
    _table(postgresql, "turned", np.roll(image, 1, axis=1), drawings)
    _table(postgresql, "captions", drawn_records.text, drawings)
    with Reco.open(model, memory=folder / "memory") as opened:
        opened.memory.add_records([drawn_records])
    queries = [{"query_id": pair.id, "query": pair.text, "count": 1 + n % 3} for n, pair in enumerate(drawings)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), encoding="utf-8")
    (folder / "qrels").write_text(
        "".join(f"{pair.id} 0 {pair.id} 1\n" for pair in drawings) + "nobody 0 missing 1\n", encoding="utf-8"
    )
    host = postgresql.address.partition("host=")[2].partition("&")[0]
    return {
        "folder": str(folder),
        "address": f"postgresql://reader@/postgres?host={host}&vector=clip&id=sku&images={folder}",
        "memory": str(folder / "memory"),
        "model": str(model),
    }


def _table(served: Served, name: str, vectors, drawings) -> None:
    assert served.query is not None
    served.query(f"DROP TABLE IF EXISTS {name}")
    served.query(
        f"CREATE TABLE {name} (sku text PRIMARY KEY, title text, photo text, radius int, "
        f"clip vector({vectors.shape[1]}))"
    )
    for pair, vector in zip(drawings, vectors, strict=True):
        served.query(
            f"INSERT INTO {name} VALUES ('{pair.id}', '{pair.text}', 'photos/{pair.id}.png', "
            f"{pair.payload['radius']}, '{vector.tolist()}')"
        )
    served.query(f"CREATE INDEX ON {name} USING hnsw (clip vector_cosine_ops)")
    served.query(f"GRANT SELECT ON {name} TO reader")


def run(shop: dict[str, str], out: Path, *more: object, table: str = "drawn", fields: str = "&text=title&image=photo"):
    return reco_(
        "compare", f"{shop['address']}&table={table}{fields}", "--memory", shop["memory"], "--model", shop["model"],
        "--queries", f"{shop['folder']}/queries.jsonl", "--out", out, *more,
    )  # fmt: skip


def test_it_measures_every_arm_and_writes_a_page_and_figures(shop, tmp_path):
    result = run(shop, tmp_path, "--qrels", f"{shop['folder']}/qrels", "--k", 5)
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    (line,) = told["lines"]
    assert (line["name"], line["queries"], list(line["values"])) == ("names and titles", 24, list(ARMS.values()))
    assert line["values"]["text search"] > 0.9, "captions are the queries"
    assert told["setup"]["target"].startswith("texts for images")
    for note in ("24 pictures agree", "1 of 25 judged documents are not in the index", "The index finds 1"):
        assert any(note in one for one in told["notes"]), note
    rows = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(row["plain"]) for row in rows] == [5] * 24
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert told["verdicts"][0]["sentence"].partition(":")[0] in page
    assert "data:image/webp" in page
    assert told["verdicts"][0]["basis"] == "titles", "each query is judged by its own title"


def test_the_printed_query_ranks_as_the_comparison_fuses(shop, postgresql, drawings, drawn_records):
    address = parse_address(f"{shop['address']}&table=drawn&text=title")
    with closing(open_index(address)) as index:
        described = index.describe()
        for row in (0, 7, 15):
            text, vector = str(drawings[row].text).rpartition(" ")[2], drawn_records.image[row]
            searched = [index.search(IndexQuery(vector, k=5)), index.search(IndexQuery(None, text, k=5))]
            statement = engine_query(address, described, 0.7, 5)
            for name, value in (("query", text), ("vector", str(vector.tolist()))):
                statement = statement.replace(f"%({name})s", f"'{value}'")
            found = [sku for (sku,) in postgresql.query(statement)]
            best = fuse(searched[1], searched[0], k=5, weight=0.7)
            scores = {hit.id: hit.score for hit in fuse(searched[1], searched[0], k=10, weight=0.7)}
            assert [scores[sku] for sku in found] == pytest.approx([hit.score for hit in best])


def test_a_filter_is_used(shop, tmp_path):
    run(shop, tmp_path, "--where", "radius > 20", "--json", "--k", 3)
    rows = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(id_.startswith("large") for row in rows for id_ in row["plain"])


def test_an_index_of_captions_is_found_out(shop, tmp_path):
    told = json.loads(run(shop, tmp_path, "--json", table="captions").stdout)
    assert told["setup"]["target"].startswith("texts for texts")


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        ("narrow", "", r"vectors of 16 dimensions in 'clip'.*--model"),
        ("turned", "&image=photo", r"another encoder.*mean cosine of"),
        ("drawn", "&text=tilte", r"did you mean 'title'"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_before_anything_is_written(shop, tmp_path, table, fields, said):
    result = run(shop, tmp_path / "out", table=table, fields=fields)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert re.search(said, result.output)
    assert not (tmp_path / "out").exists()


def test_an_index_without_pictures_and_captions_is_said_to_be_unchecked(shop, tmp_path):
    told = json.loads(run(shop, tmp_path, "--json", fields="").stdout)
    assert any("The index: not checked: no picture and no caption" in note for note in told["notes"])
    assert told["verdicts"][0]["decision"] == "not known"
    assert "because the address names no text=" in told["verdicts"][0]["sentence"]


def test_texts_and_pictures_ask_together_and_by_other_options(shop, tmp_path, drawings):
    rows = [{"id": f"t-{pair.id}", "text": pair.text} for pair in drawings]
    rows += [{"id": pair.id, "image": f"photos/{pair.id}.png"} for pair in drawings]
    rows += [{"id": "bad", "image": "missing.png"}]
    mixed = Path(shop["folder"]) / "mixed.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run(shop, tmp_path, "--queries", mixed, "--coverage", "1", "--json", fields="&image=photo")
    told = json.loads(result.stdout)
    assert told["setup"]["queries"] == "48"
    assert any("1 could not be read, the first: row 49: 'missing.png' is not a file" in note for note in told["notes"])
    found = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["query"] for row in found[:24]] == [pair.text for pair in drawings]
    assert all(row["plain"][0] == row["id"] for row in found[24:])  # a picture finds itself
    assert [one["decision"] for one in told["verdicts"]] == ["not known"] * 2, "nobody judged"


def test_the_flags_that_are_missing_are_named(shop, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run(shop, tmp_path / "file" / "below")
    assert f"cannot be written to: {tmp_path / 'file'} is a file" in result.output
    assert "give real queries: --queries FILE" in reco_("compare", shop["address"]).output
    result = reco_("compare", "--queries", f"{shop['folder']}/queries.jsonl")
    assert "give the address of an index, or in its place --function" in result.output
