"""``POST /v1/match`` against Reco.match, and the cut-offs in the memory's description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.calibration import learn
from reco_plugin.extras.chances import MatchState, ThingQuestions

SCORES = [0.9, 0.4, *[0.2] * 8]


def learned() -> MatchState:
    """What 900 things asked by text: right first answers lead."""
    rng = np.random.default_rng(0)
    first = rng.random(900)
    right = rng.random(900) < first
    lead = np.where(right, 0.3, 0.1) * rng.random(900)
    present = np.stack([first, lead, lead + 0.1, 0.1 * rng.random(900)], axis=1).astype(np.float32)
    draw = rng.random(900).astype(np.float32)
    one = ThingQuestions(present, right.astype(np.int16), present * np.float32(0.5), draw)
    return MatchState({"text": {"plain": one, "known": one, "unknown": one}, "image": {}}, 900, 900, 0.0)


@pytest.fixture
def asked(filled: Reco) -> Iterator[Reco]:
    store = filled.memory.store
    store.set_calibration({**store.header.calibration, "match": learned().to_json()})
    yield filled


def ask(client: Any, *queries: Any, **more: Any) -> Any:
    return client.post("/v1/match", json={"queries": list(queries), **more})


def test_chances_are_those_of_reco(asked: Reco, served: Any) -> None:
    with served(asked) as client:
        answer = ask(client, {"text": "a red circle", "scores": SCORES}, {"text": "a blue square", "scores": [0.3]})
        plain = ask(client, {"text": "a red circle", "scores": SCORES}, refine=False, precision=0.8).json()
        vector = asked.embed_texts(["a red circle"], refine=False)[0].tolist()
        by_vector = ask(client, {"vector": vector, "scores": SCORES}).json()
    assert answer.status_code == 200
    one, two = answer.json()["data"]
    expected = asked.match(asked.embed(["a red circle"], modality="text", refine=True), [SCORES], modality="text")
    assert one["first"] == pytest.approx(expected.first[0], abs=1e-5)
    assert one["none"] == pytest.approx(expected.none[0], abs=1e-5)
    assert (one["way"], one["index"], two["index"]) == ("refined", 0, 1)
    assert one["first"] > two["first"]
    assert by_vector["data"][0]["first"] == pytest.approx(one["first"], abs=1e-4)
    assert plain["data"][0]["way"] == "plain"
    told = plain["cutoffs"]["text"]["plain"]
    assert (told["precision"], told["absent"]) == (0.8, 0.2)
    assert told["match"]["right"][0] >= 0.8
    assert plain["data"][0]["passes"]["match"] == (plain["data"][0]["first"] >= told["match"]["cut"])


def test_a_memory_that_asks_for_the_first_time_says_when_to_come_back(filled: Reco, served: Any) -> None:
    with learn.noted(filled.memory.store, 1_000), served(filled) as client:
        answer = ask(client, {"text": "a red circle", "scores": SCORES})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_learned_yet"
    assert "ask again in some seconds" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "15"


@pytest.mark.parametrize(
    ("query", "more", "said"),
    [
        ({"text": "a", "scores": [0.1, 0.2]}, {}, "queries[0].scores must be the best first"),
        ({"text": "a", "scores": [1.7, 0.2]}, {}, "queries[0].scores must hold cosines"),
        ({"text": "a"}, {}, "scores is missing"),
        ({"scores": [0.2]}, {}, "give one of text, image and vector"),
        ({"text": "a", "scores": [0.2]}, {"precision": 1.0}, "precision must be less than 1"),
        ({"text": "a", "scores": [0.2]}, {"absent": -1}, "absent must be greater than or equal to 0"),
        ({"text": " ", "image": "x", "scores": [0.2]}, {}, "give one of text, image and vector"),
        ({"vector": [1.0], "modality": "text", "scores": [0.2]}, {}, "128"),
    ],
)
def test_what_cannot_be_is_refused(asked: Reco, served: Any, query: Any, more: Any, said: str) -> None:
    with served(asked) as client:
        answer = ask(client, query, **more)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_a_bad_item_does_not_spoil_the_others(asked: Reco, served: Any) -> None:
    with served(asked) as client:
        answer = ask(client, {"image": "no image", "scores": [0.2]}, {"text": "a red circle", "scores": SCORES})
    bad, good = answer.json()["data"]
    assert bad["error"]["message"]
    assert good["first"] > 0


def test_a_memory_that_never_asked_says_what_to_do(reading: Any) -> None:
    answer = ask(reading, {"text": "a", "scores": [0.2]})
    assert answer.status_code == 400
    assert "it needs 300 pairs, of 60 things, then reco memory build --relearn" in answer.json()["error"]["message"]
