"""Feedback over HTTP and by commands: counts at once, is taken back, and is the admin's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from reco_plugin import Pair, Reco
from tests.support.shapes import COLOURS, SHAPES, draw

QUESTION = {"input": [{"text": "a red circle"}]}


@pytest.fixture(scope="module")
def pairs(model: Path) -> Any:
    """Pairs by which queries move."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(
            Pair(f"{shape}-{colour}-{size}", draw(colour, shape, size), f"a {colour} {shape}")
            for shape in SHAPES
            for colour in COLOURS
            for size in (18, 26)
        )
        yield reco.memory.store


@pytest.fixture
def client(model: Path, pairs: Any, served: Any, tmp_path: Path) -> Iterator[TestClient]:
    with Reco.open(model, memory=tmp_path / "memory") as reco:
        for records in pairs.scroll():
            reco.memory.store.upsert(records)
        reco.memory.store.set_calibration(pairs.header.calibration)
        with served(reco) as client:
            yield client


def explain(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/v1/explain", json=QUESTION).json()["data"][0]
    return found


def test_what_is_rejected_moves_the_query_no_more_and_can_be_taken_back(client: TestClient, admin: Any) -> None:
    before = explain(client)
    assert before["moved"] > 1e-3
    judgments = [{"text": "a red circle", "pair": pair["id"], "by": "ann"} for pair in before["used"]]
    answer = client.post("/v1/memory/feedback", json={"judgments": judgments}, headers=admin).json()
    assert answer["opinions"] == len(answer["data"]) == len(judgments)
    assert {(one["modality"], one["right"], one["by"]) for one in answer["data"]} == {("text", False, "ann")}
    assert explain(client)["moved"] < 1e-4
    kept = client.get("/v1/memory/feedback", headers=admin).json()
    assert kept["data"] == answer["data"]
    ids = [one["id"] for one in answer["data"]]
    gone = client.request("DELETE", "/v1/memory/feedback", params={"id": [*ids, "unknown"]}, headers=admin).json()
    assert (gone["withdrawn"], gone["opinions"]) == (len(ids), 0)
    assert gone["version"] > answer["version"]
    assert explain(client)["moved"] == pytest.approx(before["moved"], abs=1e-6)


def test_answers_that_are_no_pairs(client: TestClient, admin: Any) -> None:
    vector = np.eye(1, client.get("/v1/memory", headers=admin).json()["dimension"]).ravel().tolist()
    judgments = [
        {"text": "a red circle", "answer_vector": vector},
        {"vector": vector, "modality": "image", "answer_vector": vector, "right": True},
    ]
    answer = client.post("/v1/memory/feedback", json={"judgments": judgments}, headers=admin)
    assert answer.status_code == 200, answer.text
    assert [(one["modality"], one["pair"], one["right"]) for one in answer.json()["data"]] == [
        ("text", None, False),
        ("image", None, True),
    ]
    assert client.get("/v1/memory/feedback", headers=admin).json()["data"] == answer.json()["data"]


@pytest.mark.parametrize(
    ("judgment", "why"),
    [
        ({"text": "a"}, "give pair or answer_vector, and not both"),
        ({"pair": "x"}, "give one of text, image and vector"),
        ({"text": "a", "pair": "gone"}, "holds no pair 'gone': it may be gone. Nothing was stored"),
        ({"image": "AAAA", "pair": "circle-red-18"}, "judgments[1]"),
        ({"text": "a", "pair": "circle-red-18", "by": "x" * 300}, "at most 200 characters"),
        ({"text": "a", "pair": "circle-red-18", "wrong": True}, "wrong"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_stored(
    client: TestClient, admin: Any, judgment: dict[str, Any], why: str
) -> None:
    good = {"text": "a red circle", "pair": "circle-red-18"}
    answer = client.post("/v1/memory/feedback", json={"judgments": [good, judgment]}, headers=admin)
    assert answer.status_code in (400, 415)
    assert why in answer.json()["error"]["message"]
    assert client.get("/v1/memory/feedback", headers=admin).json()["opinions"] == 0
