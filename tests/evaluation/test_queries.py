"""Files of queries: tables, lines, logs; what is merged, counted and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from reco_plugin.errors import ConfigError, DataError
from reco_plugin.evaluation import read_queries


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def lines(path: Path, rows: list[dict]) -> str:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def test_equal_queries_are_one_with_their_counts(tmp_path):
    log = read_queries(write(tmp_path / "q.csv", "qid,query,count\n1,Red fox,3\n2, red  FOX,2\n3,owl,1\n"))
    assert [(one.id, one.text, one.weight, one.ids) for one in log.queries] == [
        ("1", "Red fox", 5.0, ("1", "2")),
        ("3", "owl", 1.0, ("3",)),
    ]
    assert log.searches == 3


def test_a_query_with_another_filter_is_another_one(tmp_path):
    log = read_queries(write(tmp_path / "q.csv", "query,where\nfox,price < 5\nFox,\nfox, price < 5\n"))
    assert [(one.text, one.where, one.weight) for one in log.queries] == [("fox", "price < 5", 2.0), ("Fox", None, 1.0)]
    assert "1 has a filter of its own" in log.notes()
    assert log.queries[0].name == "fox [price < 5]"
    rows = [{"text": "fox", "facets": {"range": {"price": {"lt": 5}}}}, {"text": "owl", "facets": {}}]
    log = read_queries(lines(tmp_path / "q.jsonl", rows) + "?where=facets")
    assert [one.where for one in log.queries] == ['{"range": {"price": {"lt": 5}}}', None]


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path / "q.csv", "phrase,n\nfox,2\n")
    assert read_queries(f"{path}?text=phrase&weight=n").queries[0].weight == 2
    with pytest.raises(DataError, match=r"no column 'phrse'.*'phrase'"):
        read_queries(f"{path}?text=phrse")
    with pytest.raises(DataError, match=r"neither a column of texts.*\?text=NAME"):
        read_queries(path)
    with pytest.raises(ConfigError, match="no option 'txt'"):
        read_queries(f"{path}?txt=phrase")


def test_a_log_of_user_behavior_insights_is_read_bare_and_as_exported(tmp_path):
    rows = [
        {"query_id": "s1", "user_query": "fox", "query_response_hit_ids": ["1", "2"], "client_id": "c", "timestamp": 1},
        {"_index": "ubi_queries", "_source": {"query_id": "s2", "user_query": "Fox", "query_response_hit_ids": ["3"]}},
    ]
    log = read_queries(lines(tmp_path / "ubi.jsonl", rows))
    assert [(one.text, one.ids, one.weight) for one in log.queries] == [("fox", ("s1", "s2"), 2.0)]


def test_what_is_odd_is_counted_and_not_fatal(tmp_path):
    rows = [{"text": text} for text in ("fox", "", "  ", "лиса", "赤い狐", "x" * 20_000, "owl", "cat", "dog", "bird")]
    log = read_queries(lines(tmp_path / "q.jsonl", [*rows, *({"text": f"thing {n}"} for n in range(20))]))
    assert (log.empty, len(log.unreadable)) == (2, 1)
    assert "2 were empty and left out" in log.notes()


def test_a_damaged_line_is_told_and_many_are_refused(tmp_path):
    good = "".join(f'{{"text": "thing {n}"}}\n' for n in range(30))
    log = read_queries(write(tmp_path / "q.jsonl", good + "{broken\n"))
    assert len(log.queries) == 30
    assert "line 31" in log.unreadable[0]
    with pytest.raises(DataError, match="2 of 3 queries"):
        read_queries(write(tmp_path / "bad.jsonl", '{"text": "fox"}\n{broken\n{again\n'))


def test_pictures_ask_where_there_is_no_text(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "fox.png")
    log = read_queries(write(tmp_path / "q.csv", "id,text,image\n1,,fox.png\n2,owl,fox.png\n"))
    assert [(one.modality, one.name) for one in log.queries] == [
        ("image", str(tmp_path / "fox.png")),
        ("text", "owl"),
    ]


def test_a_file_without_queries_is_refused(tmp_path):
    with pytest.raises(DataError, match="did you mean"):
        write(tmp_path / "queries.csv", "text\nfox\n")
        read_queries(str(tmp_path / "querys.csv"))
    with pytest.raises(DataError, match="holds no query: 2 searches"):
        read_queries(write(tmp_path / "empty.csv", 'id,text\n1,\n2," "\n'))
    with pytest.raises(DataError, match="holds no query: nothing follows the names"):
        read_queries(write(tmp_path / "head.csv", "query\n"))
    with pytest.raises(DataError, match="no file of queries"):
        read_queries(write(tmp_path / "q.parquet", "x"))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ('text,count\nfox,3\nowl,"1,200"\n', r"row 2: the count '1,200' is no number above 0"),
        ("query_id,text\n7,fox\n7,owl\n", "row 2: the id '7' stands for two queries"),
    ],
)
def test_a_wrong_count_and_an_id_of_two_queries_are_named(tmp_path, rows, problem):
    with pytest.raises(DataError, match=problem):
        read_queries(write(tmp_path / "q.csv", rows))


def test_a_sample_is_the_same_for_a_seed_and_says_so(tmp_path):
    log = read_queries(write(tmp_path / "q.txt", "\n".join(f"thing {n}" for n in range(100))))
    assert [one.id for one in log.queries[:2]] == ["thing 0", "thing 1"], "ids are texts where a file has none"
    some = log.sample(10, 3)
    assert some.queries == log.sample(10, 3).queries != log.sample(10, 4).queries
    assert some.notes()[0] == "100 searches are 100 different queries, of which 10 were drawn"
    assert log.sample(100, 0) is log
