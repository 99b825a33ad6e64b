"""The search application: its parts on vectors that one can draw, and the whole of it as a user runs it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from some_drawings import load_some
from typer.testing import CliRunner

from examples.search_app.__main__ import app
from examples.search_app.catalogue import Product, Query
from examples.search_app.index import Hit, Index, connect
from examples.search_app.measure import Answer, ask, examples, recall_of, recalls, render
from examples.search_app.queries import QueryVectors, query_vectors
from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.errors import InputError

from .conftest import Live

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "triton_models"


# --- the index ---------------------------------------------------------------------------------------------------

ANGLES = (0.0, 0.4, 1.5)  # of three products on the unit circle


def on_circle(*angles: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.float32([[np.cos(angle), np.sin(angle)] for angle in angles])


@pytest.fixture
def products() -> list[Product]:
    blank = Image.new("RGB", (2, 2))
    return [Product(row, blank, f"e{row}", f"name {row}", "style") for row in range(len(ANGLES))]


@pytest.fixture
def index(products: list[Product]) -> Iterator[Index]:
    client = connect(":memory:")
    made = Index(client)
    made.fill(products, on_circle(*ANGLES))
    yield made
    client.close()


def test_the_index_answers_by_cosine_nearest_first(index: Index) -> None:
    hits = index.search(on_circle(0.1, 1.4), 2)
    assert [[hit.id for hit in row] for row in hits] == [[0, 1], [2, 1]]
    assert hits[0][0].score == pytest.approx(np.cos(0.1))
    assert (hits[0][0].entity, hits[0][0].name) == ("e0", "name 0")


def test_searching_leaves_the_digest_and_writing_does_not(index: Index, products: list[Product]) -> None:
    before = index.digest()
    index.search(on_circle(0.3), 3)
    assert index.digest() == before
    index.fill(products, on_circle(0.0, 0.4, 1.5001))
    assert index.digest() != before


def test_an_index_of_another_encoder_is_noticed(index: Index, products: list[Product]) -> None:
    assert index.holds(products, on_circle(*ANGLES))
    assert not index.holds(products, on_circle(0.0, 0.4, 0.0))
    assert not index.holds(products, np.eye(3, dtype=np.float32))  # of another dimension
    assert not index.holds([*products, Product(9, products[0].image, "e9", "", "")], on_circle(*ANGLES, 0.0))
    assert not Index(index.client, "nothing").holds(products, on_circle(*ANGLES))


# --- the figures -------------------------------------------------------------------------------------------------


def hits(*entities: str) -> list[Hit]:
    return [Hit(0, entity, entity, 0.5) for entity in entities]


ROSE = Answer(Query("a", "a", "unseen"), hits("b", "c"), hits("a", "b"))
STAYED = Answer(Query("b", "b", "unseen"), hits("b", "c"), hits("b", "a"))
FELL = Answer(Query("c", "c", "seen"), hits("a", "c"), hits("a", "b"))


def test_recall_counts_right_results_before_and_after() -> None:
    found = recalls([ROSE, STAYED, FELL])
    assert (found["unseen"].before, found["unseen"].after) == ({1: 0.5, 10: 0.5}, {1: 1.0, 10: 1.0})
    assert (found["seen"].before, found["seen"].after) == ({1: 0.0, 10: 1.0}, {1: 0.0, 10: 0.0})
    assert found["unseen"].gain.mean == 0.5
    assert "unseen          2  50.0 -> 100.0" in render(found)


def test_without_queries_there_is_no_recall() -> None:
    with pytest.raises(InputError, match="no queries"):
        recall_of([])


def test_examples_are_of_both_kinds() -> None:
    assert examples([STAYED, FELL, ROSE], gains=5, losses=5) == [ROSE, FELL]


def test_both_vectors_of_a_query_are_searched(index: Index) -> None:
    vectors = QueryVectors(on_circle(0.0), on_circle(1.5))
    (answer,) = ask(index, [Query("q", "e2", "seen")], vectors)
    assert (answer.place_before, answer.place_after) == (2, 0)


def test_query_vectors_are_those_of_reco(filled: Reco) -> None:
    texts = ["a red circle", "a blue square"]
    vectors = query_vectors(filled, texts)
    assert np.array_equal(vectors.plain, filled.embed_texts(texts, refine=False))
    assert np.array_equal(vectors.refined, filled.embed_texts(texts, refine=True))
    assert vectors.degraded is None


def test_query_vectors_of_a_service_are_the_same(filled: Reco, live: Live) -> None:
    texts = [f"a red circle {number}" for number in range(130)]  # more than one request takes
    with live(filled) as url, Client(url) as client:
        served, here = query_vectors(client, texts), query_vectors(filled, texts)
    np.testing.assert_allclose(served.plain, here.plain, atol=1e-5)
    np.testing.assert_allclose(served.refined, here.refined, atol=1e-5)


# --- the whole ---------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> Any:
    fixed = ["--folder", str(folder), "--model", str(MODEL)]
    return CliRunner().invoke(app, [*arguments, *fixed], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an application that sells every sixth of the drawings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.search_app.catalogue.load", partial(load_some, every=6))
        yield tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def ran(folder: Path) -> str:
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert isinstance(result.stdout, str)
    return result.stdout


def shares(output: str, split: str) -> list[float]:
    """R@1 before and after, R@10 before and after, in per cent."""
    line = next(line for line in output.splitlines() if line.startswith(split))
    return [float(word) for word in line.replace("->", " ").split()[2:6]]


@pytest.mark.xdist_group("quickstart")
def test_it_shows_what_refinement_changes(ran: str) -> None:
    first_before, first_after, ten_before, ten_after = shares(ran, "unseen")
    assert first_after - first_before > 15
    assert ten_after - ten_before > 30
    first_before, first_after, ten_before, ten_after = shares(ran, "seen")
    assert first_after - first_before > -5
    assert ten_after - ten_before > -5


@pytest.mark.xdist_group("quickstart")
def test_it_shows_examples_side_by_side(ran: str, folder: Path) -> None:
    assert ran.count("(right one at 1)") >= 6
    assert ran.count("(not in the first 10)") >= 6
    assert "The index was not written to (sha256 " in ran
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 9
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert set(sources) == {"data:image/png;base64,"}  # it stands alone


@pytest.mark.xdist_group("quickstart")
def test_a_query_is_typed_and_index_and_memory_are_there_already(ran: str, folder: Path) -> None:
    result = run(folder, "a doughnut")
    assert result.exit_code == 0, result.output
    assert "index:" not in result.stdout
    assert "fill memory" not in result.stderr
    assert result.stdout.startswith("'a doughnut'\n  plain")


@pytest.mark.xdist_group("quickstart")
def test_a_service_refines_as_well(ran: str, folder: Path, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_APP_KEY", "k")  # not RECO_…, which the plugin would refuse in the same shell
    with Reco.open(MODEL, memory=folder / "memory") as reco, live(reco, api_keys=["k"]) as url:
        served = run(folder, "doughnut", "--reco", url)
        refused = run(folder, "doughnut", "--reco", url, "--api-key", "wrong")
    here = run(folder, "doughnut")
    assert served.exit_code == 0, served.output
    assert served.stdout == here.stdout
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
