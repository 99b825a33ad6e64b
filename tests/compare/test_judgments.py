"""Judgments, runs, votes and marks, as files bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reco_plugin.compare import SearchQuery, read_judgments, read_marks, read_votes
from reco_plugin.compare.judgments import read_run
from reco_plugin.errors import DataError
from reco_plugin.interleave import Votes

FOX = SearchQuery("q1", "red fox", ids=("q1", "q7"))
OWL = SearchQuery("q2", "owl")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels", "q1 0 a 2\nq7 0 b 1\nq1 0 c 0\nq9 0 a 1\n"),
        ("qrels.txt", "q1\t0\ta\t2\nq7\t0\tb\t1\n"),
        ("qrels.csv", "\ufeffquery_id;document_id;grade\nq1;a;2\nq7;b;1\n"),  # as Excel writes it
        ("qrels.csv", "q1 0 a 2\nq7 0 b 1\n"),
        ("q.csv", "query_id,document_id,grade\nq1,a,2\nq7,b,1\n"),
        ("quepid.csv", "query,docid,rating\nRed  Fox,a,2\nred fox,b,1\n"),
        ("beir.tsv", "query-id\tcorpus-id\tscore\nq1\ta\t2\nq7\tb\t1\n"),
        ("q.jsonl", '{"qid": "q1", "doc": "a", "rel": 2}\n{"qid": "q7", "doc": "b", "rel": 1}\n'),
    ],
)
def test_judgments_of_every_form(tmp_path, name, text):
    judgments = read_judgments(write(tmp_path / name, text))
    if name == "quepid.csv":  # names queries by their text, spelled in several ways
        found = judgments.of([SearchQuery("1", "red fox"), OWL])
        assert found[0].keys() <= {"a", "b"}
        assert found[0]
    else:
        found = judgments.of([FOX, OWL])
        assert found[0] == {"a": 2.0, "b": 1.0}
    assert found[1] == {}
    assert judgments.documents == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("qrels", "q1 a 2\n", r"line 1: 'q1 a 2' has 3 parts; expected `query 0 document grade`"),
        ("qrels", "q1 0 a good\n", r"line 1: the grade 'good' is no number"),
        ("qrels", "q1 0 a 0\n", "judges no document as right"),
        ("q.csv", "query_id,grade\nq1,2\n", r"no column of the document .*'grade', 'query_id'"),
        ("q.csv", "query_id,document_id,grade\nq1,,2\n", "line 2: column 'document_id' is empty"),
    ],
)
def test_judgments_that_cannot_be_read_name_line_and_value(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said):
        read_judgments(write(tmp_path / name, text))


def test_a_run_is_ordered_by_its_scores(tmp_path):
    found = read_run(write(tmp_path / "run", "q1 Q0 b 2 0.5 mine\nq1 Q0 a 1 0.9 mine\nq2 Q0 c 1 7 mine\n"))
    assert {query: [hit.id for hit in hits] for query, hits in found.items()} == {"q1": ["a", "b"], "q2": ["c"]}
    with pytest.raises(DataError, match=r"line 1: .* has 2 parts"):
        read_run(write(tmp_path / "bad", "q1 a\n"))


def test_a_person_votes_for_the_team_that_it_clicked_more(tmp_path):
    rows = [
        {"impression": "1", "unit": "ann", "id": "a", "team": "refined"},
        {"impression": "1", "unit": "ann", "id": "a", "team": "refined"},  # the same click again
        {"impression": "2", "unit": "ann", "id": "a", "team": "plain"},
        {"impression": "2", "unit": "ann", "id": "b", "team": "plain"},
        {"impression": "3", "unit": "bob", "id": "a", "team": "refined", "clicked": 1},
        {"impression": "3", "unit": "bob", "id": "b", "team": "plain", "clicked": 0},
        {"impression": "4", "unit": "eve", "id": "c", "team": ""},
    ]
    path = write(tmp_path / "clicks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_votes(path) == Votes(plain=1, refined=1)


@pytest.mark.parametrize("row", [{"team": "plain"}, {"unit": "ann", "team": "left"}])
def test_a_click_of_nobody_or_on_no_team_is_refused_by_its_line(tmp_path, row):
    good = {"unit": "ann", "team": "plain"}
    path = write(tmp_path / "clicks.jsonl", "".join(json.dumps(one) + "\n" for one in (good, row)))
    with pytest.raises(DataError, match="line 2: "):
        read_votes(path)


def test_marks_of_several_people_are_added_and_tested(tmp_path):
    for number, better in enumerate((["refined"] * 9 + ["plain"], ["same"] * 5)):
        said = {"key": "x", "marks": [{"query": str(n), "better": one} for n, one in enumerate(better)]}
        write(tmp_path / f"{number}.json", json.dumps(said))
    marks = read_marks([tmp_path / "0.json", tmp_path / "1.json"])
    assert (marks.refined, marks.plain, marks.same, marks.people) == (9, 1, 5, 2)
    assert marks.chance == pytest.approx(22 / 1024)
    assert "hardly by chance" in str(marks)
    with pytest.raises(DataError, match="no file of marks"):
        read_marks([write(tmp_path / "bad.json", "[]")])
    with pytest.raises(DataError, match=r"0.json is given twice: each file counts as a person"):
        read_marks([tmp_path / "0.json", tmp_path / "1.json", tmp_path / ".." / tmp_path.name / "0.json"])
    with pytest.raises(DataError, match="a mark is 'left'"):
        read_marks([write(tmp_path / "odd.json", '{"marks": [{"better": "left"}]}')])
