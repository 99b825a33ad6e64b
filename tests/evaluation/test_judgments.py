"""Judgments and marks, as files hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reco_plugin.errors import DataError
from reco_plugin.evaluation import SearchQuery, read_judgments
from reco_plugin.evaluation.judgments import read_marks

FOX = SearchQuery("q1", "red fox", ids=("q1", "q7"))
OWL = SearchQuery("q2", "owl")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels", "q1 0 a 2\nq7 0 b 1\nq1 0 c 0\nq9 0 a 1\n"),
        ("qrels.csv", "\ufeffquery_id;document_id;grade\nq1;a;2\nq7;b;1\n"),  # as Excel writes it
        ("quepid.csv", "query,docid,rating\nRed  Fox,a,2\nred fox,b,1\n"),
        ("beir.tsv", "query-id\tcorpus-id\tscore\nq1\ta\t2\nq7\tb\t1\n"),
        ("q.jsonl", '{"qid": "q1", "doc": "a", "rel": 2}\n{"qid": "q7", "doc": "b", "rel": 1}\n'),
    ],
)
def test_judgments_of_every_form(tmp_path, name, text):
    judgments = read_judgments(str(write(tmp_path / name, text)))
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
    ("name", "text", "problem"),
    [
        ("qrels", "q1 a 2\n", r"line 1: 'q1 a 2' has 3 parts; expected `query 0 document grade`"),
        ("qrels", "q1 0 a good\n", r"line 1: the grade 'good' is no number"),
        ("q.csv", "query_id,grade\nq1,2\n", r"no column of the document .*'grade', 'query_id'"),
    ],
)
def test_judgments_that_cannot_be_read_name_line_and_value(tmp_path, name, text, problem):
    with pytest.raises(DataError, match=problem):
        read_judgments(write(tmp_path / name, text))


def save(path: Path, person: str, better: dict[str, str], key: str = "k") -> Path:
    marks = [{"query": query, "better": one} for query, one in better.items()]
    return write(path, json.dumps({"key": key, "person": person, "marks": marks}))


def test_a_query_has_one_vote_and_a_person_one_mark_of_it(tmp_path):
    ann = dict.fromkeys("abcdefghi", "refined") | {"j": "plain"}
    files = [
        save(tmp_path / "ann", "ann", dict.fromkeys("abcdefghij", "plain")),
        save(tmp_path / "again", "ann", ann),  # her mind changed: the last file counts
        save(tmp_path / "bob", "bob", {"a": "refined", "b": "plain", "x": "same"}),
    ]
    marks = read_marks(files, "k")
    assert (marks.count("refined"), marks.count("plain"), marks.count("same"), marks.people) == (8, 1, 2, 2)
    assert marks.by_query["b"] == "same", "one for either side"
    assert marks.p == pytest.approx(20 / 512)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"key": "k", "person": "ann", "marks": [{"query": "a", "better": "left"}]}', "a mark is 'left'"),
        ('{"key": "other", "person": "ann", "marks": []}', r"the key 'other'.*another index"),
    ],
)
def test_marks_of_something_else_are_refused(tmp_path, text, problem):
    with pytest.raises(DataError, match=problem):
        read_marks([write(tmp_path / "marks.json", text)], "k")
