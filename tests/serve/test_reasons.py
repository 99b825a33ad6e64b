"""What the service says of a decision: coverage, and why a vector moved or stays plain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reco_plugin.client import Client

PROMPTS = ["a small red circle", "a large blue square", "a small green triangle", "the theory of numbers"]


def test_candidates_say_which_were_covered_what_was_decided_and_why(filled, served):
    plain = filled.embed_texts(PROMPTS, refine=False)
    ask = {"vectors": plain.tolist(), "modality": "text", "input_type": "document", "explain": True}
    with served(filled) as client:
        answer = client.post("/v1/refine", json=ask)
        all_ = client.post("/v1/refine", json=ask | {"vectors": plain[:3].tolist()}).json()
        texts = client.post("/v1/embeddings", json={"input": PROMPTS, "input_type": "document", "refine": True})
    body, expected = answer.json(), filled.refine(plain, modality="text", role="candidate").coverage
    assert body["decided"]["text"].startswith("3 of 4 are known to the memory, less than 90%, so all stay plain")
    assert body["coverage"]["text"] == vars(expected) | {
        "strength": pytest.approx(expected.strength),
        "covered": [True, True, True, False],
    }
    assert answer.headers["x-reco-coverage"] == texts.headers["x-reco-coverage"] == "0.75"
    held = body["coverage"]["text"]
    assert held["answered"] < held["needed"]
    assert {one["moved"] for one in body["data"]} == {0.0}
    assert all_["decided"]["text"] == "3 of 3 are known to the memory, so all move"
    assert min(one["moved"] for one in all_["data"]) > 0.0


def test_a_side_that_stays_plain_says_why(gainless, served):
    plain = gainless.embed_texts(PROMPTS, refine=False).tolist()
    with served(gainless) as client:
        answer = client.post("/v1/refine", json={"vectors": plain, "modality": "text", "input_type": "document"}).json()
    assert answer["coverage"]["text"]["plain"].startswith("its captions fit their images hardly better")
    assert answer["decided"]["text"] == "nothing moves: " + answer["coverage"]["text"]["plain"]
    assert answer["coverage"]["text"]["covered"] == [True, True, True, False]


def test_an_explanation_says_why_in_figures_and_words(reading, filled):
    body = reading.post("/v1/explain", json={"input": [{"text": text} for text in PROMPTS]}).json()
    result = filled.embed(PROMPTS, modality="text", refine=True, explain=True)
    for one, why in zip(body["data"], result.why, strict=True):
        assert one["reason"] == str(why)
        assert one["why"]["added"] == pytest.approx(why.added, abs=1e-6)
        assert one["why"]["signals"] == pytest.approx(why.signals, abs=1e-6)
        assert list(one["why"]["signals"]) == ["odds", "pictures", "typical"]
    ungated = reading.post("/v1/explain", json={"input": [{"text": "red"}], "gate": False}).json()["data"][0]
    assert "why" not in ungated
    assert {used["reliability"] for used in ungated["used"]} == {1.0}


def test_the_service_says_what_the_memory_has_learned(filled, reco, served, admin):
    with served(filled) as client:
        for answer in (client.get("/meta").json(), client.get("/v1/memory", headers=admin).json()):
            assert (answer["calibrated"], answer["plain"]) == (True, "")
        assert (client.get("/meta").json()["coverage"], client.get("/meta").json()["fusers"]) == (
            None,
            ["reco", "paper"],
        )
        filled.memory.remove([pair for page in filled.memory.store.scroll() for pair in page.ids])
        filled.memory.store.set_calibration({})
        answer = client.get("/meta").json()
    assert answer["calibrated"] is False
    assert "the memory is not calibrated" in answer["plain"]


def test_clients_refine_candidates_as_the_reco_behind_the_service(filled, live):
    texts = filled.embed_texts(PROMPTS[:3], refine=False)
    with live(filled) as (url, _), Client(url, batch_size=2) as client:
        refined = client.refine(texts, modality="text", role="candidate", explain=True)
    there = filled.refine(texts, modality="text", role="candidate", explain=True)
    assert replace(refined.coverage, strength=None) == replace(there.coverage, strength=None)
    assert [str(why) for why in refined.why] == [str(why) for why in there.why]
