"""Judgments, runs, clicks and marks, as files bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reco_plugin.compare import SearchQuery, read_clicks, read_judgments, read_marks
from reco_plugin.compare.clicks import report_clicks
from reco_plugin.compare.judgments import read_run
from reco_plugin.compare.queries import QueryLog
from reco_plugin.compare.search import Rankings
from reco_plugin.engines import IndexHit
from reco_plugin.errors import DataError

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
        ("qrels.csv", "sep=|\nquery_id|document_id|grade\nq1|a|2\nq7|b|1\n"),
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


def event(action: str, query: str, document: str, place: int) -> dict:
    about = {"object": {"object_id": document}, "position": {"ordinal": place}}
    return {"action_name": action, "query_id": query, "event_attributes": about}


def test_clicks_are_counted_by_search_and_other_events_are_not(tmp_path):
    rows = [event("click", "q1", "a", 1), event("impression", "q1", "b", 2), event("add_to_cart", "q7", "a", 3)]
    clicks = read_clicks(write(tmp_path / "e.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert (clicks.events, clicks.count, clicks.positions) == (3, 2, (1, 3))
    assert clicks.of([FOX, OWL]) == [{"a": 2}, {}]
    with pytest.raises(DataError, match=r"no click.*'impression': 1"):
        read_clicks(write(tmp_path / "none.jsonl", json.dumps(rows[1]) + "\n"))


def test_clicks_that_plain_results_brought_about_come_with_a_warning():
    """Refined finds what nobody was shown: as judgments, clicks say that it is worse."""
    hits = {"plain": ["a", "b"], "refined": ["new", "a"]}
    log = QueryLog((FOX,), shown={"q1": frozenset("ab")})
    rankings = Rankings({arm: [[IndexHit(id_, 1.0) for id_ in ids]] for arm, ids in hits.items()})
    clicks = read_clicks_of({"q1": ["a"]})
    report = report_clicks(clicks, log, rankings, 10, 0)
    assert report is not None
    assert report.as_judgments.mean < 0
    assert (report.kept, report.never_shown) == (1.0, 0.5)
    assert report.among_shown is not None
    assert report.among_shown.mean == 0  # among what was shown, a stands first on both sides
    assert "brought about by plain results" in report.said()[0]


def read_clicks_of(found: dict[str, list[str]]):
    from collections import Counter

    from reco_plugin.compare import Clicks

    return Clicks({query: Counter(documents) for query, documents in found.items()}, 1)


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
