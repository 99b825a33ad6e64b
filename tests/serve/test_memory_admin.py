"""The memory over HTTP: searchable at once, one bad pair refuses all or is skipped, and only for the admin."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.memory import disk
from reco_plugin.types import Records
from reco_plugin.values import pack

pytestmark = pytest.mark.slow


@pytest.fixture
def filled_twin(model, drawings):
    """Another Reco with the drawings in its memory."""
    with Reco.open(model, memory=":memory:") as other:
        other.memory.add(drawings)
        yield other


@pytest.fixture
def empty(reco, served):
    with served(reco) as client:
        yield client


def test_pairs_are_searchable_when_the_answer_comes(empty, reco, admin, pairs_json):
    question = {"input": [{"text": "a small red circle"}]}
    before = empty.post("/v1/explain", json=question).json()["data"][0]
    assert (before["refined"], before["moved"], before["used"]) == (False, 0.0, [])
    added = empty.post("/v1/memory/pairs", json={"pairs": pairs_json}, headers=admin).json()
    assert (added["stored"], added["pairs"]) == (24, 24)
    after = empty.post("/v1/explain", json=question).json()["data"][0]
    assert after["used"][0]["id"] == "small-red-circle"
    assert after["used"][0]["payload"]["caption"] == "a small red circle"
    assert (after["refined"], after["moved"] > 0) == (True, True)
    assert np.allclose(after["embedding"], reco.embed_texts(["a small red circle"], refine=True)[0], atol=1e-6)


def test_what_is_stored_is_what_reco_stores(empty, filled_twin, admin, pairs_json):
    empty.post("/v1/memory/pairs", json={"pairs": pairs_json}, headers=admin)
    ids = ["small-red-circle", "unknown", "large-blue-square"]
    found = empty.get("/v1/memory/pairs", params={"id": ids, "vectors": "float"}, headers=admin).json()["data"]
    assert [pair["id"] for pair in found] == ["small-red-circle", "large-blue-square"]
    same = filled_twin.memory.get([ids[0], ids[2]])
    assert np.allclose([pair["text_vector"] for pair in found], same.text, atol=1e-6)
    assert np.allclose([pair["image_vector"] for pair in found], same.image, atol=1e-6)
    assert found[0]["payload"] == {
        "caption": "a small red circle",
        "colour": "red",
        "shape": "circle",
        "radius": 8,
    }


def test_one_bad_pair_refuses_all(empty, reco, admin, red_square):
    good = {"id": "good", "text": "red", "image": red_square}
    bad = [
        {"id": "b1", "text": "red", "image": "###"},
        {"id": "b2", "text": "red", "image": red_square[:80]},
        {"id": "b3", "text_vector": [1.0], "image": red_square},
    ]
    refused = empty.post("/v1/memory/pairs", json={"pairs": [good, *bad]}, headers=admin)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "pairs[1]"
    assert len(reco.memory) == 0


def test_what_no_memory_can_hold_is_refused(empty, reco, admin, red_square):
    pair = {"id": "a", "text": "red", "image": red_square}
    for pairs, status in (
        ([pair, pair], 400),  # the same id twice
        ([pair | {"id": ""}], 400),
        ([pair | {"text_vector": [0.1]}], 400),
        ([{"id": "a", "text": "red"}], 400),
        ([pair | {"payload": {"big": 2**70}}], 400),
        ([pair | {"text": " \n"}], 400),
        ([pair | {"payload": {"reco_source": "shop.csv"}}], 400),
        ([pair | {"payload": {"reco_row": "0" * 16}}], 400),
        ([pair | {"caption": "x"}], 400),
        ([], 400),
    ):
        answer = empty.post("/v1/memory/pairs", json={"pairs": pairs}, headers=admin)
        assert answer.status_code == status, answer.text
    assert len(reco.memory) == 0


def test_what_a_source_brought_can_be_read_changed_and_sent_again(empty, reco, admin):
    vectors = np.eye(2, reco.manifest.dimension, dtype=np.float32)
    marks = {"reco_row": "0" * 16, "reco_source": "shop.csv"}
    reco.memory.add_records([Records(["a", "b"], vectors, vectors, [{"n": 1, **marks}, {"n": 2}])])
    options = {"params": {"id": ["a", "b"], "vectors": "float"}, "headers": admin}
    first, second = empty.get("/v1/memory/pairs", **options).json()["data"]
    assert (first["payload"], first["source"]) == ({"n": 1}, "shop.csv")
    assert (second["payload"], second.get("source")) == ({"n": 2}, None)
    changed = {**first, "payload": {"n": 3}}
    assert empty.post("/v1/memory/pairs", json={"pairs": [changed]}, headers=admin).json()["stored"] == 1
    assert dict(reco.memory.get(["a"]).payloads[0]) == {"n": 3, **marks}
    packed = {"vectors": "base64", "limit": 1}
    page = empty.get("/v1/memory/pairs", params=packed, headers=admin).json()
    assert (page["last"], page["data"][0]["text_vector"]) == ("a", pack(vectors[0]))
    following = empty.get("/v1/memory/pairs", params={**packed, "after": "a"}, headers=admin).json()
    assert [pair["id"] for pair in following["data"]] == ["b"]
    assert empty.get("/v1/memory/pairs", params={"after": "b"}, headers=admin).json() == {"data": []}
    again = {"id": "c", "text_vector": pack(vectors[0]), "image_vector": pack(vectors[1])}
    assert empty.post("/v1/memory/pairs", json={"pairs": [again]}, headers=admin).json()["pairs"] == 3


def test_delete_count_and_replace(client, filled, admin, red_square):
    ids = ["small-red-circle", "unknown"]
    removed = client.delete("/v1/memory/pairs", params={"id": ids}, headers=admin).json()
    assert (removed["removed"], removed["pairs"]) == (1, 23)
    info = client.get("/v1/memory", headers=admin).json()
    assert (info["pairs"], info["kind"], info["calibrated"]) == (23, "exact", True)
    assert info["fingerprint"] == filled.manifest.digest
    assert info["version"] == removed["version"] == filled.memory.version
    pair = {"id": "large-red-circle", "text": "another text", "image": red_square}
    assert client.post("/v1/memory/pairs", json={"pairs": [pair]}, headers=admin).json()["pairs"] == 23
    (found,) = client.get("/v1/memory/pairs", params={"id": "large-red-circle"}, headers=admin).json()["data"]
    assert found == {"id": "large-red-circle", "payload": {"caption": "another text"}}


def test_search_by_text_image_and_vector(client, filled, admin, pairs_json):
    text = client.post("/v1/memory/search", json={"text": "a small red circle", "k": 3}, headers=admin).json()["data"]
    same = filled.memory.search("a small red circle", k=3)
    assert [hit["id"] for hit in text] == same.ids[0]
    assert np.allclose([hit["similarity"] for hit in text], same.similarity[0], atol=1e-6)
    vector = filled.embed_texts(["a small red circle"], refine=False)[0].tolist()
    by_vector = client.post("/v1/memory/search", json={"vector": vector, "k": 3}, headers=admin).json()["data"]
    assert text[0].pop("words") == "a small red circle"
    assert by_vector == text
    image = {"image": pairs_json[0]["image"], "k": 1, "where": {"colour": "red"}}
    (hit,) = client.post("/v1/memory/search", json=image, headers=admin).json()["data"]
    assert hit["id"] == pairs_json[0]["id"]
    for wrong, status in (({}, 400), ({"text": "a", "vector": vector}, 400), ({"text": "a", "k": 101}, 400)):
        assert client.post("/v1/memory/search", json=wrong, headers=admin).status_code == status


def test_a_write_that_the_disk_refuses_says_why_and_is_not_counted(
    model, served, admin, drawings, pairs_json, tmp_path, monkeypatch
):
    with Reco.open(model, memory=tmp_path / "m") as reco, served(reco) as client:
        reco.memory.add(drawings[:3])

        def add():
            answer = client.post("/v1/memory/pairs", json={"pairs": pairs_json[3:5]}, headers=admin)
            assert "retry-after" not in answer.headers
            return answer.status_code, answer.json()["error"]["code"], str(tmp_path / "m") in answer.text

        with monkeypatch.context() as patch:
            patch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(total=1, free=0))
            assert add() == (507, "disk_full", True)
        (tmp_path / "m").rename(tmp_path / "elsewhere")
        assert add() == (409, "memory_read_only", True)
        (tmp_path / "elsewhere").rename(tmp_path / "m")
        assert client.get("/v1/memory", headers=admin).json()["pairs"] == 3
