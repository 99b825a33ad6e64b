"""``POST /v1/scores``, caution and coverage, against Reco itself; and the clients' ``scores`` behind a real socket."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.calibration.why import explain_decision
from reco_plugin.client import Client
from reco_plugin.errors import InputError, MemoryUnavailable

PROMPTS = ["a small red circle", "a large blue square", "a small green triangle", "the theory of numbers"]


@pytest.fixture(scope="module")
def pictures(drawings) -> list[Any]:
    return [pair.image for pair in drawings[:3]]


@pytest.fixture(scope="module")
def sent(pictures) -> list[str]:
    def packed(image: Any) -> str:
        file = io.BytesIO()
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    return [packed(image) for image in pictures]


@pytest.fixture
def moving(filled: Reco) -> Iterator[Reco]:
    """A memory whose candidates move, too: that of the drawings has one image for each caption."""
    state = filled.memory.calibration
    assert state is not None
    sides = {name: replace(side, candidate_gate=side.gate) for name, side in state.sides.items()}
    filled.memory._learned = (filled.memory.searches.header, replace(state, sides=sides))
    yield filled


def test_scores_are_those_of_reco(moving, served, pictures, sent):
    with served(moving) as client:
        answer = client.post("/v1/scores", json={"images": sent, "texts": PROMPTS})
        body = answer.json()
        expected = moving.scores(pictures, PROMPTS)
    assert answer.status_code == 200
    assert np.allclose(body["scores"], expected.scores, atol=1e-6)
    assert np.allclose(body["frozen"], expected.frozen, atol=1e-6)
    assert not np.allclose(body["scores"], body["frozen"], atol=1e-4)
    assert body["covered"] == list(expected.coverage.covered) == [True, True, True, False]
    assert body["coverage"]["answered"] == 0.75
    assert body["coverage"]["decided"] == explain_decision(expected.coverage, exact=True)
    assert "3 of 4 are known to the memory" in body["coverage"]["decided"]
    assert "degraded" not in body
    assert (answer.headers["x-reco-refined"], answer.headers["x-reco-coverage"]) == ("true", "0.75")
    assert {"queue;", "encode;", "refine;"} <= {
        part.split("dur")[0] for part in answer.headers["server-timing"].split(", ")
    }


def test_vectors_follow_what_is_raw(filled, served, pictures, sent):
    images, texts = filled.embed_images(pictures, refine=False), filled.embed_texts(PROMPTS, refine=False)
    mixed = {"images": sent[:1], "image_vectors": images[1:].tolist()}
    mixed |= {"texts": PROMPTS[:3], "text_vectors": texts[3:].tolist()}
    with served(filled) as client:
        body = client.post(
            "/v1/scores", json={**mixed, "k": 3, "caution": "bold", "exclude": ["small-red-circle"]}
        ).json()
    expected = filled.scores(images, texts, k=3, caution="bold", exclude=["small-red-circle"])
    assert np.allclose(body["scores"], expected.scores, atol=1e-6)


def test_what_cannot_be_scored_is_refused_by_its_name(reading, sent):
    good = {"images": sent, "texts": PROMPTS}
    for change, status, code, param in (
        ({"images": []}, 400, "invalid_request", None),
        ({"texts": []}, 400, "invalid_request", None),
        ({"images": [*sent, "%%%"]}, 400, "image_not_base64", "images[3]"),
        ({"images": [*sent, "bm8gaW1hZ2U="]}, 415, "image_decode_failed", "images[3]"),
        ({"texts": [*PROMPTS, ""]}, 400, "empty_text", "texts[4]"),
        ({"text_vectors": [[1.0, 2.0]]}, 400, "invalid_vector", "texts[4]"),
        ({"k": 1000}, 400, "k_too_large", "k"),
        ({"caution": "reckless"}, 400, "invalid_request", "caution"),
        ({"caution": 1.5}, 400, "invalid_request", "caution"),
        ({"fuser": "sum"}, 400, "invalid_request", "fuser"),
        ({"candidates": []}, 400, "invalid_request", "candidates"),
    ):
        answer = reading.post("/v1/scores", json=good | change)
        said = answer.json()["error"]
        assert (answer.status_code, said["code"], said["param"]) == (status, code, param), said


@pytest.mark.filterwarnings("ignore:answering with frozen CLIP vectors")
def test_a_memory_that_is_away_leaves_plain_scores_and_says_so(troubled, served, sent):
    made = troubled()

    def away() -> None:
        raise MemoryUnavailable("gone")

    with served(made.reco) as client:
        made.seam.trouble = away
        answer = client.post("/v1/scores", json={"images": sent, "texts": PROMPTS})
    assert answer.json()["scores"] == answer.json()["frozen"]
    assert (answer.json()["degraded"], answer.headers["x-reco-degraded"]) == ("memory_error", "memory_error")
    assert (answer.headers["x-reco-refined"], answer.json()["covered"]) == ("false", [])


def test_candidates_say_which_were_covered_what_was_decided_and_why(moving, served):
    plain = moving.embed_texts(PROMPTS, refine=False)
    ask = {"vectors": plain.tolist(), "modality": "text", "input_type": "document", "explain": True}
    with served(moving) as client:
        answer = client.post("/v1/refine", json=ask)
        few = client.post("/v1/refine", json=ask | {"vectors": plain[-1:].tolist()}).json()
        texts = client.post("/v1/embeddings", json={"input": PROMPTS, "input_type": "document", "refine": True})
    body, expected = answer.json(), moving.refine(plain, modality="text", role="candidate").coverage
    assert [one["covered"] for one in body["data"]] == [True, True, True, False] == list(expected.covered)
    said = body["coverage"]["text"]
    assert said.pop("decided") == "3 of 4 are known to the memory, so all move"
    assert said == {name: getattr(expected, name) for name in ("asked", "found", "answered", "needed", "plain")} | {
        "strength": pytest.approx(expected.strength)
    }
    assert answer.headers["x-reco-coverage"] == texts.headers["x-reco-coverage"] == "0.75"
    held = few["coverage"]["text"]
    assert held["answered"] < held["needed"]
    assert "so all stay plain" in held["decided"]
    assert [one["moved"] for one in few["data"]] == [0.0]


def test_a_side_that_stays_plain_says_why(gainless, served):
    plain = gainless.embed_texts(PROMPTS, refine=False).tolist()
    with served(gainless) as client:
        said = client.post("/v1/refine", json={"vectors": plain, "modality": "text", "input_type": "document"}).json()
    assert said["coverage"]["text"]["plain"].startswith("its own pairs show no gain")
    assert said["coverage"]["text"]["decided"] == "nothing moves: " + said["coverage"]["text"]["plain"]
    assert [one["covered"] for one in said["data"]] == [True, True, True, False]


def test_an_explanation_says_why_in_figures_and_words(reading, filled):
    body = reading.post("/v1/explain", json={"input": [{"text": text} for text in PROMPTS]}).json()
    result = filled.embed(PROMPTS, modality="text", refine=True, explain=True)
    for one, why in zip(body["data"], result.why, strict=True):
        assert one["why"]["words"] == str(why)
        assert one["why"]["added"] == pytest.approx(why.added, abs=1e-6)
        assert one["why"]["signals"].keys() == {signal.name for signal in why.signals}
        assert list(one["why"]["signals"])[:4] == ["knowledge", "familiarity", "nearness", "standout"]
        assert one["why"]["signals"]["nearness"]["value"] == pytest.approx(one["used"][0]["similarity"], abs=1e-6)
    ungated = reading.post("/v1/explain", json={"input": [{"text": "red"}], "gate": False}).json()["data"][0]
    assert "why" not in ungated
    assert {used["reliability"] for used in ungated["used"]} == {1.0}


def test_the_service_says_what_the_memory_has_learned(filled, reco, served, admin):
    with served(filled) as client:
        for said in (client.get("/meta").json(), client.get("/v1/memory", headers=admin).json()):
            assert (said["calibrated"], said["plain"], said["check"]) == (True, "", None)
        assert (client.get("/meta").json()["caution"], client.get("/meta").json()["fusers"]) == (
            "balanced",
            ["reco", "paper"],
        )
        filled.memory.remove([pair for page in filled.memory.store.scroll() for pair in page.ids])
        filled.memory.store.set_calibration({})
        said = client.get("/meta").json()
    assert (said["calibrated"], said["check"]) == (False, None)
    assert said["plain"].startswith("the memory is not calibrated")


def test_clients_score_as_the_reco_behind_the_service(moving, live, pictures):
    texts = moving.embed_texts(PROMPTS, refine=False)

    with live(moving) as (url, _), Client(url, batch_size=2) as client:
        found, prudent = client.scores(pictures, PROMPTS), client.scores(pictures, texts, caution="cautious")
        by_texts = client.scores(pictures, PROMPTS, "text")  # in two parts
        refined = client.refine(texts, modality="text", role="candidate", explain=True)
        with pytest.raises(InputError, match="empty"):
            client.scores([], PROMPTS)
    for got, expected in (
        (found, moving.scores(pictures, PROMPTS)),
        (prudent, moving.scores(pictures, texts, caution="cautious")),
        (by_texts, moving.scores(pictures, PROMPTS, "text")),
    ):
        assert np.allclose(got.scores, expected.scores, atol=1e-6)
        assert np.allclose(got.frozen, expected.frozen, atol=1e-6)
        coverages = [replace(one.coverage, needed=0.0, strength=None) for one in (got, expected)]
        assert coverages[0] == coverages[1]
    there = moving.refine(texts, modality="text", role="candidate", explain=True)
    assert replace(refined.coverage, strength=None) == replace(there.coverage, strength=None)
    assert [str(why) for why in refined.why] == [str(why) for why in there.why]
