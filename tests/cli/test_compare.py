"""``reco compare`` by a function of one's own, and flags that would do nothing."""

from __future__ import annotations

import json

import pytest

SHOP = """
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import titles
from reco_plugin.evaluation import FunctionIndex
from reco_plugin.sources.indexes import IndexHit

vectors = np.random.default_rng(0).normal(size=(24, 128))
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)


def search(question):
    scores = vectors @ question.vector
    return [IndexHit(f"p{row}", float(scores[row]), titles.of(row)) for row in np.argsort(-scores)[: question.k]]


@dataclass
class Lazy:
    more: int = 3

    def __call__(self, question):
        scores = (vectors @ question.vector).astype(np.float32)
        best = np.argsort(-scores)[: question.k + self.more]
        return [IndexHit(f"p{row}", scores[row]) for row in best]


lazy = Lazy()
farthest = lambda question: search(question)[::-1]


def fails(question):
    return {}["clip"]


def words(question):
    return search(question) if question.vector is not None else [IndexHit("p3", 1.0, "a red fox")]


named = FunctionIndex(words, 128, searches_text=True, name="my shop")
"""


@pytest.fixture
def shop(work, memory):
    """A file of functions, one beside it that it imports, and queries."""
    (work / "shop.py").write_text(SHOP)
    (work / "titles.py").write_text("of = 'a picture of {}'.format\n")
    (work / "queries.txt").write_text("a red circle\na blue square\n")
    return work


def test_a_function_stands_in_for_an_engine_without_an_address(shop, ask):
    told = ask("compare", "--function", "shop.py:search", "--queries", "queries.txt", "--k", 5)
    assert told["setup"]["engine"] == "shop.py:search"
    assert "documents" not in told["setup"], "nobody knows how many there are"
    assert any("was not measured: its vectors cannot be read" in note for note in told["notes"])
    rows = [json.loads(line) for line in (shop / "compare" / "queries.jsonl").read_text().splitlines()]
    assert [len(row["plain"]) for row in rows] == [5, 5]
    assert (shop / "compare" / "compare.html").is_file()
    told = ask("compare", "--function", "shop.py:named", "--queries", "queries.txt")
    assert told["setup"]["engine"] == "my shop"


def test_scores_of_numpy_and_more_hits_than_asked_for_are_taken(shop, ask):
    """Of an object of a dataclass, which looks for the module that it is of."""
    ask("compare", "--function", "shop.py:lazy", "--queries", "queries.txt", "--k", 5)
    rows = [json.loads(line) for line in (shop / "compare" / "queries.jsonl").read_text().splitlines()]
    assert [len(row["plain"]) for row in rows] == [5, 5]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("shop.py", "is FILE.py:NAME, as in shop.py:search, got 'shop.py'"),
        ("shop.py:serach", "shop.py has no 'serach': did you mean 'search'?"),
        ("broken.py:search", "the file cannot be run: ModuleNotFoundError: No module named 'nowhere'"),
        ("shop.py:farthest", "the best hit comes first, with the cosine as score, which is 1 - distance"),
        ("shop.py:fails", r"shop.py:fails failed: KeyError: 'clip' (shop.py, line 36)"),
    ],
)
def test_a_function_that_cannot_be_asked_is_told_by_its_name(shop, fail, function, says):
    (shop / "broken.py").write_text("import nowhere\n")
    said = fail("compare", "--function", function, "--queries", "queries.txt")
    assert says in said
    assert not (shop / "compare").exists()


def test_an_address_and_a_function_are_one_too_many(fail):
    assert "give the address of an index, or in its place --function" in fail(
        "compare", "postgresql://host/shop?table=products", "--function", "shop.py:search", "--queries", "q.txt"
    )


def test_what_a_function_would_not_be_asked_is_refused(fail):
    given = ("compare", "--function", "shop.py:search")
    assert "give real queries: --queries FILE" in fail(*given, "--marks", "marks.json")
